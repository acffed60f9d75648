"""Where a run starts: with nothing, at its own checkpoint, at the end of a shorter run, or from runs of its seeds.

A run is named by its identity, so one that spares it work is recognised by its name alone: of thousands beside it only
those that fit are read. One that fits and is damaged is told, and not used.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from argmax_vae.errors import UsageError
from argmax_vae.runs.checkpoints import load_checkpoint
from argmax_vae.runs.directory import RunDirectory, identity


@dataclass(frozen=True)
class Start:
    """`begun`: the run that goes on, with its noise; `checkpoint`: what training goes on from."""

    begun: RunDirectory | None = None
    checkpoint: Path | None = None


@dataclass(frozen=True)
class Fresh(Start):
    """Nothing is there."""


@dataclass(frozen=True)
class Resume(Start):
    """The run itself was interrupted."""


@dataclass(frozen=True)
class Continue(Start):
    """A finished run differs from this one only in having fewer epochs."""


@dataclass(frozen=True)
class Join(Start):
    """Finished runs that differ in nothing but having some of the seeds: none twice, and the `missing` ones."""

    found: Mapping[RunDirectory, list[int]] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)


def starting_point(config_dict: Mapping[str, Any], data: Mapping[str, Any], noise: str = "auto") -> Start:
    """Where the run of a configuration starts, on data with this digest.

    `noise` is auto, or the one that the run must have. Raises UsageError when the run was interrupted and its
    checkpoints are damaged or another configuration's.
    """
    run = RunDirectory.of(config_dict)
    if run.resumes:
        return Resume(run, last_whole_checkpoint(run, identity(config_dict)))
    if shorter := find_shorter_run(config_dict, data, noise):
        return Continue(shorter, shorter.checkpoint)
    reused = reusable_seeds(config_dict, data, noise)
    return reused if reused.found else Fresh()


def last_whole_checkpoint(run: RunDirectory, config_identity: str) -> Path:
    """The checkpoint that a run resumes from. Raises UsageError when all are damaged, or another configuration's."""
    present = [path for path in (run.checkpoint, run.previous) if path.exists()]
    for path in present:
        try:
            stored = load_checkpoint(path)
        except UsageError:
            if path == present[-1]:
                raise
            print(f"argmax-vae: {path} is damaged, going on from {present[-1].name}", file=sys.stderr)
            continue
        if stored.get("identity") != config_identity:
            raise UsageError(f"{path} belongs to another configuration; remove {run.path} or change the config")
        return path
    raise UsageError(f"{run.path} has no checkpoint to resume from; remove it and train again")


def beside(run: RunDirectory) -> dict[str, RunDirectory]:
    """The directories beside a run with the same name but for the identity, by their identity."""
    if not run.path.parent.is_dir():
        return {}
    start = run.path.name.rpartition("-")[0]
    names = (path.name.rpartition("-") for path in run.path.parent.iterdir())
    return {last: RunDirectory(run.path.with_name(f"{first}-{last}")) for first, _, last in names if first == start}


def find_shorter_run(
    config_dict: Mapping[str, Any], data: Mapping[str, Any], noise: str = "auto"
) -> RunDirectory | None:
    """The longest finished run beside this one that differs from it only in having fewer epochs, if there is one.

    What a run does in an epoch does not depend on how many there are, so the longer run can go on from there. `data`
    is the digest of the data that it is to be trained on, `noise` auto, or the one that it must have.
    """
    run, trainer = RunDirectory.of(config_dict), config_dict["trainer"]
    present = beside(run)
    every = trainer["evaluate_every"]
    for epochs in range(trainer["epochs"] - every, 0, -every) if present else ():
        other = present.get(identity({**config_dict, "trainer": {**trainer, "epochs": epochs}}))
        usable = other is not None and other.status == "done" and other.checkpoint.exists()
        if other and usable and noise in ("auto", other.noise) and is_whole(other, data, best=False):
            return other
    return None


def reusable_seeds(config_dict: Mapping[str, Any], data: Mapping[str, Any], noise: str = "auto") -> Join:
    """The finished runs beside this one that differ from it in nothing but having some of its seeds, largest first.

    All have the same noise: the one that is asked for, or, with auto, that of the largest.
    """
    run, missing = RunDirectory.of(config_dict), list(config_dict["seeds"])
    candidates = []
    for name, other in sorted(beside(run).items()):
        seeds = other.outcome.get("seeds", [])
        fits = set(seeds) < set(missing) and name == identity({**config_dict, "seeds": seeds})
        if fits and other.checkpoint.exists() and other.best.exists():
            candidates.append((other, seeds))
    found: dict[RunDirectory, list[int]] = {}
    for other, seeds in sorted(candidates, key=lambda candidate: -len(candidate[1])):
        if set(seeds) <= set(missing) and noise in ("auto", other.noise) and is_whole(other, data):
            noise = other.noise
            found[other] = seeds
            missing = [seed for seed in missing if seed not in seeds]
    return Join(next(iter(found), None), None, found, missing)


def is_whole(run: RunDirectory, data: Mapping[str, Any], best: bool = True) -> bool:
    """Whether all that would be used of a finished run can be read, and it was trained on these data; says why not."""
    try:
        run.provenance()
        run.require_data(data)
        run.metrics()
        if (run.path / "confusion.csv").exists():
            run.table("confusion.csv", ("seed", "class", "value", "images"))
        for path in (run.checkpoint, run.best) if best else (run.checkpoint,):
            load_checkpoint(path)
    except UsageError as error:
        say_once(f"not used: {error}")
        return False
    return True


@cache
def say_once(text: str) -> None:
    """Print a line on standard error, the same one once in a process."""
    print(f"argmax-vae: {text}", file=sys.stderr)
