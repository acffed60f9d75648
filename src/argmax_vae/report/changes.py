"""In which lines a file that was written differs from what the files of record give now."""

from __future__ import annotations

import csv
import math
from itertools import zip_longest
from pathlib import Path


def changed_lines(path: Path, current: str) -> list[str]:
    """One line for each in which a file, or nothing if it is missing, differs from the text it should have.

    Numbers of a csv may differ by 1e-9 of their size.
    """
    committed = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [
        f"{path}:{number}: committed {old!r}, computed {new!r}"
        for number, (old, new) in enumerate(zip_longest(committed, current.splitlines(), fillvalue=""), start=1)
        if old != new and not (path.suffix == ".csv" and _close(old, new))
    ]


def _close(old: str, new: str) -> bool:
    """Whether two csv lines agree up to rounding errors of their numbers."""
    pairs = zip_longest(*(next(csv.reader([line]), []) for line in (old, new)), fillvalue="")
    try:
        return all(a == b or math.isclose(float(a), float(b), rel_tol=1e-9) for a, b in pairs)
    except ValueError:
        return False
