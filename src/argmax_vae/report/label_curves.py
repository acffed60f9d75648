"""Accuracy and bound on validation images over the epochs of semi-supervised training (beside Figure 3).

One column of panels for each training, all with as many labels; functions of ``results/runs.csv``,
``results/curves.csv`` and the published values alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from argmax_vae.errors import UsageError
from argmax_vae.report.drawing import curve_with_band, figure_settings, save
from argmax_vae.report.records import read, require
from argmax_vae.report.style import rank, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


LABELS: Mapping[str, int] = {"figure3": 100}
"""The number of labels whose training a figure follows over the epochs."""
TITLE = "Accuracy and bound over the epochs of each training"
ROW = ["table", "labels", "protocol", "estimator", "run", "seed"]
COLUMNS = [*ROW, "epoch", "validation_accuracy", "validation_bound"]


class Measure(NamedTuple):
    """A row of panels: a column of the curves and the factor to its unit, the published metric, and what it is."""

    column: str
    factor: float
    published: str
    label: str


MEASURES = (
    Measure("validation_accuracy", 100, "accuracy_percent", "accuracy of the arg max (%)"),
    Measure("validation_bound", 1, "test_bound", "bound (nats)"),
)


def load(name: str, results: Path, runs: pd.DataFrame) -> pd.DataFrame:
    """The curves that a figure draws: those of seeds that are done, named as the rows of `runs` are.

    Args:
        name: the table.
        results: the folder of ``curves.csv``; without that file, or for a table without curves, nothing is drawn.
        runs: rows of the table, with the names of trainings that the table has.

    Raises:
        UsageError: a missing column, or an epoch of a seed that occurs twice.
    """
    path = results / "curves.csv"
    if name not in LABELS or not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    curves = read(path, f"make it with: argmax-vae reproduce {name}")
    require(curves, COLUMNS, "curves.csv")
    curves = curves[(curves["table"] == name) & (curves["labels"] == LABELS[name])]
    done = runs[runs["status"] == "done"].fillna({"protocol": ""}).set_index(["run", "seed"])["protocol"]
    curves = curves.drop(columns="protocol").join(done, on=["run", "seed"], how="inner")[COLUMNS]
    if curves.duplicated([*ROW, "epoch"]).any():
        raise UsageError(f"curves.csv: table={name}: an epoch of a seed occurs twice; allowed: once")
    return curves


@figure_settings()
def draw(name: str, curves: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """Means and 95 % intervals over seeds, and the published values as thin lines of their estimator's colour."""
    from matplotlib.figure import Figure

    labels = LABELS[name]
    trainings = sorted(curves["protocol"].unique())
    figure = Figure(figsize=(max(5.0, 1.0 + 2.2 * len(trainings)), 5.2), layout="constrained")
    panels = figure.subplots(len(MEASURES), len(trainings), squeeze=False, sharey="row", sharex=True)
    published = paper[paper["labels"] == labels].set_index(["estimator", "metric"])["value"]
    for line, measure in zip(panels, MEASURES, strict=True):
        for axes, training in zip(line, trainings, strict=True):
            rows = curves[curves["protocol"] == training]
            for estimator in sorted(rows["estimator"].unique(), key=rank):
                look = style(estimator)
                values = rows[rows["estimator"] == estimator].pivot(
                    index="epoch", columns="seed", values=measure.column
                )
                curve_with_band(axes, measure.factor * values, look)
                if (estimator, measure.published) in published.index:
                    value = published[estimator, measure.published]
                    axes.axhline(value, color=look.color, linestyle=look.line, linewidth=0.7)
            axes.grid(color="0.9", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        line[0].set_ylabel(measure.label)
    for axes, training in zip(panels[0], trainings, strict=True):
        axes.set_title(training.replace(", ", ",\n", 1), loc="left", fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
    named = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in panels.flat]
    names = {label: handle for pairs in named for handle, label in pairs}
    figure.legend(list(names.values()), list(names), loc="outside lower center", ncols=len(names), frameon=False)
    figure.suptitle(f"{labels} labels, validation images; thin lines: published, test images", fontsize=9.5, x=0.5)
    return figure


def digest(curves: pd.DataFrame, paper: pd.DataFrame) -> str:
    """Fingerprint of what the figure draws, independent of the order of rows."""
    texts = (
        frame[columns].to_csv(index=False, header=False, float_format="%.6g", lineterminator="\n")
        for frame, columns in ((curves, COLUMNS), (paper, ["labels", "estimator", "metric", "value"]))
    )
    lines = "\n".join(line for text in texts for line in sorted(text.splitlines()))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def path(name: str, results: Path) -> Path:
    """The figure's file."""
    return results / f"{name}_curves.svg"


def write(name: str, results: Path, runs: pd.DataFrame, paper: pd.DataFrame) -> list[Path]:
    """Regenerate the figure atomically, if there is something to draw. Raises UsageError as `load` does."""
    curves = load(name, results, runs)
    if curves.empty:
        return []
    save(draw(name, curves, paper), path(name, results), digest(curves, paper))
    return [path(name, results)]


def check(name: str, results: Path, runs: pd.DataFrame, paper: pd.DataFrame) -> list[str]:
    """A line if the committed figure draws other data than the files of record. Raises UsageError as `load` does."""
    curves, figure = load(name, results, runs), path(name, results)
    if curves.empty or (figure.exists() and digest(curves, paper) in figure.read_text(encoding="utf-8")):
        return []
    return [f"{figure}: draws other data than the files of record"]
