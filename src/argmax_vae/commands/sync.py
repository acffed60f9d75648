"""Runs that are finished, shown to wandb afterwards: what `sync RUN...` does before it uploads."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from argmax_vae.config.compose import Cell
from argmax_vae.config.stored import config_of_dict
from argmax_vae.errors import UsageError
from argmax_vae.runs.directory import RunDirectory
from argmax_vae.runs.provenance import commits
from argmax_vae.training.results import track_from_files


def record_runs(paths: Sequence[Path], dry_run: bool = False) -> None:
    """Record finished runs for wandb, offline, from their files; those that wandb recorded already are told.

    With `dry_run` those that would be recorded are listed.

    They have the ids that they would have had from the start. Raises UsageError for a path that is no finished run,
    before any is recorded.
    """
    cells = [finished(RunDirectory(path)) for path in paths]
    for cell in cells:
        run = cell.run
        if list(run.path.glob("wandb/*run-*")):
            print(f"argmax-vae: {run.path}: wandb has its record already", file=sys.stderr)
            continue
        if dry_run:
            print(run.path)
            continue
        track_from_files(cell, run.status, commits(run.provenance()))


def finished(run: RunDirectory) -> Cell:
    """A finished run as a cell whose tracker is wandb, offline. Raises UsageError for another."""
    config_dict = run.config()
    if not run.has_ended:
        raise UsageError(f"{run.path} is {run.status}, not done: run the same command again to finish it")
    config = config_of_dict(config_dict, run.provenance())
    config = replace(config, tracker=replace(config.tracker, name="wandb", mode="offline"))
    cell = Cell((), config, {**config_dict, "paths": {**config_dict["paths"], "runs": str(run.path.parent)}})
    if cell.run.path.name != run.path.name:
        raise UsageError(f"{run.path} has not the name that its configuration gives it, {cell.run.path.name}")
    return cell
