"""Trains one run from its configuration: builds the parts, fits, evaluates the best networks, writes the files."""

import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from argmax_vae import interruption
from argmax_vae.config.compose import Cell
from argmax_vae.data.images import Dataset
from argmax_vae.data.index_blocks import TrainingBlocks, loader
from argmax_vae.errors import UsageError
from argmax_vae.files import claimed, write_json
from argmax_vae.runs import join
from argmax_vae.runs.directory import identity
from argmax_vae.runs.start import Continue, Fresh, Join, Start, starting_point
from argmax_vae.training.build import build, device_of, evaluation_loaders, lightning_trainer, quiet_lightning
from argmax_vae.training.callbacks import Record, SaveLast, Snapshot, kept
from argmax_vae.training.prerequisites import DIGESTS, prerequisites, require_same_data, with_noise
from argmax_vae.training.processes import WHOLE, Share, in_processes
from argmax_vae.training.progress import Progress
from argmax_vae.training.results import save_best, seed_rows, track_from_files, tracker_of
from argmax_vae.training.samples import pictures_of

CLAIM_SECONDS = 0.5
"""How long to wait for a claim: longer than a look at a run's status takes, which holds it too."""
HISTORY_COLUMNS = ("epoch", "seed", "validation_bound", "test_bound")


def train(cell: Cell) -> str:
    """Train a run to the end, or go on with it, and return its status: done, diverged, failed, or running elsewhere.

    A run that is done already is left alone; `starting_point` says from where another one goes on.
    An exception is kept in `error.txt`, except for UsageError and interruption, which go to the caller.
    """
    config, run = cell.config, cell.run
    run.tidy()
    if run.has_ended:
        require_same_data(run, config)
        return run.status
    device, dataset = prerequisites(config)
    data = DIGESTS[str(config.data), config.paths.data] = dataset.digest
    with interruption.interruptible(), claimed(run.claim, CLAIM_SECONDS) as mine:
        if not mine or run.has_ended:
            return run.status if run.has_ended else "running"
        start: Start = Fresh()
        try:
            start = starting_point(cell.config_dict, data, config.runtime.noise)
            cell = replace(cell, config=with_noise(config, device, start.begun))
            if isinstance(start, Join):
                return train_rest(cell, start, data)
            continues = start.begun if isinstance(start, Continue) else None
            run.start(cell.config_dict, data, continues, device, cell.config.runtime.noise)
            if config.runtime.processes > 1:
                in_processes(config.runtime.processes, fit_share, cell, start)
                if not run.has_ended:
                    raise KeyboardInterrupt
                return run.status
            return fit(cell, dataset, device, start)
        except UsageError:
            raise
        except KeyboardInterrupt as interrupted:
            continues = start.begun if isinstance(start, Continue) else None
            raise KeyboardInterrupt(str(interrupted) or kept(run, config.trainer.epochs, continues)) from None
        except Exception:
            run.fail(traceback.format_exc())
            return "failed"


def train_rest(cell: Cell, start: Join, data: Mapping[str, Any]) -> str:
    """Train the seeds that no finished run has, as a run of their own, and join all; returns the status."""
    run, found = cell.run, dict(start.found)
    if start.missing:
        rest = cell.with_seeds(start.missing)
        while (status := train(rest)) == "running":
            time.sleep(CLAIM_SECONDS)
        if status == "failed":
            run.fail(f"seeds {start.missing}: {rest.run.reason}")
            return status
        found[rest.run] = start.missing
    done = join.join(run, cell.config_dict, found, data)
    track_from_files(cell, str(done["status"]))
    write_json(run.path / "done.json", done)
    return run.status


def fit_share(share: Share, cell: Cell, start: Start) -> None:
    """`fit` in one of several processes."""
    dataset = cell.config.data.load(Path(cell.config.paths.data))
    fit(cell, dataset, device_of(cell.config.runtime.device), start, share)


def fit(
    cell: Cell,
    dataset: Dataset,
    device: str,
    start: Start,
    share: Share = WHOLE,
    callbacks: Sequence[pl.Callback] = (),
) -> str:
    """The training itself, in a directory that exists; of the processes that share a run the first one writes.

    `callbacks` come before this package's own.

    When it is interrupted, the state after the last whole epoch is written. Lightning turns KeyboardInterrupt into
    SystemExit; both leave here as KeyboardInterrupt.
    """
    config, run = cell.config, cell.run
    config_identity = identity(cell.config_dict)
    module = build(config, dataset, share)
    tracker = tracker_of(cell, share)
    outcome = "failed"
    runtime = config.runtime.on(device)
    save_last = SaveLast(run, Snapshot(), runtime)
    try:
        draw = partial(pictures_of, module, dataset)
        record = Record(run, tracker, config_identity, draw)
        progress = [] if share.rank else [Progress(run.path.name, config.trainer.epochs, cell.place, cell.behind)]
        with quiet_lightning():
            watching = [*callbacks, record, *progress, save_last]
            trainer = lightning_trainer(config, device, watching, share, [save_last.snapshot])
            blocks = TrainingBlocks(
                len(dataset.train.pixels),
                config.seeds,
                config.trainer.batch,
                runtime.chunk,
                lambda: trainer.current_epoch,
            )
            evaluation = evaluation_loaders(config, dataset)
            trainer.fit(module, loader(blocks), evaluation, ckpt_path=start.checkpoint, weights_only=True)
            seconds = record.seconds
            trainer.test(module, evaluation[1], verbose=False)
        if share.rank:
            return "done"
        rows = seed_rows(config, module, seconds, device)
        run.write_table("metrics.csv", module.history, columns=HISTORY_COLUMNS)
        run.write_table("seeds.csv", rows)
        if confusion := module.confusion_rows():
            run.write_table("confusion.csv", confusion)
        save_best(run, module, config_identity)
        pictures = draw()
        run.write_picture("samples.png", pictures.samples)
        run.write_picture("reconstructions.png", pictures.reconstructions)
        tracker.finish(rows, pictures)
        status = "diverged" if all(row["status"] == "diverged" for row in rows) else "done"
        done = {"status": status, "seeds": list(config.seeds), "seconds": round(seconds, 3)}
        write_json(run.path / "done.json", done)
        run.previous.unlink(missing_ok=True)
        outcome = status
        return status
    except (SystemExit, KeyboardInterrupt) as error:
        outcome = "interrupted"
        try:
            save_last.write()
        except UsageError as refusal:
            print(f"argmax-vae: {refusal}", file=sys.stderr)
        raise KeyboardInterrupt from error
    finally:
        tracker.close(outcome)
