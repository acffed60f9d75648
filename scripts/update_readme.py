"""Puts the rows of results/NAME.md into the blocks of the pages marked `<!-- NAME: … -->`: no number is typed.

A block may leave out columns, `<!-- NAME without a, b: … -->`; `diverged` and `failed` only while all rows have 0.
`<!-- times: … -->` is what the rows of every table took.
"""

import re
import sys
from pathlib import Path

import pandas as pd

TOP = Path(__file__).parents[1]
PAGES = ("README.md", "results/README.md")
BLOCK = re.compile(r"(<!-- (\w+)(?: without ([^:>]*))?: written by [^>]*-->\n).*?(<!-- end -->)", re.DOTALL)
COUNTS = ("diverged", "failed")


def without(lines: list[str], columns: list[str]) -> list[str]:
    """A Markdown table without some of its columns. Raises ValueError for one that it has not."""
    rows = [line.strip().strip("|").split("|") for line in lines]
    heads = [head.strip() for head in rows[0]]
    if unknown := [column for column in columns if column not in heads]:
        raise ValueError(f"a page leaves out {', '.join(unknown)}; columns are {', '.join(heads)}")
    counted = [any(row[index].strip() != "0" for row in rows[2:]) for index in range(len(heads))]
    kept = [index for index, head in enumerate(heads) if head not in columns or (head in COUNTS and counted[index])]
    return ["|" + "|".join(row[index] for index in kept) + "|\n" for row in rows]


def times(runs: pd.DataFrame) -> str:
    """A table of the hours that the runs of each table of record took, by device."""
    each = runs[~runs["table"].str.endswith("_search")].drop_duplicates(["table", "run"]).copy()
    each["device"] = each["device"].str.contains("NVIDIA").map({True: "GPU", False: "CPU"})
    lines = ["| table | device | runs | epochs of a run | hours in all |", "|---|---|---|---|---|"]
    for (table, device), rows in each.groupby(["table", "device"]):
        epochs = f"{rows['epochs'].min():g} to {rows['epochs'].max():g}".replace(" to ", "–")
        shown = epochs.split("–")[0] if rows["epochs"].nunique() == 1 else epochs
        lines.append(f"| {table} | {device} | {len(rows)} | {shown} | {rows['seconds'].sum() / 3600:.1f} |")
    return "\n".join(lines) + "\n"


def updated(page: str, results: Path) -> str:
    """The page with the rows of each table between its markers."""

    def block(found: re.Match[str]) -> str:
        if found[2] == "times":
            return f"{found[1]}{times(pd.read_csv(results / 'runs.csv', low_memory=False))}{found[4]}"
        table = (results / f"{found[2]}.md").read_text(encoding="utf-8")
        lines = [line for line in table.splitlines(keepends=True) if line.startswith("|")]
        rows = without(lines, found[3].split(", ") if found[3] else [])
        return f"{found[1]}{''.join(rows)}{found[4]}"

    return BLOCK.sub(block, page)


def main() -> int:
    """Rewrite the pages; with --check only tell (exit code 1) whether one would change."""
    changed = False
    for page in PAGES:
        path = TOP / page
        before = path.read_text(encoding="utf-8")
        after = updated(before, TOP / "results")
        changed |= before != after
        if "--check" not in sys.argv[1:]:
            path.write_text(after, encoding="utf-8")
    return int(changed and "--check" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
