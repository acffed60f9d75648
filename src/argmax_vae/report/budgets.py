"""Bounds at equal numbers of decoder evaluations, read from the curves of runs with equal numbers of epochs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from argmax_vae.errors import UsageError
from argmax_vae.report.records import require
from argmax_vae.statistics import mean_interval


def budget_of(cells: Sequence[pd.DataFrame]) -> float:
    """The decoder evaluations per training image of the cheapest cell: evaluations per step times epochs."""
    return min(((cell["decoder_evaluations"] * cell["epochs"]).max() for cell in cells if len(cell)), default=0.0)


def kind_of(cell: pd.DataFrame) -> tuple:
    """What cells agree in that share a budget."""
    return tuple(cell[["n", "k", "protocol"]].iloc[0])


def at_equal_evaluations(
    name: str, cells: Sequence[pd.DataFrame], curves: pd.DataFrame
) -> list[tuple[pd.Series, dict[str, float]]]:
    """For each cell, its bound when it has used as many decoder evaluations as the cheapest of its kind has in the end.

    Cells are of one kind that agree in n, k and protocol.

    Args:
        name: the table.
        cells: the seeds of each cell that are done, indexed by seed, with ``n``, ``k``, ``protocol``,
            ``decoder_evaluations`` per image and step, ``epochs`` and ``config_hash``.
        curves: the rows of ``curves.csv``, whose column ``run`` ends in the hash.

    Returns:
        For each cell the test bound by seed, at the epoch within the budget with the best validation bound, and its
        columns: ``decoder_evaluations`` and ``budget`` (per training image, over all epochs), the last evaluated epoch
        within the budget as ``budget_epochs`` (the first one for a cell whose first is beyond it), ``budget_bound``
        the mean and ``budget_half_width`` of its 95 % interval. Both are empty for a cell without seeds.

    Raises:
        UsageError: a cell without its number of decoder evaluations, or without curves.
    """
    require(curves, ["table", "run", "seed", "epoch", "validation_bound", "test_bound"], "curves.csv")
    rows = curves[curves["table"] == name]
    by_hash = dict(list(rows.groupby(rows["run"].str.rsplit("-", n=1).str[-1])))
    for cell in cells:
        if len(cell) and not np.isfinite(cell["decoder_evaluations"]).all():
            raise UsageError(f"runs.csv: a row of table={name} lacks decoder_evaluations")
        if len(cell) and cell["config_hash"].iloc[0] not in by_hash:
            raise UsageError(f"curves.csv: no row of {cell['run'].iloc[0]}, which runs.csv has in table={name}")
    kinds: dict[tuple, list[pd.DataFrame]] = {}
    for cell in cells:
        if len(cell):
            kinds.setdefault(kind_of(cell), []).append(cell)
    budgets = {kind: budget_of(alike) for kind, alike in kinds.items()}
    found: list[tuple[pd.Series, dict[str, float]]] = []
    for cell in cells:
        if cell.empty:
            found.append((pd.Series(dtype=float), {}))
            continue
        evaluations, budget = cell["decoder_evaluations"].iloc[0], budgets[kind_of(cell)]
        curve = by_hash[cell["config_hash"].iloc[0]]
        epochs = np.sort(curve["epoch"].unique())
        within = epochs[epochs * evaluations <= budget]
        last = within[-1] if len(within) else epochs[0]
        until = curve[(curve["epoch"] <= last) & curve["seed"].isin(cell.index)]
        best = until.loc[until.groupby("seed")["validation_bound"].idxmin()].set_index("seed")["test_bound"]
        mean, _, _, half_width, _ = mean_interval(best)
        columns = {
            "decoder_evaluations": evaluations,
            "budget": budget,
            "budget_epochs": last,
            "budget_bound": mean,
            "budget_half_width": half_width,
        }
        found.append((best, columns))
    return found
