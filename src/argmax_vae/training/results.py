"""What a run leaves at its end: rows of seeds, best networks, and what its tracker shows."""

import io
import math
from dataclasses import replace
from typing import Any, cast

import torch

from argmax_vae.config.compose import Cell
from argmax_vae.config.schema import Config
from argmax_vae.files import write_atomic
from argmax_vae.runs.directory import RunDirectory
from argmax_vae.runs.provenance import commit, device_name
from argmax_vae.runs.trackers import RunLabels, Tracker, open_tracker
from argmax_vae.training.processes import WHOLE, Share
from argmax_vae.training.samples import stored_pictures
from argmax_vae.training.vae import DiscreteVAE


def tracker_of(cell: Cell, share: Share = WHOLE, commits: str = "") -> Tracker:
    """The tracker of a run, of which the first of the processes that share it tells.

    `commits`: those that trained it, by default the present one.
    """
    config = cell.config
    words = (
        f"{config.model.latents} {config.estimator.name}",
        config.estimator.describe_schedule(),
        f"KL {config.objective.kl}",
        f"{config.supervision.labels} labels" if config.supervision.labels else "",
    )
    labels = RunLabels(
        name=", ".join(filter(None, words)),
        group=config.table,
        tags=tuple(filter(None, (config.data.name, config.protocol, commits or commit()[0]))),
        config=cell.config_dict,
        directory=cell.run.path,
    )
    return open_tracker(replace(config.tracker, name="none") if share.rank else config.tracker, labels)


def track_from_files(cell: Cell, status: str, commits: str = "") -> None:
    """Show the tracker a run that is finished, or joined from others and about to be, from its files."""
    run, tracker = cell.run, tracker_of(cell, commits=commits)
    tables = [run.table(name, ("seed",)) for name in ("metrics.csv", "seeds.csv")]
    history, rows = (cast(list[dict[str, Any]], table.to_dict("records")) for table in tables)
    tracker.log(history)
    tracker.finish(rows, stored_pictures(run.path))
    tracker.close(status)


def save_best(run: RunDirectory, module: DiscreteVAE, config_identity: str) -> None:
    """Write the best networks of each seed as a plain dict of tensors."""
    stream = io.BytesIO()
    torch.save({"identity": config_identity, "networks": module.best.state_dict()}, stream)
    write_atomic(run.best, lambda temporary: temporary.write_bytes(stream.getvalue()))


def seed_rows(config: Config, module: DiscreteVAE, seconds: float, device: str) -> list[dict[str, Any]]:
    """A row of final numbers for every seed; bounds in nats per image, `seconds` those of the whole run.

    `train_bound` is the mean over the steps of the last epoch, each with the networks, codes and objective of that
    step: relaxed codes have a relaxed bound, several weighted samples that of them all.
    A seed diverged when its loss was no longer finite, in the epoch, counted from 1, that is its `epochs`; or when it
    had no finite validation bound at any evaluation, so that none of its networks were kept.
    """
    test = module.results["test"]
    schedule = config.estimator.describe_schedule()
    rows = []
    for index, seed in enumerate(module.seeds):
        diverged_epoch = int(module.diverged_epoch[index])
        diverged = diverged_epoch >= 0 or int(module.best_epoch[index]) < 0
        rows.append(
            {
                "n": config.model.n,
                "k": config.model.k,
                "schedule": schedule,
                "seed": seed,
                "status": "diverged" if diverged else "done",
                "epochs": diverged_epoch + 1 if diverged_epoch >= 0 else config.trainer.epochs,
                "best_epoch": int(module.best_epoch[index]),
                "train_bound": module.train_bound[index].item(),
                "validation_bound": module.best_bound[index].item(),
                "test_bound": math.nan if diverged else test.bound[index].item(),
                "test_reconstruction": math.nan if diverged else test.reconstruction[index].item(),
                "test_kl": math.nan if diverged else test.kl[index].item(),
                "test_importance_weighted": math.nan if diverged else test.importance_weighted[index].item(),
                "test_codes_in_use": test.in_use[index].double().mean().item(),
                "seconds": round(seconds, 3),
                "steps_per_second": round(int(module.steps_done) / seconds, 2),
                "steps": int(module.steps_done),
                "device": device_name(device),
                "threads": torch.get_num_threads() if device == "cpu" else 0,
                "path": module.path,
                **module.final_columns(index),
            }
        )
    return rows
