"""How long cells will take, from what rows of record took on the devices that those name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from argmax_vae.markup import duration
from argmax_vae.report.records import read

LIKE = ("data", "model", "latents", "estimator")
"""Columns in which a run must be like a cell; what a run took does not depend much on the others."""


@dataclass(frozen=True)
class Ahead:
    """A cell that is not trained yet: the values of LIKE, and the epochs that it lacks."""

    like: tuple[str, ...]
    epochs: int


def expected(cells: Sequence[Ahead], results: Path) -> list[str]:
    """A line for each device that rows of record name: how long those of the cells take that have a like run there.

    The time of a run is that of all its seeds at once. Raises UsageError when `runs.csv` is damaged; without it there
    is nothing to tell.
    """
    path = results / "runs.csv"
    if not cells or not path.exists():
        return []
    rows = read(path, "")
    if not {*LIKE, "run", "device", "seconds", "epochs"} <= set(rows):
        return []
    runs = rows.dropna(subset=["seconds", "epochs"]).drop_duplicates("run")
    per_epoch = (runs["seconds"] / runs["epochs"]).groupby([runs["device"], *(runs[key] for key in LIKE)]).median()
    lines = []
    for device in sorted(set(runs["device"])):
        rates = [per_epoch.get((device, *cell.like), float("nan")) * cell.epochs for cell in cells]
        found = pd.Series(rates, dtype=float).dropna()
        if len(found):
            whole = "all" if len(found) == len(cells) else f"{len(found)} of them"
            lines.append(
                f"{len(cells)} cells ahead: {whole} in about {duration(found.sum())} on {device}, as {path} tells"
            )
    return lines
