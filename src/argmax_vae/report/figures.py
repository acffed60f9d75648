"""The figures of tables over seeds: bounds over epochs, and dots with intervals beside the published values.

An SVG file carries a digest of its data.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from argmax_vae.errors import UsageError
from argmax_vae.report.drawing import (
    LEGEND_LINE,
    Dot,
    bars_within,
    curve_with_band,
    dot_panels,
    figure_settings,
    legend_below,
    save,
)
from argmax_vae.report.records import definition, require
from argmax_vae.report.style import FAMILIES, rank, style
from argmax_vae.report.tables import build
from argmax_vae.statistics import mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


CURVE_SIZE = (20, 2)
"""The (n, k) whose test bound Figure 2 follows over the epochs."""

FIGURE5_SIZES = ((20, 2), (20, 10))
"""The (n, k) that the paper's Figure 5 follows over the epochs."""

_DRAWN = {
    "runs": ["table", "protocol", "n", "k", "estimator", "seed", "status", "test_bound"],
    "curves": ["table", "protocol", "n", "k", "estimator", "seed", "epoch", "test_bound"],
    "paper": ["n", "k", "estimator", "metric", "value"],
}
_ALSO_DRAWN = {"estimators": ["decoder_evaluations"], "benchmark": ["decoder_evaluations"], "figure6": ["epochs"]}
"""Further columns of ``runs`` that the figure of a table depends on."""


def digest(name: str, *, more: Sequence[str] = (), **frames: pd.DataFrame) -> str:
    """Fingerprint of the data that a figure draws: the raw rows, independent of their order.

    Args:
        name: key of :data:`argmax_vae.report.TABLES`.
        more: further columns of ``runs`` that it draws.
        frames: ``runs`` and ``paper``, and ``curves`` where the figure draws them.

    Raises:
        UsageError: a missing column.
    """
    code = hashlib.sha256()
    for key in sorted(frames):
        frame, columns = frames[key], list(_DRAWN[key])
        if key == "runs":
            columns += [*more, *_ALSO_DRAWN.get(name, [])]
        require(frame, columns, f"{key}.csv" if key != "paper" else definition(name).paper)
        rows = frame[frame["table"] == name] if "table" in columns else frame
        lines = rows[columns].to_csv(index=False, header=False, lineterminator="\n").splitlines()
        code.update("\n".join([key, *sorted(lines)]).encode())
    return f"sha256:{code.hexdigest()}"


def figure2(runs: pd.DataFrame, curves: pd.DataFrame, paper: pd.DataFrame, path: Path) -> None:
    """Write Figure 2 as SVG: test bound over epochs for 20×2 (left), final test bounds of all cells (right).

    The curves' axis is cut to the range that they have after the first tenth of the epochs.

    Args:
        runs: as for :func:`argmax_vae.report.tables.build`.
        curves: a row per seed and epoch, with the columns of ``results/curves.csv``; seeds that are not done
            in ``runs`` are left out, as they are from the table.
        paper: published values.
        path: the SVG file to replace.

    Raises:
        UsageError: a missing column, or cells that the table refuses.
    """
    code = digest("figure2", runs=runs, curves=curves, paper=paper)
    save(draw_figure2(runs, curves, paper), path, code)


def section61(runs: pd.DataFrame, paper: pd.DataFrame, path: Path) -> None:
    """Write the figure of section 6.1 as SVG: product spaces against one joint variable with as many codes.

    Arguments and errors are those of :func:`figure2`.
    """
    code = digest("section61", runs=runs, paper=paper)
    save(draw_section61(runs, paper), path, code)


def estimators(runs: pd.DataFrame, curves: pd.DataFrame, paper: pd.DataFrame, path: Path) -> None:
    """Write the comparison of all estimators as SVG: test bound over epochs and over decoder evaluations.

    Arguments and errors are those of :func:`figure2`.
    """
    code = digest("estimators", runs=runs, curves=curves, paper=paper)
    save(draw_budgets("estimators", runs, curves, paper), path, code)


def benchmark(runs: pd.DataFrame, curves: pd.DataFrame, paper: pd.DataFrame, path: Path) -> None:
    """Write the benchmark as SVG: for each setting, test bound over epochs and over decoder evaluations.

    Arguments and errors are those of :func:`figure2`.
    """
    code = digest("benchmark", runs=runs, curves=curves, paper=paper)
    save(draw_budgets("benchmark", runs, curves, paper), path, code)


def figure5(runs: pd.DataFrame, curves: pd.DataFrame, paper: pd.DataFrame, path: Path) -> None:
    """Write Figure 5 as SVG: test bound of every estimator of Figure 2 over epochs and over seconds of training.

    Arguments and errors are those of :func:`figure2`.
    """
    code = digest("figure2", more=("seconds", "epochs"), runs=runs, curves=curves, paper=paper)
    save(draw_figure5(runs, curves), path, code)


def figure6(runs: pd.DataFrame, paper: pd.DataFrame, path: Path) -> None:
    """Write Figure 6 as SVG: deep networks, test bound by shape n×k, and paired differences to direct optimization.

    Arguments and errors are those of :func:`figure2`.
    """
    code = digest("figure6", runs=runs, paper=paper)
    save(draw_figure6(runs, paper), path, code)


def own(name: str, runs: pd.DataFrame, paper: pd.DataFrame, path: Path) -> None:
    """Write the figure of a user's own table as SVG: a panel of test bounds for each size; else as :func:`figure2`."""
    table = build(name, runs, paper)
    titles = {(n, k): f"{n}×{k}" for n, k in zip(table["n"], table["k"], strict=True)}
    figure = draw_sizes(table, [[size] for size in titles], list(titles.values()))
    save(figure, path, digest(name, runs=runs, paper=paper))


BESIDE: dict[str, dict[str, tuple[Callable[..., None], tuple[str, ...]]]] = {
    "figure2": {"figure5": (figure5, ("seconds", "epochs"))}
}
"""Further figures that are written with a table, and the columns of ``runs.csv`` that they draw besides."""

FIGURES: dict[str, Callable[..., None]] = {
    "figure2": figure2,
    "section61": section61,
    "estimators": estimators,
    "figure6": figure6,
    "benchmark": benchmark,
}
"""The function that writes the figure of each table; its arguments are the table's frames and a path."""


@figure_settings()
def draw_figure2(runs: pd.DataFrame, curves: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """The figure that :func:`figure2` writes."""
    from matplotlib.figure import Figure

    require(curves, _DRAWN["curves"], "curves.csv")
    table = build("figure2", runs, paper)
    n, k = CURVE_SIZE
    done = runs[(runs["table"] == "figure2") & (runs["status"] == "done")]
    key = ["protocol", "n", "k", "estimator", "seed"]
    rows = curves[(curves["table"] == "figure2") & (curves["n"] == n) & (curves["k"] == k)]
    if rows.duplicated([*key, "epoch"]).any():
        raise UsageError("curves.csv: table=figure2: an epoch of a seed occurs twice; allowed: once")
    rows = rows[np.isfinite(rows["test_bound"])].merge(done[key], on=key).fillna({"protocol": ""})
    protocols = sorted(rows["protocol"].unique()) or [""]
    groups = [_dots(table, [size]) for size in dict.fromkeys(zip(table["n"], table["k"], strict=True))]
    height = 1.6 + 0.28 * sum(map(len, groups)) + 0.5 * len(groups)
    figure = Figure(figsize=(9.6, max(4.0, height)), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.08), squeeze=False)[0]
    panels = left.subplots(len(protocols), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, protocol in zip(panels, protocols, strict=True):
        _panel(axes, rows[rows["protocol"] == protocol])
        axes.set_title(f"{n}×{k}, {protocol}".removesuffix(", "), loc="left")
    panels[-1].set_xlabel("epoch")
    _limit_bounds(panels[0], rows)
    sizes = dict.fromkeys(f"{a}×{b}" for a, b in zip(table["n"], table["k"], strict=True))
    dot_panels(right, list(sizes), groups)
    return figure


def draw_section61(runs: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """The figure that :func:`section61` writes."""
    table = build("section61", runs, paper)
    sizes = definition("section61").sizes
    pairs = [sizes[start : start + 2] for start in range(0, len(sizes), 2)]
    titles = [f"{n}×{k} joint variable, {m}×{j} product space" for (n, k), (m, j) in pairs]
    others = [size for size in dict.fromkeys(zip(table["n"], table["k"], strict=True)) if size not in sizes]
    if others:
        pairs, titles = [*pairs, tuple(others)], [*titles, "other sizes"]
    return draw_sizes(table, pairs, titles, with_size=True)


@figure_settings()
def draw_sizes(
    table: pd.DataFrame, sizes: Sequence[Sequence[tuple[int, int]]], titles: Sequence[str], with_size: bool = False
) -> Figure:
    """A panel of test bounds for each group of sizes (n, k) of a built table."""
    from matplotlib.figure import Figure

    groups = [_dots(table, group, with_size) for group in sizes]
    height = 1.2 + 0.28 * sum(map(len, groups)) + 0.5 * len(groups)
    figure = Figure(figsize=(7.2, height), layout="constrained")
    dot_panels(figure, titles, groups)
    return figure


@figure_settings()
def draw_budgets(name: str, runs: pd.DataFrame, curves: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """The figure of a table that compares at equal decoder evaluations, such as :func:`estimators` writes."""
    from matplotlib.figure import Figure

    table = build(name, runs, paper, curves)
    done = runs[(runs["table"] == name) & (runs["status"] == "done")]
    key = ["protocol", "n", "k", "estimator", "seed"]
    rows = curves[(curves["table"] == name) & np.isfinite(curves["test_bound"])]
    rows = rows.merge(done[[*key, "decoder_evaluations"]], on=key)
    rows["evaluations"] = rows["epoch"] * rows["decoder_evaluations"]
    rows = rows.fillna({"protocol": ""})
    groups = list(rows.groupby(["n", "k", "protocol"])) or [((*definition(name).sizes[0], ""), rows)]
    families = list(
        dict.fromkeys(style(estimator).family for estimator in sorted(rows["estimator"].unique(), key=rank))
    )
    members = Counter(style(estimator).family for estimator in rows["estimator"].unique())
    height = 5.4 + LEGEND_LINE * max(members.values(), default=0)
    figure = Figure(figsize=(12.8, height * len(groups)), layout="constrained")
    panels = figure.subplots(2 * len(groups), max(1, len(families)), sharex="row", squeeze=False)
    for number, ((n, k, protocol), chosen) in enumerate(groups):
        same = (table["n"] == n) & (table["k"] == k) & (table["protocol"] == protocol)
        which = f"{n}×{k} {protocol}".strip() + "\n" if len(groups) > 1 else ""
        there = {style(estimator).family for estimator in chosen["estimator"]} or {*families, ""}
        first = next(column for column, family in enumerate(families or [""]) if family in there)
        inside, above = _without_far_ones(chosen)
        most = _highest_of_interest(inside)
        for place, over in enumerate(("epoch", "evaluations")):
            for column, (axes, family) in enumerate(zip(panels[2 * number + place], families or [""], strict=True)):
                if family not in there:
                    axes.set_axis_off()
                    continue
                members = chosen["estimator"].map(lambda estimator: style(estimator).family) == family
                _grey_curves(axes, chosen[~members], over)
                _panel(axes, inside[inside["estimator"].isin(chosen.loc[members, "estimator"])], over)
                _limit_bounds(axes, inside, most)
                _remove_legend(axes)
                axes.set_xlabel("epoch" if place == 0 else "decoder evaluations per training image")
                if over == "evaluations" and len(chosen):
                    _log_ticks(axes, chosen[over])
                    axes.axvline(table.loc[same, "budget"].max(), color="0.5", linewidth=0.8, linestyle=":")
                if column != first:
                    axes.set_ylabel("")
                    axes.tick_params(labelleft=False)
                if place == 0:
                    of = which if column == first else ""
                    axes.set_title(f"{of}{FAMILIES.get(family, family)}", loc="left")
                else:
                    legend_below(
                        axes, {style(each): bound for each, bound in above.items() if style(each).family == family}
                    )
    return figure


def _log_ticks(axes: Axes, values: pd.Series) -> None:
    """A logarithmic axis of plain numbers, few enough to be read."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_xscale("log")
    narrow = values.max() < 60 * values.min()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _grey_curves(axes: Axes, rows: pd.DataFrame, over: str) -> None:
    """Mean curves of other families, to compare with: thin, grey and without a name."""
    for _, chosen in rows.groupby("estimator"):
        means = chosen.groupby(over)["test_bound"].mean()
        axes.plot(means.index, means, color="0.78", linewidth=0.9, zorder=1)


@figure_settings()
def draw_figure5(runs: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """The figure that :func:`figure5` writes: a row of panels for each size of the paper's figure and protocol.

    An epoch takes as long as those of the cell's seeds do on average, so that all seeds are there at every time.
    """
    from matplotlib.figure import Figure

    require(curves, _DRAWN["curves"], "curves.csv")
    done = runs[(runs["table"] == "figure2") & (runs["status"] == "done")].fillna({"protocol": ""})
    done["seconds_per_epoch"] = done["seconds"].astype(float) / done["epochs"].astype(float)
    cell = ["protocol", "n", "k", "estimator"]
    done["seconds_per_epoch"] = done.groupby(cell)["seconds_per_epoch"].transform("mean")
    rows = curves[(curves["table"] == "figure2") & np.isfinite(curves["test_bound"])].fillna({"protocol": ""})
    rows = rows.merge(done[[*cell, "seed", "seconds_per_epoch"]], on=[*cell, "seed"])
    rows["minutes"] = rows["epoch"] * rows["seconds_per_epoch"] / 60
    groups = [
        (size, protocol, chosen)
        for size in FIGURE5_SIZES
        for protocol, chosen in rows[(rows["n"] == size[0]) & (rows["k"] == size[1])].groupby("protocol")
    ]
    figure = Figure(figsize=(9.6, 0.6 + 2.7 * max(1, len(groups))), layout="constrained")
    panels = figure.subplots(max(1, len(groups)), 2, squeeze=False, sharey="row")
    nothing = (FIGURE5_SIZES[0], "", rows.iloc[:0])
    for (left, right), ((n, k), protocol, chosen) in zip(panels, groups or [nothing], strict=True):
        _panel(left, chosen)
        _panel(right, chosen, "minutes")
        _remove_legend(right)
        right.set_ylabel("")
        left.set_title(f"{n}×{k}, {protocol}".removesuffix(", "), loc="left")
        _limit_bounds(left, chosen)
    panels[-1][0].set_xlabel("epoch")
    panels[-1][1].set_xlabel("minutes of training, all seeds at once")
    return figure


@figure_settings()
def draw_figure6(runs: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """The figure that :func:`figure6` writes: means with intervals, and every seed as a small mark.

    The axes show all seeds; where some of three collapse, an interval reaches beyond them and ends in an arrow.
    Differences are those of rows with the same protocol and number of epochs.
    """
    from matplotlib.figure import Figure

    table = build("figure6", runs, paper)
    done = runs[(runs["table"] == "figure6") & (runs["status"] == "done")].fillna({"protocol": ""})
    bounds = {
        key: cell.set_index("seed")["test_bound"]
        for key, cell in done.groupby(["n", "k", "protocol", "epochs", "estimator"])
    }
    sizes = list(dict.fromkeys(zip(table["n"], table["k"], strict=True)))
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    shown: dict[Axes, list[pd.Series]] = {left: [], right: []}
    drawn: list[tuple[Axes, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]] = []
    estimators = sorted(table["estimator"].unique(), key=rank)
    for offset, estimator in zip(np.linspace(-0.12, 0.12, len(estimators)), estimators, strict=True):
        look = style(estimator)
        cells = table[table["estimator"] == estimator]
        positions = [sizes.index(size) + offset for size in zip(cells["n"], cells["k"], strict=True)]
        bars = {"color": look.color, "marker": look.marker, "markersize": 5.5, "capsize": 3, "label": look.label}
        means, widths = (cells[column].to_numpy(dtype=float) for column in ("test_bound", "half_width"))
        drawn.append((left, np.array(positions), means, widths, bars | {"linestyle": look.line}))
        small: dict[str, Any] = {"color": look.color, "marker": look.marker, "s": 10, "alpha": 0.45, "linewidths": 0}
        differences = []
        for (n, k, *same, name), ours in bounds.items():
            if name != estimator:
                continue
            place = sizes.index((n, k)) + offset
            left.scatter([place + 0.1] * len(ours), ours, **small)
            shown[left].append(ours)
            each = (ours - bounds.get((n, k, *same, "direct"), ours.iloc[:0])).dropna()
            if estimator != "direct" and len(each):
                interval = mean_interval(each)
                right.scatter([place + 0.1] * len(each), each, **small)
                shown[right].append(each)
                differences.append((place, interval.mean, interval.half_width))
        if differences:
            places, *values = (np.array(column) for column in zip(*differences, strict=True))
            drawn.append((right, places, values[0], values[1], bars | {"linestyle": ""}))
    right.axhline(0, color="0.3", linewidth=0.8)
    left.set_ylabel("test bound (squared error + KL)")
    right.set_ylabel("behind direct optimization")
    for axes in (left, right):
        axes.set_xticks(range(len(sizes)), [f"{n}×{k}" for n, k in sizes])
        axes.set_xlim(-0.5, len(sizes) - 0.5)
        heights = np.concatenate([[] if shown[axes] and axes is left else [0.0], *shown[axes]])
        axes.set_ylim(heights.min() - 0.08 * np.ptp(heights) - 1, heights.max() + 0.08 * np.ptp(heights) + 1)
        axes.set_xlabel("shape n×k")
        axes.grid(axis="y", color="0.9", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    for axes, places, means, widths, bars in drawn:
        bars_within(axes, places, means, widths, **bars)
    left.legend(frameon=False)
    return figure


FAR = 6
"""How often the distance of the median estimator from the best one goes into that of one that is far behind."""


def _without_far_ones(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, float]]:
    """The curves that share an axis, and the last mean bounds of those so far behind that they would squeeze it."""
    last = rows[rows["epoch"] == rows.groupby("estimator")["epoch"].transform("max")]
    bounds = last.groupby("estimator")["test_bound"].mean()
    far = bounds[bounds > bounds.min() + FAR * (bounds.median() - bounds.min())]
    return rows[~rows["estimator"].isin(far.index)], {str(name): bound for name, bound in far.items()}


def _highest_of_interest(rows: pd.DataFrame) -> float:
    """Where an axis ends: as far above the ends of the curves as these spread, and above the second half of all."""
    means = rows.groupby(["estimator", "epoch"])["test_bound"].mean().reset_index()
    ends = means.loc[means["epoch"] == means["epoch"].max(), "test_bound"]
    if len(ends) < 2:
        return math.inf
    half: float = means.loc[means["epoch"] >= means["epoch"].max() / 2, "test_bound"].max()
    return max(2 * ends.max() - ends.min(), half)


def _panel(axes: Axes, rows: pd.DataFrame, over: str = "epoch") -> None:
    """Curves of all estimators under one protocol, over the column ``over``."""
    for estimator in sorted(rows["estimator"].unique(), key=rank):
        chosen = rows[rows["estimator"] == estimator]
        curves = chosen.pivot(index=over, columns="seed", values="test_bound")
        curve_with_band(axes, curves, style(estimator))
    if axes.lines:
        axes.legend(frameon=False, handlelength=3.2)
    else:
        axes.text(0.5, 0.5, "no curve of a finished seed", ha="center", transform=axes.transAxes)
    axes.set_ylabel("test bound (nats)")
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _limit_bounds(axes: Axes, rows: pd.DataFrame, most: float = math.inf) -> None:
    """Let the axis of bounds show all but the first tenth of the epochs, and none above `most`, where there are any."""
    if len(rows):
        low, high = rows["test_bound"].min(), rows.query("epoch >= epoch.max() / 10")["test_bound"].max()
        high = min(high, most)
        margin = 0.05 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)


def _remove_legend(axes: Axes) -> None:
    if (legend := axes.get_legend()) is not None:
        legend.remove()


def _dots(table: pd.DataFrame, sizes: Iterable[tuple[int, int]], with_size: bool = False) -> list[Dot]:
    """The rows of a built table with one of these (n, k), in the table's order."""
    dots = []
    for row in table.to_dict("records"):
        if (row["n"], row["k"]) in sizes:
            look = style(row["estimator"])
            note = "" if row["seeds"] else "no seed finished" if row["diverged"] + row["failed"] else "not run"
            parts = [f"{row['n']}×{row['k']}" if with_size else "", look.label, row["protocol"], note]
            dots.append(Dot(", ".join(filter(None, parts)), row["test_bound"], row["half_width"], row["paper"], look))
    return dots
