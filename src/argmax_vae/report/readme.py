"""Puts the rows of NAME.md into the blocks of the pages that are marked `<!-- NAME: … -->`: no number is typed.

A block may leave out columns, `<!-- NAME without a, b: … -->`; `diverged` and `failed` only while all rows have 0.
Rows of published values without runs of ours are left out.
`<!-- times: … -->` is what the rows of every table took, and which tables have none;
`<!-- published: … -->` is what other papers have for the benchmark. The pages are README.md in the directory of the
files of record and the one beside it; a directory without a page of its own, such as one of a trial, leaves both alone.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

from argmax_vae.errors import UsageError
from argmax_vae.files import write_text
from argmax_vae.report.changes import changed_lines
from argmax_vae.report.labels import FIGURES
from argmax_vae.report.records import SEARCH, TABLES, read, read_published
from argmax_vae.report.style import style
from argmax_vae.report.tables import MISSING

BLOCK = re.compile(r"(<!-- (\w+)(?: without ([^:>]*))?: written by [^>]*-->\n).*?(<!-- end -->)", re.DOTALL)
COUNTS = ("diverged", "failed")
NOT_TRAINED = "not trained yet"


def pages(results: Path) -> dict[Path, str]:
    """The pages that have such blocks, and their texts."""
    own = results / "README.md"
    above = Path(os.path.normpath(results / os.pardir)) / "README.md"
    there = [path for path in (above, own) if path.is_file()] if own.is_file() else []
    texts = {path: path.read_text(encoding="utf-8") for path in there}
    return {path: text for path, text in texts.items() if BLOCK.search(text)}


def rendered(name: str, results: Path, format: str) -> str:
    """Raises UsageError: a page has no other format."""
    raise UsageError(f"report {name}: --format is for tables, not for pages")


def write(name: str, results: Path) -> list[Path]:
    """Rewrite the pages; returns them. Raises UsageError as `updated` does, before a page is changed."""
    after = {path: updated(path, text, results) for path, text in required(name, results).items()}
    for path, text in after.items():
        write_text(path, text)
    return list(after)


def check(name: str, results: Path) -> list[str]:
    """A line for each in which a page differs from what `write` would make of it. Raises UsageError as `updated`."""
    found = required(name, results)
    return [line for path, text in found.items() for line in changed_lines(path, updated(path, text, results))]


def required(name: str, results: Path) -> dict[Path, str]:
    """`pages`; raises UsageError when there is none."""
    if found := pages(results):
        return found
    raise UsageError(
        f"report {name}: there is no {results / 'README.md'}, or neither it nor the one above has a block to fill"
    )


def updated(page: Path, text: str, results: Path) -> str:
    """A page with the rows of each table between its markers.

    Raises UsageError for a table that is missing, and for a column to leave out that it has not.
    """

    def block(found: re.Match[str]) -> str:
        if found[2] == "times":
            return f"{found[1]}{times(read(results / 'runs.csv', 'make it with: argmax-vae reproduce'))}{found[4]}"
        if found[2] == "published":
            return f"{found[1]}{published(read_published('benchmark', results))}{found[4]}"
        table = results / f"{found[2]}.md"
        if not table.is_file():
            raise UsageError(f"{page}: {table} is missing; write it with: argmax-vae report {found[2]}")
        lines = [line for line in table.read_text(encoding="utf-8").splitlines(keepends=True) if line.startswith("|")]
        try:
            rows = without(lines, found[3].split(", ") if found[3] else [])
        except ValueError as error:
            raise UsageError(f"{page}: block <!-- {found[2]} …: {table}: {error}") from None
        return f"{found[1]}{''.join(rows)}{found[4]}"

    return BLOCK.sub(block, text)


def without(lines: list[str], columns: list[str]) -> list[str]:
    """A Markdown table without some of its columns, and without rows that no seed of ours stands behind.

    Raises ValueError for a column that it has not, and for no table.
    """
    if not lines:
        raise ValueError("it has no table")
    rows = [line.strip().strip("|").split("|") for line in lines]
    heads = [head.strip() for head in rows[0]]
    if unknown := [column for column in columns if column not in heads]:
        raise ValueError(f"no column {', '.join(unknown)}; columns are {', '.join(heads)}")
    if "seeds" in heads:
        counts = [index for index, head in enumerate(heads) if head in ("seeds", *COUNTS)]
        rows[2:] = [row for row in rows[2:] if any(row[index].strip() != "0" for index in counts)]
    counted = [any(row[index].strip() != "0" for row in rows[2:]) for index in range(len(heads))]
    kept = [index for index, head in enumerate(heads) if head not in columns or (head in COUNTS and counted[index])]
    return ["|" + "|".join(row[index] for index in kept) + "|\n" for row in rows]


def published(values: pd.DataFrame) -> str:
    """A table of values of other papers, without their sources."""
    lines = ["| n×k | networks | data | estimator | of which images | bound (nats) |", "|---|---|---|---|---|---|"]
    for row in values.fillna({"choices": ""}).to_dict("records"):
        pixels = {"none": "grey", "threshold": "thresholded"}.get(row["binarization"], row["binarization"])
        estimator = ", ".join(filter(None, (style(row["estimator"]).label, row["choices"])))
        cells = [f"{row['n']}×{row['k']}", row["network"], pixels, estimator, row["metric"].removesuffix("_bound")]
        lines.append(f"| {' | '.join(cells)} | {row['value']:.2f} |")
    return "\n".join(lines) + "\n"


def times(runs: pd.DataFrame) -> str:
    """A table of the hours that the runs of each table of record took, by device; those without rows behind them."""
    each = runs[~runs["table"].str.endswith(SEARCH)].drop_duplicates(["table", "run"]).copy()
    each["device"] = each["device"].str.contains("NVIDIA").map({True: "GPU", False: "CPU"})
    lines = ["| table | device | runs | epochs of a run | hours in all |", "|---|---|---|---|---|"]
    for (table, device), rows in each.groupby(["table", "device"]):
        epochs = f"{rows['epochs'].min():g} to {rows['epochs'].max():g}".replace(" to ", "–")
        shown = epochs.split("–")[0] if rows["epochs"].nunique() == 1 else epochs
        lines.append(f"| {table} | {device} | {len(rows)} | {shown} | {rows['seconds'].sum() / 3600:.1f} |")
    for table in sorted({*TABLES, *FIGURES} - set(each["table"])):
        lines.append(f"| {table} | {NOT_TRAINED} | 0 | {MISSING} | {MISSING} |")
    return "\n".join(lines) + "\n"
