"""Any table by its name: its text, its files, and whether those are what the files of record give now."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from argmax_vae.errors import UsageError
from argmax_vae.report import gradients, labels, records, tables


class Publisher(Protocol):
    """A module that knows one kind of table."""

    def rendered(self, name: str, results: Path, format: str) -> str: ...

    def write(self, name: str, results: Path) -> list[Path]: ...

    def check(self, name: str, results: Path) -> list[str]: ...


PUBLISHERS: dict[str, Publisher] = {
    **dict.fromkeys(records.TABLES, tables),
    **dict.fromkeys(labels.FIGURES, labels),
    **dict.fromkeys(gradients.FIGURES, gradients),
}
"""What publishes each table: test bounds, training with labels, or the gradient laboratory."""


def publisher(name: str) -> Publisher:
    """What publishes a table. Raises UsageError for an unknown one."""
    if name not in PUBLISHERS:
        raise UsageError(f"table={name}: unknown; allowed: {', '.join(sorted(PUBLISHERS))}")
    return PUBLISHERS[name]
