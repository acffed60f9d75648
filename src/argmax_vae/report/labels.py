"""Accuracy and bound of semi-supervised mixtures by number of labels, beside the published values (Figure 3).

Functions of ``results/runs.csv`` and ``results/paper/<name>.csv`` alone, as the other tables are.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from argmax_vae.errors import UsageError
from argmax_vae.files import csv_text, write_text
from argmax_vae.markup import escape, markdown, one_line
from argmax_vae.report import label_curves
from argmax_vae.report.changes import changed_lines
from argmax_vae.report.drawing import Dot, dots_with_intervals, figure_settings, key_of_dots, limits_of_dots, save
from argmax_vae.report.records import published_values, read, require
from argmax_vae.report.style import rank, style
from argmax_vae.report.tables import BEST, LEVEL, MARK
from argmax_vae.statistics import holm, mean_interval, paired_t_p_value, sign_flip_p_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FIGURES = {
    "figure3": "Figure 3: semi-supervised learning with mixed discrete and Gaussian latents, MNIST",
    "figure3_2019": "Semi-supervised learning, as in the 2019 version: 30 Gaussian latents",
}
FORMATS = ("md", "tex", "csv")
CELL = ["data", "labels", "protocol", "estimator"]
METRICS = {
    "accuracy_percent": "test_perturbed_accuracy",
    "argmax_accuracy_percent": "test_accuracy",
    "test_bound": "test_bound",
}
COMPARED = ("accuracy_percent", "test_bound")
"""The metrics by which rows are compared with the best one."""
COMPARABLE = ("data", "labels", "protocol", "epochs")
"""What rows have in common that are compared."""

ORIGIN = ["device", "torch", "commit"]
COLUMNS = [*CELL, "kl", "schedule", "table", "run", "training", "seed", "status", "epochs", "dirty"]
COLUMNS += [*METRICS.values(), *ORIGIN]
MISSING = "–"
RELEASED, CONSTANT = "sequential, as released", "sequential, ε and τ constant"
SEQUENTIAL = (
    "In sequential training validation images may have been among the labelled ones, and ε of direct is 0.05 while "
    "they are seen alone. "
)
WITHOUT_REPLACEMENT = "As released they are drawn without replacement, in 1,499 passes. "
HELD = (
    "Sequential training with ε and τ constant differs from the paper's code in that, in the slope 0.01 of LeakyReLU, "
    "in one Gaussian noise for all components, in drawing labelled images with replacement, and in the Gaussian KL of "
    "Gumbel-Softmax, Σ y_j KL_j. "
)
VISITS: dict[str, tuple[int, int]] = {"sequential": (1500, 100), "sequential_joint": (250, 50)}
"""Visits and labelled batch of the first phase, of rows that do not say how many epochs it had, of 500 steps each."""
STATED: dict[str, dict[tuple[str, str], int | str]] = {
    "figure3": {("data", "name"): "mnist", ("model", "gaussian"): 20, ("supervision", "select"): "accuracy"},
    "figure3_2019": {("model", "gaussian"): 30, ("supervision", "select"): "accuracy"},
}
"""What titles and captions say of all runs of a figure, by section and key of the configuration."""
SEARCHED, SEARCHED_ON = "figure3", "MNIST with 20 Gaussian latents"
CHOSEN = (
    "the best are τ = 0.3 with weight 1 for Gumbel-Softmax and ε = 0.1 with weight 3 for direct, inside their grids"
)
"""What the search before Figure 3 found, which rows of runs.csv have to bear out."""


def load(name: str, results: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The runs of a figure, and its published values.

    Raises:
        UsageError: a file or column is missing, or no run belongs to the figure.
    """
    advice = f"make it with: argmax-vae reproduce {name}"
    runs = read(results / "runs.csv", advice)
    require(runs, COLUMNS, "runs.csv")
    rows = named_by_training(runs[runs["table"] == name], runs)
    if rows.empty:
        raise UsageError(f"runs.csv: no row of table={name}; {advice}")
    given = results / "paper" / f"{name}.csv"
    paper = read(given if given.exists() else published_values() / f"{name}.csv", "restore it from the repository")
    require(paper, ["data", "labels", "estimator", "metric", "value"], f"paper/{name}.csv")
    return rows, paper


def named_by_training(rows: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Rows of runs or curves, as released only where ε or τ has the schedule of the paper's code, and no constant."""
    constant = runs["schedule"].astype(str).str.fullmatch(r"[ετ] = [0-9.]+")
    held = rows["run"].isin(set(runs.loc[constant, "run"])) & (rows["protocol"] == RELEASED)
    return rows.assign(protocol=rows["protocol"].mask(held, CONSTANT))


def labelled_epochs(cell: pd.DataFrame) -> int:
    """Epochs in which the labelled images were seen alone: as recorded, else by VISITS."""
    if "labelled_epochs" in cell and cell["labelled_epochs"].notna().any():
        return int(cell["labelled_epochs"].max())
    visits, batch = VISITS.get(str(cell["training"].iloc[0]), (0, 1))
    labels = int(cell["labels"].iloc[0])
    return math.ceil(visits * labels / min(batch, labels) / 500)


def build(name: str, runs: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """One row per data set, number of labels, protocol and estimator.

    For each of METRICS (accuracies in percent, bounds in nats): the mean over the seeds that are done, ``_half_width``
    of its 95 % interval, and as ``_paper`` the published value, which the accuracy of the arg max has none of. For each
    of COMPARED, but for the best row of the same training with as many labels and epochs: ``_behind``, how much worse
    than the best it is on paired seeds, with ``_behind_half_width``, ``_behind_p`` of the paired t test after Holm's
    correction for all comparisons of the table, and ``_behind_p_sign_flip`` without correction. Then seeds, epochs,
    those of them that see unlabelled images, and origin.

    Raises:
        UsageError: a cell repeats a seed or mixes numbers of epochs, or a run has no place in the table.
    """
    for column in ("data", "labels", "estimator", "seed"):
        if runs[column].isna().any():
            raise UsageError(f"runs.csv: a row of table={name} lacks {column}; fill it in, or remove the row")
    published = {
        (row["data"], row["labels"], row["estimator"], row["metric"]): row["value"] for _, row in paper.iterrows()
    }
    rows: list[dict[str, Any]] = []
    values: list[dict[str, pd.Series]] = []
    for key, cell in runs.fillna({"protocol": ""}).groupby(CELL):
        done = cell[cell["status"] == "done"]
        finite = np.isfinite(done[list(METRICS.values())].to_numpy(dtype=float)).all()
        if cell["seed"].duplicated().any() or done["epochs"].nunique() > 1 or not finite:
            raise UsageError(
                f"runs.csv: table={name}: {', '.join(map(str, key))}: a seed twice, several epochs, or no finite value"
            )
        row: dict[str, Any] = dict(zip(CELL, key, strict=True)) | {
            column: ", ".join(sorted(set(cell[column].dropna()))) for column in ("kl", "schedule")
        }
        values.append({})
        for metric, column in METRICS.items():
            numbers = done.set_index("seed")[column].astype(float) * (100 if "percent" in metric else 1)
            values[-1][metric] = numbers
            if len(numbers):
                interval = mean_interval(numbers)
                row |= {metric: interval.mean, f"{metric}_half_width": interval.half_width}
            row[f"{metric}_paper"] = published.get((row["data"], row["labels"], row["estimator"], metric), math.nan)
        row |= {"seeds": len(done), "diverged": int((cell["status"] == "diverged").sum())}
        row["epochs"] = done["epochs"].mean()
        row["unlabelled_epochs"] = row["epochs"] - labelled_epochs(cell)
        row |= {column: ", ".join(distinct(cell[column])) for column in ORIGIN}
        rows.append(row)
    compare(rows, values)
    frame = pd.DataFrame(rows)
    order = sorted(
        frame.index, key=lambda i: (rows[i]["data"], rows[i]["labels"], rows[i]["protocol"], rank(rows[i]["estimator"]))
    )
    return frame.loc[order].reset_index(drop=True)


def distinct(values: pd.Series) -> list[str]:
    """What is named in any of these texts, of which each may name several, and each name at most forty characters."""
    return sorted({name[:40] for text in values.dropna().astype(str) for name in text.split(", ")})


def compare(rows: list[dict[str, Any]], values: list[dict[str, pd.Series]]) -> None:
    """Tell each row how much worse than the best it is, on paired seeds, among those of COMPARABLE to it.

    All comparisons together, by each of COMPARED, are the family that the p-values are corrected for.
    """
    groups: dict[tuple, list[int]] = {}
    for index, row in enumerate(rows):
        if row["seeds"]:
            groups.setdefault(tuple(row[column] for column in COMPARABLE), []).append(index)
    differences: dict[tuple[str, int], pd.Series] = {}
    for metric in COMPARED:
        sign = -1 if "percent" in metric else 1
        for members in groups.values():
            best = min(members, key=lambda index: sign * values[index][metric].mean())
            for index in members:
                difference = (sign * (values[index][metric] - values[best][metric])).dropna()
                if index != best and len(difference):
                    differences[metric, index] = difference
    corrected = holm([paired_t_p_value(difference) for difference in differences.values()])
    for ((metric, index), difference), p_value in zip(differences.items(), corrected, strict=True):
        interval = mean_interval(difference)
        rows[index] |= {f"{metric}_behind": interval.mean, f"{metric}_behind_half_width": interval.half_width}
        rows[index] |= {f"{metric}_behind_p": p_value, f"{metric}_behind_p_sign_flip": sign_flip_p_value(difference)}


def cells(frame: pd.DataFrame) -> list[dict[str, str]]:
    """The rows as people read them."""

    def show(row: dict, name: str, signed: bool = False) -> str:
        value, width = row.get(name, math.nan), row.get(f"{name}_half_width", math.nan)
        text = MISSING if pd.isna(value) else format(value, "+z.2f" if signed else ".2f").replace("-", "−")
        mark = MARK if row.get(f"{name}_p", math.nan) < LEVEL else ""
        return text if pd.isna(width) else f"{text} ± {width:.2f}{mark}"

    def behind(row: dict, name: str) -> str:
        text = show(row, name, True)
        group = frame[(frame[list(COMPARABLE)] == [row[column] for column in COMPARABLE]).all(axis=1)]
        compared = row["seeds"] and name in group and group[name].notna().any()
        return BEST if text == MISSING and compared else text

    found = []
    for row in frame.to_dict("records"):
        found.append(
            {
                "data": str(row["data"]),
                "labels": f"{row['labels']:g}",
                "training": row["protocol"] or MISSING,
                "estimator": style(str(row["estimator"])).label,
                "KL trained": "no" if row["kl"] == "none" else str(row["kl"]),
                "schedule": str(row["schedule"]),
                "accuracy, perturbed (%)": show(row, "accuracy_percent"),
                "paper (%)": show(row, "accuracy_percent_paper"),
                "behind the best (%)": behind(row, "accuracy_percent_behind"),
                "accuracy, arg max (%)": show(row, "argmax_accuracy_percent"),
                "test bound (nats)": show(row, "test_bound"),
                "paper (nats)": show(row, "test_bound_paper"),
                "behind the best (nats)": behind(row, "test_bound_behind"),
                "seeds": str(row["seeds"]),
                "diverged": str(row["diverged"]),
                "epochs": f"{row['epochs']:g}",
                "unlabelled epochs": f"{row['unlabelled_epochs']:g}",
            }
        )
    return found


def caption(name: str, frame: pd.DataFrame) -> str:
    """One paragraph that says what the numbers are, how choices were made, and where the runs come from."""
    searched = "" if name == SEARCHED else f" on {SEARCHED_ON}"
    compared = frame[frame.columns.intersection([f"{metric}_behind_p" for metric in COMPARED])].notna().to_numpy().sum()
    origin = "; ".join(f"{column} {', '.join(distinct(frame[column]))}" for column in ORIGIN)
    trainings = set(frame["protocol"])
    sequential = bool(trainings & {RELEASED, CONSTANT})
    other = "Other than in sequential training, " if sequential else ""
    passes, held = WITHOUT_REPLACEMENT * (RELEASED in trainings), HELD * (CONSTANT in trainings)
    released = SEQUENTIAL * sequential + held
    return (
        "Test accuracy of one Gumbel-perturbed arg max (as published) and of the arg max of the logits, and test bound "
        "(negative ELBO, lower is better), of the networks with the best validation accuracy of the arg max. ± is the "
        "half width of the 95 % Student-t interval over seeds, each with its own draw of labelled images; behind the "
        "best: mean difference on paired seeds to the best row of the same training with as many labels and epochs "
        f"({BEST}: that row; {MISSING}: no other), "
        f"{MARK} where its paired t test has p < {LEVEL:g} after Holm's correction for all comparisons of the table, "
        f"{compared} in number (which does not count that the best was chosen by the same numbers). "
        f"{other}ε, τ and the weight of the labels were chosen in joint training{searched} by validation "
        "accuracy with 100 labels, each from sixteen pairs by 10 epochs of one other seed (rows figure3_search of "
        f"runs.csv); {CHOSEN}. Labelled images are drawn with replacement. {passes}Epochs, "
        "by trainer.epochs=N behind the command where they are not the configuration's, include those in which they "
        "are seen alone, from which no networks are kept; unlabelled epochs, of which the paper has 400, are the rest. "
        f"{released}{MISSING}: not published. Origin: {origin}."
    )


def render(name: str, frame: pd.DataFrame, format: str) -> str:
    """The table as `md`, `tex` or `csv` (all columns of `build`). Raises UsageError for another format."""
    if format not in FORMATS:
        raise UsageError(f"format={format}: unknown; allowed: {', '.join(FORMATS)}")
    if format == "csv":
        return csv_text(frame)
    rows = cells(frame)
    table = [list(rows[0]), *(list(row.values()) for row in rows)]
    if format == "tex":
        lines = [" & ".join(map(escape, row)) + r" \\" for row in table]
        lines = [
            rf"% {FIGURES[name]}",
            rf"\begin{{tabular}}{{lllr{'r' * (len(table[0]) - 4)}}}",
            *lines,
            r"\end{tabular}",
        ]
        return "\n".join([*lines, f"% {one_line(caption(name, frame))}"]) + "\n"
    followed = (frame["labels"] == label_curves.LABELS.get(name)).any()
    lines = ["| " + " | ".join(map(markdown, row)) + " |" for row in table]
    lines.insert(1, "|" + "---|" * len(table[0]))
    lines = [
        f"# {FIGURES[name]}",
        "",
        f"![{FIGURES[name]}]({name}.svg)",
        "",
        *([f"![{label_curves.TITLE}]({name}_curves.svg)", ""] if followed else []),
        *lines,
        "",
        markdown(caption(name, frame)),
        "",
    ]
    lines += ["```sh", f"argmax-vae reproduce {name}", f"argmax-vae report {name}", "```"]
    return "\n".join(lines) + "\n"


def what_is_shown(row: dict[Any, Any]) -> str:
    """A row's estimator, protocol and epochs."""
    budget = f"{row['epochs']:g} epochs" if row["seeds"] else "no seed finished"
    return ", ".join(filter(None, (style(row["estimator"]).label, row["protocol"], budget)))


@figure_settings()
def draw(name: str, frame: pd.DataFrame) -> Figure:
    """Accuracies (left) and bounds (right), one panel for each data set and number of labels, published values open."""
    from matplotlib.figure import Figure

    groups = list(frame.groupby(["data", "labels"], sort=True))
    height = 1.3 + sum(0.5 + 0.24 * len(rows) for _, rows in groups)
    figure = Figure(figsize=(9.6, max(3.0, height)), layout="constrained")
    panels = figure.subplots(
        len(groups), 2, squeeze=False, height_ratios=[len(rows) + 0.8 for _, rows in groups], sharex="col"
    )
    for (left, right), ((data, labels), rows) in zip(panels, groups, strict=True):
        for axes, metric in ((left, "accuracy_percent"), (right, "test_bound")):
            dots = [
                Dot(
                    what_is_shown(row),
                    row.get(metric, math.nan),
                    row.get(f"{metric}_half_width", math.nan),
                    row[f"{metric}_paper"],
                    style(row["estimator"]),
                )
                for row in rows.to_dict("records")
            ]
            dots_with_intervals(axes, dots, limits_of_dots(frame[metric], frame[f"{metric}_paper"]))
        right.set_yticklabels([])
        left.set_title(f"{data}, {labels:g} labels", loc="left")
    panels[-1][0].set_xlabel("test accuracy of a perturbed arg max (%)")
    panels[-1][1].set_xlabel("test bound (nats)")
    key_of_dots(figure)
    return figure


def digest(frame: pd.DataFrame) -> str:
    """Fingerprint of what the figure draws."""
    return f"sha256:{hashlib.sha256(render_numbers(frame).encode()).hexdigest()}"


def render_numbers(frame: pd.DataFrame) -> str:
    """The table as csv with six digits and without its origin, which the figure does not show."""
    return frame.drop(columns=ORIGIN).to_csv(index=False, float_format="%.6g", lineterminator="\n")


def rendered(name: str, results: Path, format: str) -> str:
    """The table as text, from the files of record. Raises UsageError as `load` and `build` do."""
    return render(name, build(name, *load(name, results)), format)


def write(name: str, results: Path) -> list[Path]:
    """Regenerate the figure and the table in `results`, atomically. Raises UsageError as `load` and `build` do."""
    runs, paper = load(name, results)
    frame = build(name, runs, paper)
    texts = {results / f"{name}.{format}": render(name, frame, format) for format in FORMATS}
    figure = results / f"{name}.svg"
    save(draw(name, frame), figure, digest(frame))
    curves = label_curves.write(name, results, runs, paper)
    for path, text in texts.items():
        write_text(path, text)
    return [figure, *curves, *texts]


def check(name: str, results: Path) -> list[str]:
    """How the committed files differ from what the files of record give now: one line each, empty if equal.

    Numbers of the csv may differ by 1e-9 of their size. Raises UsageError as `load` and `build` do.
    """
    runs, paper = load(name, results)
    frame = build(name, runs, paper)
    lines = [
        line for format in FORMATS for line in changed_lines(results / f"{name}.{format}", render(name, frame, format))
    ]
    figure = results / f"{name}.svg"
    if not figure.exists() or digest(frame) not in figure.read_text(encoding="utf-8"):
        lines.append(f"{figure}: draws other data than the files of record")
    return lines + label_curves.check(name, results, runs, paper)
