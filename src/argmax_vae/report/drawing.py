"""What figures are drawn with: curves with bands, dots with intervals, keys, and how a figure becomes a file.

Drawn with matplotlib's object-oriented interface, which is imported by the functions that draw. The bytes of an SVG
file depend on the data and the version of matplotlib alone.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from argmax_vae.files import write_text
from argmax_vae.report.style import Style
from argmax_vae.statistics import mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


@contextmanager
def figure_settings() -> Iterator[None]:
    """Settings under which figures are made and saved."""
    import matplotlib

    with matplotlib.rc_context(
        {"font.size": 9, "axes.titlesize": 10, "legend.fontsize": 8.5, "svg.hashsalt": "argmax-vae"}
    ):
        yield


class Dot(NamedTuple):
    """One row of :func:`dots_with_intervals`; values in the units of the axis, NaN where there is none."""

    label: str
    mean: float
    half_width: float
    published: float
    look: Style


LEGEND_LINE = 0.2
"""Inches of a line in a legend."""


def legend_below(axes: Axes, above: Mapping[Style, float]) -> None:
    """Names of the curves under a panel, and of those that lie above it, with their last mean bounds."""
    from matplotlib.lines import Line2D

    handles, labels = axes.get_legend_handles_labels()
    for look, bound in sorted(above.items(), key=lambda item: item[1]):
        drawn: dict[str, Any] = {"color": look.color, "linestyle": look.line, "marker": look.marker}
        handles.append(Line2D([], [], **drawn))
        labels.append(f"{look.label}: {bound:.1f}, above")
    if handles:
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, -0.24), "borderaxespad": 0}
        axes.legend(handles, labels, frameon=False, handlelength=3.2, fontsize=8, **place)


def curve_with_band(axes: Axes, curves: pd.DataFrame, look: Style, confidence: float = 0.95) -> None:
    """Draw the mean over seeds at every step, with a band of its Student-t interval.

    Args:
        axes: where to draw; the line's label is ``look.label``.
        curves: values (steps × seeds), indexed by step. NaN marks a seed without a value at that step, which
            the mean of that step leaves out; a step with one seed has no band, a step with none is dropped.
        look: colour, line style, marker and label.
        confidence: of the interval at each step alone (the band is pointwise).
    """
    curves = curves.dropna(how="all").sort_index()
    if curves.empty:
        return
    intervals = [mean_interval(row[np.isfinite(row)], confidence) for row in curves.to_numpy(dtype=float)]
    _, low, high, _, _ = (np.array(column) for column in zip(*intervals, strict=True))
    steps = curves.index.to_numpy()
    spacing = max(1, len(steps) // 6)
    start = len(axes.lines) * spacing // 4 % spacing
    axes.fill_between(steps, low, high, color=look.color, alpha=0.2, linewidth=0)
    axes.plot(
        steps,
        [interval.mean for interval in intervals],
        color=look.color,
        linestyle=look.line,
        marker=look.marker,
        markevery=(start, spacing),
        markersize=5,
        linewidth=1.4,
        label=look.label,
    )


ROOM = 0.25
"""What an axis has beyond the means and published values, as a part of their range."""


def limits_of_dots(*values: Iterable[float]) -> tuple[float, float]:
    """Limits of an axis that shows these means and published values, whatever their intervals. NaN counts as none."""
    finite = [value for each in values for value in each if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    room = ROOM * (high - low) or 1.0
    return low - room, high + room


def dots_with_intervals(axes: Axes, dots: Sequence[Dot], limits: tuple[float, float] | None = None) -> None:
    """Draw one row per dot, from the top: mean with interval bar, and the published value as an open marker.

    The published value lies a little below its row's mean, so that neither hides the other. With limits, a bar that
    reaches beyond them ends there, in an arrow.
    """
    low, high = limits or (-math.inf, math.inf)
    for row, dot in enumerate(dots):
        color, marker = dot.look.color, dot.look.marker
        if math.isfinite(dot.mean):
            width, place = dot.half_width if math.isfinite(dot.half_width) else 0.0, row - 0.12
            ends = max(low, dot.mean - width), min(high, dot.mean + width)
            bar = [[dot.mean - ends[0]], [ends[1] - dot.mean]]
            axes.errorbar(dot.mean, place, xerr=bar, color=color, marker=marker, markersize=5.5, capsize=3)
            for end, beyond, arrow in ((ends[0], dot.mean - width, "<"), (ends[1], dot.mean + width, ">")):
                if end != beyond:
                    axes.plot(end, place, color=color, marker=arrow, markersize=6, clip_on=False)
        if math.isfinite(dot.published):
            axes.plot(dot.published, row + 0.2, marker=marker, markersize=5.5, color=color, mfc="white")
    axes.set_yticks(range(len(dots)), [dot.label for dot in dots])
    axes.set_ylim(len(dots) - 0.4, -0.6)
    axes.margins(x=0.08)
    if limits:
        axes.set_xlim(limits)
    axes.locator_params(axis="x", nbins=5, min_n_ticks=3)
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def bars_within(axes: Axes, places: np.ndarray, means: np.ndarray, widths: np.ndarray, **bars: Any) -> None:
    """Means with intervals; one that reaches beyond the axis ends at its edge, in an arrow."""
    low, high = axes.get_ylim()
    edge = 0.03 * (high - low)
    ends = np.clip(means - widths, low + edge, None), np.clip(means + widths, None, high - edge)
    axes.errorbar(places, means, np.clip([means - ends[0], ends[1] - means], 0, None), **bars)
    for end, beyond, marker in ((ends[0], means - widths, "v"), (ends[1], means + widths, "^")):
        cut = end != beyond
        axes.plot(places[cut], end[cut], linestyle="", marker=marker, color=bars["color"], markersize=5)


def key_of_dots(figure: Figure | SubFigure) -> None:
    """Below all panels, what filled and open dots are."""
    from matplotlib.lines import Line2D

    ours = Line2D([], [], color="0.3", marker="o", label="mean and 95 % interval over seeds")
    published = Line2D([], [], color="0.3", marker="o", mfc="white", linestyle="", label="published")
    figure.legend(handles=[ours, published], loc="outside lower center", ncols=2, frameon=False)


def dot_panels(figure: Figure | SubFigure, titles: Sequence[str], groups: Sequence[Sequence[Dot]]) -> None:
    """One small axes per group, each with its own range, and a key below them."""
    heights = [len(group) + 0.5 for group in groups]
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, title, group in zip(panels, titles, groups, strict=True):
        dots_with_intervals(axes, group)
        axes.set_title(title, loc="left")
    panels[-1].set_xlabel("test bound (nats), lower is better")
    key_of_dots(figure)


@figure_settings()
def save(figure: Figure, path: Path, description: str) -> None:
    """Replace an SVG file atomically; its description holds the digest, and it holds no date.

    The layout solver's positions vary in the last digits from call to call: rounding makes the bytes equal.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = (round(value, 4) for value in axes.get_position().bounds)
        axes.set_position((left, bottom, width, height))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Description": f"plotted data {description}"})
    write_text(path, buffer.getvalue().decode())
