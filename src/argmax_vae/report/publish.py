"""Any table, or the pages, by name: text, files, and whether those are what the files of record give now."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from argmax_vae.errors import UsageError
from argmax_vae.report import faces, gradients, labels, readme, records, tables


class Publisher(Protocol):
    """A module that knows one kind of table."""

    def rendered(self, name: str, results: Path, format: str) -> str: ...

    def write(self, name: str, results: Path) -> list[Path]: ...

    def check(self, name: str, results: Path) -> list[str]: ...


PUBLISHERS: dict[str, Publisher] = {
    **dict.fromkeys(records.TABLES, tables),
    **dict.fromkeys(labels.FIGURES, labels),
    **dict.fromkeys(gradients.FIGURES, gradients),
    faces.FIGURE: faces,
    "readme": readme,
}
"""What publishes each table: test bounds, training with labels, the gradient laboratory, or faces; and the pages."""
ALL = "all"
"""What stands for everything that there are files of record for."""
FROM_RUNS = (faces.FIGURE, "figure7")
"""Figures that the networks of runs draw."""


def publisher(name: str, results: Path) -> Publisher:
    """What publishes a table, such as a user's own that there are rows of. Raises UsageError for an unknown one."""
    if name not in PUBLISHERS and name in records.recorded(results) and not name.endswith(records.SEARCH):
        return tables
    if name not in PUBLISHERS:
        known = f"{', '.join(sorted(PUBLISHERS))}, {ALL}, and with --from RUN {' and '.join(FROM_RUNS)}"
        raise UsageError(f"table={name}: unknown; allowed: {known}")
    return PUBLISHERS[name]


def names(name: str, results: Path) -> list[str]:
    """What a name stands for: itself, or all that there are files of record for, and the pages that show it.

    Raises UsageError when there is nothing at all.
    """
    if name != ALL:
        return [name]
    found = records.recorded(results)
    measured = {figure for figure in (*gradients.FIGURES, faces.FIGURE) if (results / f"{figure}.csv").exists()}
    own = sorted(
        each
        for each in found - {*PUBLISHERS}
        if not each.endswith(records.SEARCH) and (results / f"{each}.csv").exists()
    )
    there = [each for each in (*PUBLISHERS, *own) if each in found | measured]
    if not there:
        raise UsageError(
            f"{results}: nothing to report, neither runs.csv with rows of a table nor gradients; "
            "make some with: argmax-vae reproduce figure2"
        )
    return [*there, *(["readme"] if readme.pages(results) else [])]
