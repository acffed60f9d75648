"""What the gradient laboratory measured: the paper's Figure 1, its extension to every estimator, and a table.

All are functions of one csv file of record with a row per setting, target and seed (`argmax_vae.gradients`).
"""

from __future__ import annotations

import hashlib
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from argmax_vae.files import csv_text, write_text
from argmax_vae.markup import escape, markdown, one_line
from argmax_vae.report.drawing import curve_with_band, figure_settings, save
from argmax_vae.report.records import read, require
from argmax_vae.report.style import rank, style
from argmax_vae.statistics import mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


FIGURES = {
    "figure1": "Figure 1: bias and standard deviation of gradient estimates",
    "figure1_20x2": "Bias and standard deviation of gradient estimates in a product space, 20×2",
    "figure6_gradients": "Gradient estimates on the deep 20×3 model of Figure 6",
}
"""Configs of which `argmax-vae gradients` writes files of record, and their titles."""

KEY = ["estimator", "choices", "parameter", "value"]
NUMBERS = ["bias", "bias_noise", "standard_deviation", "squared_bias", "variance", "mean_squared_error", "cosine"]
COSTS = ["decoder_evaluations", "milliseconds"]
COLUMNS = [*KEY, "target", "seed", *NUMBERS, *COSTS, "repeats", "images", "reference", "device", "commit"]
PAPERS = ("direct", "gumbel_softmax")


def load(path: Path) -> pd.DataFrame:
    """The rows of a file of record. Raises UsageError when it is missing, no csv file, or lacks a column."""
    frame = read(path, "make it with: argmax-vae gradients")
    require(frame, COLUMNS, path.name)
    return frame.fillna({"choices": "", "parameter": ""})


def averaged(frame: pd.DataFrame, target: str) -> pd.DataFrame:
    """Means over seeds of a target's rows, one row per setting, estimators in their fixed order."""
    rows = frame[frame["target"] == target]
    means = rows.groupby(KEY, dropna=False, sort=False)[[*NUMBERS, *COSTS]].mean().reset_index()
    means["order"] = [rank(name)[0] for name in means["estimator"]]
    return means.sort_values(["order", "choices", "value"], kind="stable").drop(columns="order")


def best(frame: pd.DataFrame, target: str) -> pd.DataFrame:
    """Of each estimator and choices, the value of ε or τ with the least mean-squared error."""
    means = averaged(frame, target)
    rows = means.loc[means.groupby(["estimator", "choices"], sort=False)["mean_squared_error"].idxmin()]
    return rows.reset_index(drop=True)


def of_setting(frame: pd.DataFrame, target: str, row: pd.Series) -> pd.DataFrame:
    """The rows of all seeds for the setting of a row of `averaged`."""
    rows = frame[(frame["target"] == target) & (frame["estimator"] == row["estimator"])]
    rows = rows[rows["choices"] == row["choices"]]
    return rows[np.isclose(rows["value"], row["value"])] if row["parameter"] else rows


def in_words(choices: str) -> str:
    """Choices `key=value, …` as people say them: `straight_through=True` is "straight-through"."""
    words = []
    for choice in filter(None, choices.split(", ")):
        key, _, value = choice.partition("=")
        key = key.replace("_", "-")
        if value in ("True", "False"):
            words.append(key if value == "True" else f"not {key}")
        elif key in SELF_EVIDENT:
            words.append(value.replace("_", " "))
        else:
            words.append(f"{key} {value}")
    return ", ".join(words)


SELF_EVIDENT = ("direction", "parameterization", "baseline")
"""Choices whose value alone says what it is."""


def rounded(value: float, digits: int) -> str:
    """A number with so many significant digits, without an exponent from 0.0001 to a million."""
    return f"{float(f'{value:.{digits}g}'):g}"


def label(row: pd.Series) -> str:
    """A setting as people read it: the estimator, its choices that are no defaults, and its ε or τ."""
    at = f"{row['parameter']} = {row['value']:g}" if row["parameter"] else ""
    return ", ".join(filter(None, (style(row["estimator"]).label, in_words(row["choices"]), at)))


def cells(frame: pd.DataFrame, target: str) -> list[dict[str, str]]:
    """The table's rows as text: intervals are over seeds."""
    found = []
    for _, row in best(frame, target).iterrows():
        error = mean_interval(of_setting(frame, target, row)["mean_squared_error"])
        found.append(
            {
                "estimator": label(row),
                "squared bias": rounded(row["squared_bias"], 3),
                "variance": rounded(row["variance"], 3),
                "mean-squared error": rounded(error.mean, 3)
                + (f" ± {rounded(error.half_width, 1)}" if np.isfinite(error.half_width) else ""),
                "cosine": f"{row['cosine']:.3f}",
                "decoder evaluations": f"{row['decoder_evaluations']:g}",
            }
        )
        if np.isfinite(row["milliseconds"]):
            found[-1]["ms"] = f"{row['milliseconds']:.2f}"
    return [
        {name: text if name == "estimator" else text.replace("-", "−") for name, text in cell.items()} for cell in found
    ]


def caption(frame: pd.DataFrame) -> str:
    """One paragraph that says what the numbers are, how many estimates they rest on, and where they come from."""
    first = frame.iloc[0]
    seeds, repeats = frame["seed"].nunique(), int(first["repeats"])
    commits = ", ".join(sorted({str(commit)[:10] for commit in frame["commit"].dropna()})) or "none"
    enumerated = first["reference"] == "enumeration"
    kept = "" if enumerated else " and that of the exact gradient, which the mean-squared error keeps,"
    times = f"ms are medians of one estimate of all {seeds} models up to the logits. "
    if frame["milliseconds"].isna().all():
        times = ""
    return (
        "Each estimator at the ε or τ with the least mean-squared error of the grid. Squared bias, variance and "
        "mean-squared error are fractions of the squared norm of the exact gradient; a squared bias has the noise of "
        f"its finite mean{kept} taken off and may come out below zero; ± is the half width of the 95 % Student-t "
        f"interval over {seeds} trained models. {repeats} estimates per model, {int(first['images'])} validation "
        f"images, exact gradient by {first['reference']}. Decoder evaluations are the losses that an estimate asks "
        "for, per image; for n = 1 and in an enumeration the same codes serve all images, and a linear decoder needs "
        f"none for a candidate. {times}Origin: device {first['device']}; torch {first.get('torch', '')}; "
        f"commit {commits}."
    )


def render(name: str, frame: pd.DataFrame, format: str) -> str:
    """The table as `md` or `tex`, one part for the gradient of the logits, one for that of the encoder's weights."""
    title = FIGURES.get(name, "Gradient estimates")
    parts = {"of the logits": "logits", "of the encoder's weights": "encoder"}
    lines: list[str] = []
    if format == "md":
        lines += [f"# {title}", ""]
        for figure in figure_names(name, frame):
            lines += [f"![{title}]({figure})", ""]
    for heading, target in parts.items():
        rows = cells(frame, target)
        columns = list(rows[0])
        if format == "md":
            lines += [f"Gradient {heading}:", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
            lines += [f"| {' | '.join(map(markdown, row.values()))} |" for row in rows] + [""]
        else:
            lines += [f"% Gradient {heading}", rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}", r"\hline"]
            lines += [" & ".join(columns) + r" \\", r"\hline"]
            lines += [" & ".join(escape(cell) for cell in row.values()) + r" \\" for row in rows]
            lines += [r"\hline", r"\end{tabular}"]
    lines.append(markdown(caption(frame)) if format == "md" else f"% {one_line(caption(frame))}")
    if format == "md" and name in FIGURES:
        lines += ["", "```sh", f"argmax-vae gradients {name}", f"argmax-vae report {name}", "```"]
    return "\n".join(lines) + "\n"


def summary(frame: pd.DataFrame) -> str:
    """The table of the logits for a terminal."""
    return pd.DataFrame(cells(frame, "logits")).to_string(index=False)


def figure_names(name: str, frame: pd.DataFrame) -> list[str]:
    """The files that the figures are written to; the paper's own only where one of its estimators was measured."""
    has_papers = set(PAPERS) & set(frame["estimator"])
    return ([f"{name}.svg"] if has_papers else []) + [f"{name}_frontier.svg"]


def digest(frame: pd.DataFrame) -> str:
    """Fingerprint of the rows that the figures draw."""
    lines = frame[[*KEY, "target", "seed", *NUMBERS, *COSTS]].to_csv(index=False, header=False).splitlines()
    return f"sha256:{hashlib.sha256(chr(10).join(sorted(lines)).encode()).hexdigest()}"


def rendered(name: str, results: Path, format: str) -> str:
    """The table in one format; `csv` is the file of record itself. Raises UsageError."""
    frame = load(results / f"{name}.csv")
    return csv_text(frame) if format == "csv" else render(name, frame, format)


def write(name: str, results: Path) -> list[Path]:
    """Write the figures, `NAME.md` and `NAME.tex` beside `NAME.csv`; returns their paths. Raises UsageError."""
    from argmax_vae.report.frontier import draw_frontier

    frame = load(results / f"{name}.csv")
    texts = {results / f"{name}.{format}": render(name, frame, format) for format in ("md", "tex")}
    paths = [results / figure for figure in figure_names(name, frame)]
    for path in paths:
        draw = draw_frontier if path.stem.endswith("_frontier") else draw_figure1
        save(draw(frame), path, digest(frame))
    for path, text in texts.items():
        write_text(path, text)
    return [*paths, *texts]


def check(name: str, results: Path) -> list[str]:
    """How the files differ from what the csv of record gives now: one line each, empty if equal. Raises UsageError."""
    frame = load(results / f"{name}.csv")
    lines = []
    for format in ("md", "tex"):
        path = results / f"{name}.{format}"
        committed = path.read_text(encoding="utf-8").splitlines() if path.exists() else ["missing"]
        current = render(name, frame, format).splitlines()
        for number, (old, new) in enumerate(zip_longest(committed, current, fillvalue=""), start=1):
            if old != new:
                lines.append(f"{path}:{number}: committed {old!r}, computed {new!r}")
    for figure in figure_names(name, frame):
        path = results / figure
        if not path.exists() or digest(frame) not in path.read_text(encoding="utf-8"):
            lines.append(f"{path}: missing, or draws other data than {name}.csv")
    return lines


@figure_settings()
def draw_figure1(frame: pd.DataFrame) -> Figure:
    """The paper's Figure 1: bias (left) and standard deviation (right) of the logits' gradient over ε and τ."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 3.4), layout="constrained")
    panels = figure.subplots(1, 2)
    titles = {"bias": "bias: mean |mean estimate − exact|", "standard_deviation": "standard deviation"}
    rows = frame[(frame["target"] == "logits") & (frame["choices"] == "")]
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        for estimator in PAPERS:
            chosen = rows[rows["estimator"] == estimator]
            curve_with_band(axes, chosen.pivot(index="value", columns="seed", values=column), style(estimator))
        noise = rows[rows["estimator"] == PAPERS[0]].pivot(index="value", columns="seed", values="bias_noise")
        if column == "bias" and len(noise):
            axes.plot(noise.index, noise.mean(axis=1), color="0.6", linewidth=1, label="noise of direct's mean")
        finish(axes, "ε (direct), τ (Gumbel-Softmax)", "nats per logit", title)
    return figure


def finish(axes: Axes, x: str, y: str, title: str) -> None:
    """Logarithmic axes, labels, legend."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, loc="left")
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
