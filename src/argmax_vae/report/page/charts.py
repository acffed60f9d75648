"""Curves over epochs as inline SVG, from ``results/curves.csv``: means over seeds with bands of 95 % intervals.

A chart is whole without scripts; ``page.js`` finds the numbers that it shows at an epoch in the JSON beside it.
"""

from __future__ import annotations

import colorsys
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from argmax_vae.errors import UsageError
from argmax_vae.report.records import TABLES, require
from argmax_vae.report.style import Style, rank, style
from argmax_vae.statistics import Interval, mean_interval

WIDTH, HEIGHT = 440, 260
LEFT, TOP, RIGHT, BOTTOM = 46, 8, 428, 222
LINE_WIDTH = 1.8
FEW_POINTS = 12
KEY = ["protocol", "n", "k", "estimator", "seed"]
METRICS = {
    "test_bound": ("test bound (nats)", 1),
    "test_importance_weighted": ("importance-weighted test bound (nats)", 1),
    "test_accuracy": ("test accuracy, arg max (%)", 100),
}
"""Drawn columns of curves.csv: what the axis says, and the factor that gives its unit."""


@dataclass(frozen=True)
class Series:
    """A line: the interval over seeds at each evaluated epoch, in the units of the chart.

    It looks as its estimator does, unless it has a `look` of its own.
    """

    estimator: str
    epochs: tuple[int, ...]
    intervals: tuple[Interval, ...]
    look: Style | None = None

    @property
    def style(self) -> Style:
        """Colour, dashes and label."""
        return self.look or style(self.estimator)


@dataclass(frozen=True)
class Chart:
    """What one chart shows: a title, what its axis measures, and a series per estimator or run."""

    title: str
    measure: str
    series: tuple[Series, ...]

    @property
    def domain(self) -> tuple[float, float, float, float]:
        """First and last epoch, then the range of the bands, each without the first fifth of its series."""
        drawn = [
            value
            for series in self.series
            for epoch, interval in zip(series.epochs, series.intervals, strict=True)
            for value in band(interval)
            if epoch >= series.epochs[-1] / 5
        ]
        epochs = [epoch for series in self.series for epoch in series.epochs]
        margin = 0.05 * (max(drawn) - min(drawn)) or 1.0
        return 0, max(epochs), min(drawn) - margin, max(drawn) + margin


def band(interval: Interval) -> tuple[float, float]:
    """The ends of an interval; of a single value, that value twice."""
    return (interval.low, interval.high) if math.isfinite(interval.half_width) else (interval.mean, interval.mean)


def charts(name: str, curves: pd.DataFrame, runs: pd.DataFrame) -> list[Chart]:
    """The charts of a table: one for each size, protocol and number of labels, and each measure that was recorded.

    Args:
        name: the table.
        curves: the rows of ``curves.csv``; those of other tables are ignored.
        runs: the rows of ``runs.csv``, of which only seeds that are done are drawn.

    Raises:
        UsageError: a missing column, or an epoch of a seed that occurs twice.
    """
    require(curves, ["table", *KEY, "epoch", "test_bound"], "curves.csv")
    require(runs, ["table", *KEY, "status"], "runs.csv")
    rows = curves[curves["table"] == name]
    with_labels = "labels" in rows and len(rows) > 0 and bool(rows["labels"].notna().all())
    key = [*KEY, "data", "labels"] if with_labels else KEY
    require(runs, key, "runs.csv")
    done = runs[(runs["table"] == name) & (runs["status"] == "done")]
    rows = rows.merge(done[key].drop_duplicates(), on=key).fillna({"protocol": ""})
    if rows.duplicated([*key, "epoch"]).any():
        raise UsageError(f"curves.csv: table={name}: an epoch of a seed occurs twice; allowed: once")
    sizes = TABLES[name].sizes if name in TABLES else ()

    def order(group: tuple[Any, ...]) -> tuple:
        size = (group[0], group[1])
        return (sizes.index(size) if size in sizes else len(sizes), *group[:2], *group[3:], group[2])

    found = []
    groups = dict(list(rows.groupby(["n", "k", "protocol", *key[5:]])))
    for group in sorted(groups, key=order):
        n, k, protocol, *labels = group
        parts = [f"{labels[0]}, {labels[1]:g} labels" if labels else f"{n:g}×{k:g}", protocol]
        for metric, (measure, factor) in METRICS.items():
            if metric in rows and (series := several(groups[group], metric, factor)):
                found.append(Chart(", ".join(str(part) for part in parts if part), measure, series))
    return found


def several(rows: pd.DataFrame, metric: str, factor: float) -> tuple[Series, ...]:
    """A series for each estimator that has finite values of the metric, in the fixed order of estimators."""
    rows = rows[np.isfinite(rows[metric].astype(float))]
    found = []
    for estimator in sorted(rows["estimator"].unique(), key=rank):
        found.append(line(str(estimator), rows[rows["estimator"] == estimator], metric, factor))
    return tuple(found)


def line(estimator: str, rows: pd.DataFrame, metric: str, factor: float, look: Style | None = None) -> Series:
    """The series of a metric whose values are finite, with a row for each seed and epoch."""
    epochs = rows["epoch"].astype(int)
    intervals = {epoch: mean_interval(factor * rows.loc[epochs == epoch, metric]) for epoch in sorted(set(epochs))}
    return Series(estimator, tuple(intervals), tuple(intervals.values()), look)


def ticks(low: float, high: float, number: int = 5) -> list[float]:
    """At most ``number`` + 1 round values from low to high, low < high."""
    size = (high - low) / number
    power = 10.0 ** math.floor(math.log10(size))
    step = power * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= size * (1 - 1e-9))
    return [round(index * step, 10) for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def luminance(color: tuple[float, float, float]) -> float:
    """Relative luminance of a colour in sRGB, as WCAG 2.2 defines it."""
    red, green, blue = (((part + 0.055) / 1.055) ** 2.4 if part > 0.04045 else part / 12.92 for part in color)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


DIMMEST_ON_DARK = 0.23
"""A luminance with a contrast of 4.5 to the background of the dark page."""


def on_dark(color: str) -> str:
    """The colour of the same hue that stands out on a dark page; darker colours stay darker than others."""
    red, green, blue = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    raised = 0.57 + 0.25 * lightness
    while luminance(bright := colorsys.hls_to_rgb(hue, raised, saturation)) < DIMMEST_ON_DARK:
        raised += 0.01
    return "#" + "".join(f"{round(255 * part):02X}" for part in bright)


def attributes(of: Style) -> str:
    """Attributes of an element that is drawn in a style: both colours and the dashes."""
    dashes = " ".join(f"{LINE_WIDTH * length:g}" for length in of.line[1]) if isinstance(of.line, tuple) else "none"
    return f'style="--light:{of.color};--dark:{on_dark(of.color)};--dashes:{dashes}"'


def shown(interval: Interval) -> str:
    """The mean and its half width, as in the tables."""
    width = f" ± {interval.half_width:.2f}" if math.isfinite(interval.half_width) else ""
    return f"{interval.mean:.2f}{width}".replace("-", "−")


def render(chart: Chart, identity: str) -> str:
    """A chart as a ``figure`` with its legend, whose ids begin with ``identity``."""
    left, right, low, high = chart.domain

    def x(epoch: float) -> float:
        return round(LEFT + (epoch - left) / (right - left) * (RIGHT - LEFT), 1)

    def y(value: float) -> float:
        return round(BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP), 1)

    def path(points: Sequence[tuple[int, float]]) -> str:
        return "M" + "L".join(f"{x(epoch)},{y(value)}" for epoch, value in points)

    levels, grid, lines, legend = [], [], [], []
    for value in ticks(low, high):
        text = f"{value:g}".replace("-", "−")
        levels.append(f'<path class="grid" d="M{LEFT},{y(value)}H{RIGHT}"/>')
        levels.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:g}" text-anchor="end">{text}</text>')
    for value in ticks(left, right):
        grid.append(f'<text x="{x(value)}" y="{BOTTOM + 17}" text-anchor="middle">{value:g}</text>')
    grid.append(f'<text x="{(LEFT + RIGHT) / 2:g}" y="{HEIGHT - 4}" text-anchor="middle">epoch</text>')
    for index, series in enumerate(chart.series):
        of = series.style
        ends = [(epoch, *band(interval)) for epoch, interval in zip(series.epochs, series.intervals, strict=True)]
        area = [(epoch, above) for epoch, _, above in ends] + [(epoch, below) for epoch, below, _ in reversed(ends)]
        means = [(epoch, interval.mean) for epoch, interval in zip(series.epochs, series.intervals, strict=True)]
        dots = [f'<circle r="2.4" cx="{x(epoch)}" cy="{y(mean)}"/>' for epoch, mean in means]
        lines.append(
            f'<g class="series" data-series="{index}" {attributes(of)}><path class="band" d="{path(area)}Z"/>'
            f'<path class="line" d="{path(means)}"/>{"".join(dots) if len(dots) <= FEW_POINTS else ""}</g>'
        )
        legend.append(
            f'<li><button type="button" class="series" aria-pressed="true" data-series="{index}" {attributes(of)}>'
            '<svg class="sample" viewBox="0 0 34 10" aria-hidden="true"><path class="line" d="M1,5H33"/></svg>'
            f'<span>{escape(of.label)}</span><span class="value">{shown(series.intervals[-1])}</span></button></li>'
        )
    names = ", ".join(series.style.label for series in chart.series)
    return (
        f'<figure class="chart" id="{identity}">'
        f"<figcaption><strong>{escape(chart.title)}</strong> {escape(chart.measure)}</figcaption>\n"
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(f"{chart.title}: {chart.measure} over epochs of {names}")}">\n'
        f'<clipPath id="{identity}-clip"><path d="M{LEFT},{TOP}H{RIGHT}V{BOTTOM}H{LEFT}Z"/></clipPath>\n'
        f'<g class="levels">{"".join(levels)}</g>{"".join(grid)}<path class="axis" d="M{LEFT},{BOTTOM}H{RIGHT}"/>\n'
        f'<g clip-path="url(#{identity}-clip)">{"".join(lines)}</g></svg>\n'
        f'<p class="epoch">each at its last epoch</p>\n<ul class="legend">{"".join(legend)}</ul>\n'
        f'<script type="application/json">{data(chart)}</script></figure>'
    )


def data(chart: Chart) -> str:
    """The chart's numbers as JSON that may stand in a page: domain, box of the axes, and every series."""

    def rounded(value: float) -> float | None:
        return round(value, 4) if math.isfinite(value) else None

    series = [
        {
            "label": one.style.label,
            "epochs": one.epochs,
            "mean": [rounded(interval.mean) for interval in one.intervals],
            "half_width": [rounded(interval.half_width) for interval in one.intervals],
        }
        for one in chart.series
    ]
    whole = {"domain": chart.domain, "box": (LEFT, TOP, RIGHT, BOTTOM), "series": series}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
