"""Finished runs beside a new one that spare it work: one with fewer epochs, or those of some of its seeds.

A run is named by its identity, so a neighbour is recognised by its name alone: of thousands beside a new run only the
ones that fit are read. One that fits and is damaged is told, and not used.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from argmax_vae.errors import UsageError
from argmax_vae.runs.directory import RunDirectory, identity


@dataclass(frozen=True)
class Parts:
    """Finished runs that share no seed, and which of theirs each gives to the run that they make up."""

    found: dict[RunDirectory, list[int]]
    missing: list[int]


def beside(run: RunDirectory) -> dict[str, RunDirectory]:
    """The directories beside a run with the same name but for the identity, by their identity."""
    if not run.path.parent.is_dir():
        return {}
    start = run.path.name.rpartition("-")[0]
    names = (path.name.rpartition("-") for path in run.path.parent.iterdir())
    return {last: RunDirectory(run.path.with_name(f"{first}-{last}")) for first, _, last in names if first == start}


def shorter(plain: Mapping[str, Any], data: Mapping[str, Any], noise: str = "auto") -> RunDirectory | None:
    """The longest finished run beside this one that differs from it only in having fewer epochs, if there is one.

    What a run does in an epoch does not depend on how many there are, so the longer run can go on from there. `data`
    is the digest of the data that it is to be trained on, `noise` auto, or the one that it must have.
    """
    run, trainer = RunDirectory.of(plain), plain["trainer"]
    present = beside(run)
    every = trainer["evaluate_every"]
    for epochs in range(trainer["epochs"] - every, 0, -every) if present else ():
        other = present.get(identity({**plain, "trainer": {**trainer, "epochs": epochs}}))
        usable = other is not None and other.status == "done" and other.checkpoint.exists()
        if other and usable and noise in ("auto", other.noise) and is_whole(other, data, best=False):
            return other
    return None


def parts(plain: Mapping[str, Any], data: Mapping[str, Any], noise: str = "auto") -> Parts:
    """The finished runs beside this one that differ from it in nothing but having some of its seeds, largest first.

    All have the same noise: the one that is asked for, or, with auto, that of the largest.
    """
    run, missing = RunDirectory.of(plain), list(plain["seeds"])
    candidates = []
    for name, other in sorted(beside(run).items()):
        seeds = other.outcome.get("seeds", [])
        fits = set(seeds) < set(missing) and name == identity({**plain, "seeds": seeds})
        if fits and other.checkpoint.exists() and other.best.exists():
            candidates.append((other, seeds))
    found: dict[RunDirectory, list[int]] = {}
    for other, seeds in sorted(candidates, key=lambda candidate: -len(candidate[1])):
        if set(seeds) <= set(missing) and noise in ("auto", other.noise) and is_whole(other, data):
            noise = other.noise
            found[other] = seeds
            missing = [seed for seed in missing if seed not in seeds]
    return Parts(found, missing)


def is_whole(run: RunDirectory, data: Mapping[str, Any], best: bool = True) -> bool:
    """Whether all that would be used of a finished run can be read, and it was trained on these data; says why not."""
    from argmax_vae.runs.checkpoints import load_checkpoint

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
