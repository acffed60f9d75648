"""Puts the rows of results/NAME.md into the blocks of README.md marked `<!-- NAME: … -->`: no number is typed.

A block may leave out columns, `<!-- NAME without a, b: … -->`; `diverged` and `failed` only while all rows have 0.
"""

import re
import sys
from pathlib import Path

TOP = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- (\w+)(?: without ([^:>]*))?: written by [^>]*-->\n).*?(<!-- end -->)", re.DOTALL)
COUNTS = ("diverged", "failed")


def without(lines: list[str], columns: list[str]) -> list[str]:
    """A Markdown table without some of its columns. Raises ValueError for one that it has not."""
    rows = [line.strip().strip("|").split("|") for line in lines]
    heads = [head.strip() for head in rows[0]]
    if unknown := [column for column in columns if column not in heads]:
        raise ValueError(f"README.md leaves out {', '.join(unknown)}; columns are {', '.join(heads)}")
    counted = [any(row[index].strip() != "0" for row in rows[2:]) for index in range(len(heads))]
    kept = [index for index, head in enumerate(heads) if head not in columns or (head in COUNTS and counted[index])]
    return ["|" + "|".join(row[index] for index in kept) + "|\n" for row in rows]


def updated(readme: str, results: Path) -> str:
    """The README with the rows of each table between its markers."""

    def block(found: re.Match[str]) -> str:
        table = (results / f"{found[2]}.md").read_text(encoding="utf-8")
        lines = [line for line in table.splitlines(keepends=True) if line.startswith("|")]
        rows = without(lines, found[3].split(", ") if found[3] else [])
        return f"{found[1]}{''.join(rows)}{found[4]}"

    return BLOCK.sub(block, readme)


def main() -> int:
    """Rewrite README.md; with --check only tell (exit code 1) whether it would change."""
    path = TOP / "README.md"
    before = path.read_text(encoding="utf-8")
    after = updated(before, TOP / "results")
    if "--check" in sys.argv[1:]:
        return int(before != after)
    path.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
