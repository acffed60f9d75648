"""Tables of test bounds over seeds beside the published values: built, rendered, written and checked.

Every table is a function of ``results/runs.csv`` and ``results/paper/<table>.csv`` alone. Bounds are negative
ELBOs in nats per image: lower is better.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from argmax_vae.errors import UsageError
from argmax_vae.files import csv_text, write_text
from argmax_vae.markup import escape, markdown
from argmax_vae.report.budgets import at_equal_evaluations
from argmax_vae.report.changes import changed_lines
from argmax_vae.report.records import TABLES, Table, definition, read_inputs, require
from argmax_vae.report.style import rank, style
from argmax_vae.statistics import holm, mean_interval, paired_t_p_value, sign_flip_p_value

__all__ = ["BEST", "FORMATS", "MISSING", "TABLES", "build", "caption", "cells", "check", "render", "rendered", "write"]

FORMATS = ("md", "tex", "csv")
MISSING, BEST = "–", "best"
LEVEL, MARK = 0.05, "†"
"""Below which corrected p-value a difference is marked, and how."""

PUBLISHED_DATA = "mnist"
"""The data set that published bounds are of whose file does not say."""
_KEY = ["n", "k", "estimator"]
_CELL = [*_KEY, "protocol"]
_NUMBERS = ["n", "k", "seed", "epochs", "samples"]
_ORIGIN = ["data", "binarization", "model", "device", "version", "torch", "commit"]
_TEXT = ["table", "protocol", "estimator", "kl", "schedule", "status", "dirty", "config_hash", *_ORIGIN]
_LATER = ("train_bound",)
"""Columns that runs of earlier versions do not have: unknown for a row where a seed's is."""

_STATUS = ("done", "diverged", "failed")
_COUNTS = ("seeds", *_STATUS[1:])
_BUDGET = (
    *("decoder_evaluations", "budget", "budget_epochs", "budget_bound", "budget_half_width"),
    *("budget_behind", "budget_behind_half_width", "budget_behind_p", "budget_behind_p_sign_flip", "budget_best"),
)
_HEADINGS = {
    "test_bound": "test bound (nats)",
    "train_bound": "train bound (nats)",
    "validation_bound": "validation bound (nats)",
    "test_kl": "KL (nats)",
    "test_codes_in_use": "codes in use",
    "learning_rate": "learning rate",
    "seconds": "seconds",
}
_FORMS = {"learning_rate": "g", "seconds": ".0f"}


def _select(table: Table, runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of one table, checked: text without NaN, numbers as floats, commits short."""
    numbers = [*_NUMBERS, table.metric, *table.means, *(["decoder_evaluations"] if table.equal_evaluations else [])]
    require(runs, ["table"], "runs.csv")
    rows = runs[runs["table"] == table.name].copy()
    if rows.empty and table.own:
        raise UsageError(f"table={table.name}: unknown; allowed: {', '.join(TABLES)}, or one that runs.csv has rows of")
    if rows.empty:
        found = ", ".join(sorted(runs["table"].dropna().unique())) or "none"
        raise UsageError(f"runs.csv: no row of table={table.name} (found: {found}); run: {table.commands[0]}")
    rows = rows.reindex(columns=[*rows, *(column for column in _LATER if column not in rows)])
    require(rows, [*_TEXT, *numbers], "runs.csv")
    for column in _TEXT:
        rows[column] = ["" if pd.isna(value) else str(value) for value in rows[column]]
    if unknown := sorted(set(rows["status"]) - set(_STATUS)):
        raise UsageError(f"runs.csv: status={unknown[0]}: unknown; allowed: {', '.join(_STATUS)}")
    for column in numbers:
        try:
            rows[column] = pd.to_numeric(rows[column]).astype(float)
        except (TypeError, ValueError) as error:
            raise UsageError(f"runs.csv: column {column} of table={table.name}: {error}") from None
    if rows[["n", "k", "seed"]].isna().to_numpy().any():
        raise UsageError(f"runs.csv: a row of table={table.name} lacks n, k or seed")
    changed = np.where(rows["dirty"].str.lower().isin(["true", "1"]), " with uncommitted changes", "")
    rows["commit"] = rows["commit"].str.replace(r"(\w{10})\w+", r"\1", regex=True) + changed
    return rows.sort_values([*_CELL, "seed"])


def _fault(table: Table, cell: pd.DataFrame) -> str:
    """Why the rows of a cell cannot be averaged, or nothing if they can."""
    done = cell[cell["status"] == "done"]
    faults = []
    for column in ("config_hash", "kl", "schedule", "epochs", "samples"):
        values = (done if column in _NUMBERS else cell)[column].drop_duplicates()
        if len(values) > 1:
            faults.append(f"several {column} ({' and '.join(str(value).removesuffix('.0') for value in values)})")
    if not cell["seed"].is_unique:
        faults.append(f"seed {cell['seed'][cell['seed'].duplicated()].iloc[0]:g} more than once")
    if not np.isfinite(done[table.metric]).all():
        faults.append(f"a done seed without a finite {table.metric}")
    n, k, estimator, protocol = cell[_CELL].iloc[0]
    return f"{n:g}×{k:g} {estimator} {protocol}".rstrip() + f": {', '.join(faults)}" if faults else ""


def _row(table: Table, cell: pd.DataFrame) -> dict[str, object]:
    """One row of the table from the runs of one cell."""
    done = cell[cell["status"] == "done"]
    row: dict[str, object] = dict(cell[[*_CELL, "kl", "schedule"]].iloc[0])
    if len(done):
        mean, _, _, half_width, _ = mean_interval(done[table.metric])
        row |= {table.metric: mean, "half_width": half_width}
    row |= {"seeds": len(done)} | {status: (cell["status"] == status).sum() for status in _STATUS[1:]}
    for column in ("epochs", *table.means, "samples"):
        row[column] = done[column].mean(skipna=column not in _LATER)
    return row | {column: ", ".join(sorted(set(cell[column]) - {""})) for column in _ORIGIN}


def _pairs(rows: list[dict[str, Any]], values: list[pd.Series], budget: str) -> list[tuple[int, int]]:
    """Comparisons of one kind: a row, and the best one of its size, protocol and budget if they share seeds."""
    groups: dict[tuple, list[int]] = {}
    for index, row in enumerate(rows):
        if len(values[index]):
            groups.setdefault((row["n"], row["k"], row["protocol"], row[budget]), []).append(index)
    best = [(members, min(members, key=lambda index: values[index].mean())) for members in groups.values()]
    return [
        (index, first)
        for members, first in best
        for index in members
        if index != first and len(values[index].index.intersection(values[first].index))
    ]


def _compare(rows: list[dict[str, Any]], kinds: dict[str, tuple[str, list[pd.Series]]]) -> None:
    """Tell each row how far it is behind the best of its size, protocol and budget, on paired seeds.

    ``kinds`` maps the prefix of the columns to be added to the column that rows must agree in to be compared, and the
    rows' numbers by seed. All comparisons together, of every kind, are the family that the p-values are corrected for.
    """
    pairs = [(kind, *pair) for kind, (budget, values) in kinds.items() for pair in _pairs(rows, values, budget)]
    differences = [(kinds[kind][1][index] - kinds[kind][1][first]).dropna() for kind, index, first in pairs]
    corrected = holm([paired_t_p_value(difference) for difference in differences])
    all_behind: dict[tuple[str, int], bool] = {}
    for (kind, index, first), difference, p_value in zip(pairs, differences, corrected, strict=True):
        interval = mean_interval(difference)
        rows[index] |= {f"{kind}behind": interval.mean, f"{kind}behind_half_width": interval.half_width}
        rows[index] |= {f"{kind}behind_p": p_value, f"{kind}behind_p_sign_flip": sign_flip_p_value(difference)}
        all_behind[kind, first] = all_behind.get((kind, first), True) and p_value < LEVEL
    for (kind, first), is_best in all_behind.items():
        rows[first][f"{kind}best"] = is_best


def _published(table: Table, paper: pd.DataFrame) -> list[tuple[dict[Hashable, Any], dict[Hashable, Any]]]:
    """What tells the rows that a published value belongs to, and its data set, metric and value."""
    values = paper[paper["metric"].isin(table.compared)]
    places = [*_KEY, *(["protocol"] if "protocol" in values else [])]
    values = values.sort_values("metric", key=lambda metrics: metrics.map(table.compared.index), kind="stable")
    rows = values.dropna(subset=places).to_dict("records")
    return [({key: row[key] for key in places}, {"data": PUBLISHED_DATA, **row}) for row in rows]


def build(name: str, runs: pd.DataFrame, paper: pd.DataFrame, curves: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row per (n, k, protocol, estimator), in the paper's order of sizes.

    Columns: ``n, k, protocol, estimator, kl, schedule``; the mean ``test_bound`` of the seeds that are done and the
    ``half_width`` of its 95 % interval (nats); the numbers of ``seeds`` done, ``diverged`` and ``failed``; on the
    same data the published value ``paper``, the column that it is ``compared`` with where a table has several, and
    ``difference`` = ours - paper (nats); how far the row is
    ``behind`` the best of its size, protocol and number of epochs on paired seeds, with its ``behind_half_width``
    (nats), ``behind_p`` of the paired t test after Holm's correction for all comparisons of the table, and
    ``behind_p_sign_flip`` without correction, and whether it is itself the ``best`` and every such p-value is below
    LEVEL; ``epochs``; the mean ``test_kl`` (nats) and ``test_codes_in_use`` (values per latent); and where the row
    comes from: ``samples`` (hard samples per image, 0 for the exact expectation), ``data``, ``binarization``,
    ``model``, ``device``, ``version``, ``torch``, ``commit``. What is unknown is NaN or empty. A published cell
    without any run is a row of zero seeds. A table that also compares at equal decoder evaluations has the columns
    of :func:`argmax_vae.report.budgets.at_equal_evaluations` and of that comparison, with the prefix ``budget_``.

    Args:
        name: key of :data:`TABLES`, or a user's own table.
        runs: a row per cell and seed, as in ``results/runs.csv``; other tables' rows and columns are ignored.
        paper: published values with the columns ``n, k, estimator, metric, value``; with a column ``protocol`` they
            are of rows with that one, and those without one are left out; with ``data`` of that data set.
        curves: a row per evaluation and seed, which a table at equal decoder evaluations needs.

    Raises:
        UsageError: an unknown table, a missing column, no runs, or cells that mix configs, numbers of epochs
            or of samples, repeat a seed or lack a value; all of them are named.
    """
    table = definition(name)
    require(paper, ["n", "k", "estimator", "metric", "value"], table.paper)
    cells = [cell for _, cell in _select(table, runs).groupby(_CELL)]
    if faults := [fault for cell in cells if (fault := _fault(table, cell))]:
        raise UsageError(f"runs.csv: table={name}: cells that cannot be averaged: {'; '.join(faults)}")
    published = _published(table, paper)
    rows: list[dict[Any, Any]] = [_row(table, cell) for cell in cells]
    done = [cell[cell["status"] == "done"].set_index("seed") for cell in cells]
    kinds = {"": ("epochs", [cell[table.metric] for cell in done])}
    if table.equal_evaluations:
        assert curves is not None
        within_budget = at_equal_evaluations(name, done, curves)
        rows = [row | columns for row, (_, columns) in zip(rows, within_budget, strict=True)]
        kinds["budget_"] = ("budget", [values for values, _ in within_budget])
    _compare(rows, kinds)
    empty: dict[Hashable, Any] = dict.fromkeys(("protocol", "kl", "schedule", *_ORIGIN), "") | dict.fromkeys(_COUNTS, 0)
    for place, _ in published:
        if not any(place.items() <= row.items() for row in rows):
            rows.append(empty | place)
    for row in rows:
        fits = (value for place, value in published if place.items() <= row.items())
        known = next((value for value in fits if row["data"] in ("", value["data"])), {})
        row["paper"], row["compared"] = known.get("value", math.nan), known.get("metric", "")
        row["difference"] = row.get(known.get("metric"), math.nan) - row["paper"]

    def order(row: Any) -> tuple:
        size = (int(row["n"]), int(row["k"]))
        position = table.sizes.index(size) if size in table.sizes else len(table.sizes)
        missing = not any(row[count] for count in _COUNTS)
        return position, size, missing and not row["protocol"], row["protocol"], missing, rank(row["estimator"])

    columns = ["n", "k", "protocol", "estimator", "kl", "schedule", table.metric, "half_width", *_COUNTS]
    columns += [
        "paper",
        *(["compared"] if len(table.compared) > 1 else []),
        "difference",
        "behind",
        "behind_half_width",
        "behind_p",
        "behind_p_sign_flip",
        "best",
        "epochs",
        *table.means,
        "samples",
        *(_BUDGET if table.equal_evaluations else ()),
        *_ORIGIN,
    ]
    frame = pd.DataFrame(sorted(rows, key=order)).reindex(columns=columns)
    for column in frame.columns.intersection(["best", "budget_best"]):
        frame[column] = frame[column].eq(True)
    whole = ["n", "k", *_COUNTS, "epochs", "samples"]
    return frame.astype(dict.fromkeys(whole, "Int64"))


def cells(table: Table, frame: pd.DataFrame) -> list[dict[str, str]]:
    """The rows as people read them: heading → text, numbers rounded to 2 decimals."""

    def show(value: Any, form: str = ".2f") -> str:
        return MISSING if pd.isna(value) or value == "" else format(value, form).replace("-", "−")

    def bound(row: dict[Hashable, Any], column: str, prefix: str = "") -> str:
        width = row[f"{prefix}half_width"]
        text = show(row[column]) + ("" if pd.isna(width) else f" ± {width:.2f}")
        return f"**{text}**" if row[f"{prefix}best"] else text

    def behind(row: dict[Hashable, Any], prefix: str = "") -> dict[str, str]:
        group = ["n", "k", "protocol", "budget" if prefix else "epochs"]
        others = frame[frame[f"{prefix}behind"].notna()]
        if others.empty:
            return {}
        width = row[f"{prefix}behind_half_width"]
        text = show(row[f"{prefix}behind"], "+z.2f") + ("" if pd.isna(width) else f" ± {width:.2f}")
        text += MARK if row[f"{prefix}behind_p"] < LEVEL else ""
        if text == MISSING and row["seeds"] and (others[group] == [row[column] for column in group]).all(axis=1).any():
            text = BEST
        return {f"{prefix.rstrip('_')} behind the best".strip(): text}

    def published(row: dict[Hashable, Any]) -> dict[str, str]:
        what = f" ({row['compared'].removesuffix('_bound')})" if row.get("compared") else ""
        both = {"paper": show(row["paper"]) + what, "difference": show(row["difference"], "+z.2f")}
        return both if table.published else {}

    def within_budget(row: dict[Hashable, Any]) -> dict[str, str]:
        if not table.equal_evaluations:
            return {}
        return {
            "decoder evaluations": show(row["decoder_evaluations"], "g"),
            "budget epochs": show(row["budget_epochs"], "g"),
            "budget test bound (nats)": bound(row, "budget_bound", "budget_"),
            **behind(row, "budget_"),
        }

    return [
        {
            "n×k": f"{row['n']}×{row['k']}",
            "protocol": row["protocol"] or MISSING,
            "estimator": style(row["estimator"]).label,
            "KL trained": {"": MISSING, "none": "no"}.get(row["kl"], row["kl"]),
            "schedule": row["schedule"] or MISSING,
            _HEADINGS[table.metric]: bound(row, table.metric),
            **published(row),
            **behind(row),
            **{status: str(row[status]) for status in _COUNTS},
            "epochs": show(row["epochs"], "d"),
            **{_HEADINGS[column]: show(row[column], _FORMS.get(column, ".2f")) for column in table.means},
            **within_budget(row),
        }
        for row in frame.to_dict("records")
    ]


def caption(name: str, table: pd.DataFrame) -> str:
    """One paragraph that says what the numbers are: intervals, samples, epochs, seeds, devices, commits."""

    def several(values: Iterable[object]) -> str:
        parts = (part for value in values for part in str(value).split(", "))
        return ", ".join(dict.fromkeys(filter(None, parts))) or MISSING

    run = table[table["seeds"] > 0]
    compared = table[table.columns.intersection(["behind_p", "budget_behind_p"])].notna().to_numpy().sum()
    sizes = run["n"].astype(str) + "×" + run["k"].astype(str)
    samples = [
        f"{f'{count} hard samples per image' if count else 'exact expectation'} ({several(group)})"
        for count, group in sizes.groupby(run["samples"].where(run["n"] > 1, 0), sort=False)
    ]
    comparison = (
        "behind the best: mean difference on paired seeds to the best row of the same size, protocol and number of "
        f"epochs, with the interval of that difference; {MARK} where its paired t test has p < {LEVEL:g} after Holm's "
        f"correction for all comparisons of the table, {compared} in number (which does not count that the "
        "best was chosen by the same numbers), bold where that is so for all others; "
        f"{BEST}: that row; {MISSING} there: no other row to compare with; "
        if table["behind"].notna().any()
        else ""
    )
    origin = [f"{column} {several(run[column])}" for column in _ORIGIN]
    return (
        f"{definition(name).caption} ± is the half width of the 95 % Student-t interval of the mean over "
        f"seeds; {comparison}diverged and failed seeds are counted, not averaged; KL and codes in use are means "
        f"over the test images and seeds. {MISSING}: not published, or not run. Evaluated with {'; '.join(samples)}; "
        f"{several(sorted(run['epochs'].dropna()))} epochs; {several(sorted(run['seeds']))} seeds per cell; "
        "numbers of epochs other than the configuration's by trainer.epochs=N behind the command. "
        f"Origin: {'; '.join(origin)}."
    )


def render(name: str, table: pd.DataFrame, format: str) -> str:
    """A built table as text.

    ``md`` has a caption and the commands that regenerate it; ``tex`` is a ``table*`` with a booktabs tabular;
    both round to 2 decimals. ``csv`` has the columns of :func:`build` in full precision.

    Raises:
        UsageError: an unknown format or table.
    """
    if format not in FORMATS:
        raise UsageError(f"format={format}: unknown; allowed: {', '.join(FORMATS)}")
    about = definition(name)
    if format == "csv":
        return csv_text(table)
    body = cells(about, table)
    rows = [list(body[0]), *(list(row.values()) for row in body)]
    if format == "md":
        lines = ["| " + " | ".join(map(markdown, row)) + " |" for row in rows]
        lines.insert(1, "|" + "---|" * len(rows[0]))
        lines = [f"# {about.title}", "", f"![{about.title}]({name}.svg)", "", *lines]
        lines += ["", markdown(caption(name, table)), "", "```sh", *about.commands, "```"]
    else:
        lines = [" & ".join(map(_tex, row)) + r" \\" for row in rows]
        lines = [r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
        lines = [rf"\begin{{tabular}}{{{'l' * 5}{'r' * (len(rows[0]) - 5)}}}", *lines, r"\end{tabular}"]
        lines = [
            r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{escape(f'{about.title}. {caption(name, table)}')}}}",
            *lines,
        ]
        lines = [
            f"% needs \\usepackage{{booktabs}}; made by: {'; '.join(about.commands)}",
            r"\begin{table*}",
            *lines,
        ]
        lines += [r"\end{table*}"]
    return "\n".join(lines) + "\n"


def _tex(cell: str) -> str:
    """A cell as LaTeX, bold where Markdown has it bold."""
    return rf"\textbf{{{escape(cell.strip('*'))}}}" if cell.startswith("**") else escape(cell)


def rendered(name: str, results: Path, format: str) -> str:
    """The table as text, from the files of record; raises :class:`UsageError` as :func:`write` does."""
    frames = read_inputs(name, results)
    return render(name, build(name, **frames), format)


def write(name: str, results: Path) -> list[Path]:
    """Regenerate ``<name>.svg``, ``.md``, ``.tex`` and ``.csv`` in ``results`` and return their paths.

    Each file is replaced atomically, and none before all of them could be computed.

    Raises:
        UsageError: an unknown table, a missing file or column, or cells that :func:`build` refuses.
    """
    from argmax_vae.report import figures

    frames = read_inputs(name, results)
    table = build(name, **frames)
    texts = {results / f"{name}.{format}": render(name, table, format) for format in FORMATS}
    drawn = {results / f"{name}.svg": figures.FIGURES.get(name, partial(figures.own, name))}
    drawn |= {results / f"{other}.svg": draw for other, (draw, _) in figures.BESIDE.get(name, {}).items()}
    for path, draw in drawn.items():
        draw(**frames, path=path)
    for path, text in texts.items():
        write_text(path, text)
    return [*drawn, *texts]


def check(name: str, results: Path) -> list[str]:
    """How the committed files differ from what the files of record give now: one line each, empty if equal.

    Numbers of the csv may differ by 1e-9 of their size, since libraries sum in different orders; the figure
    is compared by the digest of its data that it carries, since versions of matplotlib draw differently.

    Raises:
        UsageError: as for :func:`write`; a committed file that is missing is a difference, no error.
    """
    from argmax_vae.report import figures

    frames: dict[str, Any] = read_inputs(name, results)
    table = build(name, **frames)
    lines = []
    for other, (_, more) in figures.BESIDE.get(name, {}).items():
        path, drawn = results / f"{other}.svg", figures.digest(name, more=more, **frames)
        if not path.exists() or drawn not in path.read_text(encoding="utf-8"):
            lines.append(f"{path}: missing, or draws other data than the files of record")
    for format in (*FORMATS, "svg"):
        path = results / f"{name}.{format}"
        if not path.exists():
            lines.append(f"{path}: missing; write it with: {definition(name).commands[-1]}")
        elif format == "svg":
            digest = figures.digest(name, **frames)
            if digest not in path.read_text(encoding="utf-8"):
                lines.append(f"{path}: draws other data than the files of record ({digest} expected)")
        else:
            lines += changed_lines(path, render(name, table, format))
    return lines
