"""More seeds for a finished run: only the new ones are trained, then the files of both become one run.

Seeds do not know of each other, so a run of many is the same as its seeds trained apart, up to rounding.
"""

import io
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from argmax_vae.errors import UsageError
from argmax_vae.files import write_atomic, write_csv, write_json
from argmax_vae.runs.checkpoints import load_checkpoint
from argmax_vae.runs.directory import RunDirectory, identity

TABLES = ("metrics.csv", "seeds.csv", "confusion.csv")
PICTURES = ("samples.png", "reconstructions.png")


def join(
    run: RunDirectory,
    config_dict: Mapping[str, Any],
    found: Mapping[RunDirectory, Sequence[int]],
    data: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the files of a run from those of runs that have all its seeds between them; returns its done marker.

    Without a last checkpoint, which is there only if all parts have one of the same epoch, a run with more epochs
    starts over: a part whose seeds all diverged stopped early. Raises UsageError when a part is damaged,
    or when parts have different noise.
    """
    wanted = list(config_dict["seeds"])
    first, *others = found
    for other in others:
        if other.noise != first.noise:
            raise UsageError(
                f"{first.path} has noise from a {first.noise}, {other.path} from a {other.noise}: they cannot be one "
                "run; remove one of them"
            )
    frames = {name: tables_of(found, name) for name in TABLES}
    run.start(dict(config_dict), data, noise=first.noise)
    origin = {**run.provenance(), "joins": [{"run": part.path.name, **part.provenance()} for part in found]}
    write_json(run.path / "provenance.json", origin)
    outcomes = [part.outcome for part in found]
    seconds = round(sum(outcome["seconds"] for outcome in outcomes), 3)
    for name, tables in frames.items():
        if tables:
            frame = in_order(pd.concat(tables, ignore_index=True), wanted)
            if "seconds" in frame:
                frame = frame.assign(seconds=seconds, steps_per_second=(frame["steps"] / seconds).round(2))
            write_csv(run.path / name, frame)
    order = [seed for seeds in found.values() for seed in seeds]
    positions = torch.tensor([order.index(seed) for seed in wanted])
    for target in (run.checkpoint, run.best):
        contents = [load_checkpoint(part.path / target.name) for part in found if (part.path / target.name).exists()]
        if len(contents) < len(found) or len({progress(content) for content in contents}) > 1:
            target.unlink(missing_ok=True)
            continue
        content = joined(contents, positions)
        content["identity"] = identity(config_dict)
        if "seconds" in content:
            content["seconds"] = sum(part["seconds"] for part in contents)
        if "history" in content:
            rows = [row for part in contents for row in part["history"]]
            content["history"] = sorted(rows, key=lambda row: (row["epoch"], wanted.index(row["seed"])))
        write_atomic(target, written(content))
    shown = next(part for part, seeds in found.items() if wanted[0] in seeds)
    for name in filter(lambda name: (shown.path / name).exists(), PICTURES):
        write_atomic(run.path / name, partial(shutil.copyfile, shown.path / name))
    status = "done" if any(outcome["status"] == "done" for outcome in outcomes) else "diverged"
    return {"status": status, "seeds": wanted, "seconds": seconds}


def tables_of(found: Iterable[RunDirectory], name: str) -> list[pd.DataFrame]:
    """The csv file of this name of every part that has one. Raises UsageError when one of them is damaged."""
    if name == "metrics.csv":
        return [part.metrics() for part in found]
    if name == "seeds.csv":
        return [part.seeds() for part in found]
    return [part.table(name, ("seed",)) for part in found if (part.path / name).exists()]


def progress(content: Mapping[str, Any]) -> tuple[int, int]:
    """The epoch and the steps at which a checkpoint was saved, the same for every one of best networks."""
    return content.get("epoch", 0), int(content.get("state_dict", {}).get("steps_done", 0))


def in_order(frame: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """Rows as one run writes them: by epoch where there are epochs of curves, then seeds in their order."""
    ranks = {seed: position for position, seed in enumerate(seeds)}
    keys = ["epoch", "seed"] if "epoch" in frame else ["seed"]
    return frame.sort_values(
        keys, key=lambda column: column.map(ranks) if column.name == "seed" else column, kind="stable"
    )


def joined(contents: Sequence[Any], positions: Tensor) -> Any:
    """Nested values of several checkpoints as those of one: tensors with a seed axis, the first, are put together.

    `positions` says where each seed of the result lies among those of all parts. Other values are those of the first;
    what a version before this one did not save is left out.
    """
    first = contents[0]
    if isinstance(first, Tensor):
        return torch.cat(list(contents))[positions] if first.ndim else first
    if isinstance(first, dict):
        common = [key for key in first if all(key in content for content in contents)]
        return {key: joined([content[key] for content in contents], positions) for key in common}
    if isinstance(first, list) and all(isinstance(item, dict) for item in first):
        return [joined(items, positions) for items in zip(*contents, strict=False)]
    return first


def written(content: dict[str, Any]) -> Callable[[Any], object]:
    """A writer of a dict of tensors and plain values."""
    stream = io.BytesIO()
    torch.save(content, stream)
    return lambda temporary: temporary.write_bytes(stream.getvalue())
