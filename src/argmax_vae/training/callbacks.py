"""What a run writes while it goes on: curves at evaluations, and checkpoints to go on from."""

import time
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from argmax_vae import interruption
from argmax_vae.config.schema import RuntimeConfig
from argmax_vae.errors import UsageError
from argmax_vae.files import write_keeping
from argmax_vae.objective.bounds import largest_group
from argmax_vae.randomness import SeedNoise
from argmax_vae.runs.checkpoints import load_checkpoint
from argmax_vae.runs.directory import RunDirectory
from argmax_vae.runs.trackers import Draw, Tracker
from argmax_vae.training.vae import DiscreteVAE


class Record(pl.Callback):
    """Writes metrics at evaluations, feeds the tracker, and stops when every seed has diverged or a signal came."""

    def __init__(self, run: RunDirectory, tracker: Tracker, config_identity: str, draw: Draw) -> None:
        self.run, self.tracker, self.draw = run, tracker, draw
        self.identity = config_identity
        self.seconds_before = 0.0
        self.started = self.epoch_started = time.monotonic()
        self.steps_before = 0

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, DiscreteVAE)
        rehearse(module)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Take the signals back from Lightning, whose handling waits for the end of a batch, and for all processes."""
        interruption.listen()
        self.show(trainer, module)

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        interruption.listen()

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        interruption.check()

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        interruption.check()

    def on_test_batch_end(self, *_: Any, **__: Any) -> None:
        interruption.check()

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, DiscreteVAE)
        self.epoch_started, self.steps_before = time.monotonic(), int(module.steps_done)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.note_epoch(trainer, module)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.show(trainer, module)

    def note_epoch(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Keep what training gave in this epoch, unless that is kept: before the evaluation, if there is one."""
        assert isinstance(module, DiscreteVAE)
        epoch = trainer.current_epoch + 1
        if module.epochs and module.epochs[-1]["epoch"] >= epoch:
            return
        seconds = max(time.monotonic() - self.epoch_started, 1e-9)
        scheduled = {name: float(value.float().mean()) for name, value in module.last_metrics.items()}
        speed = (int(module.steps_done) - self.steps_before) / seconds
        row = {"epoch": epoch, "train_bound": float(module.last_bound), **scheduled, "steps_per_second": speed}
        module.epochs.append(row)

    def show(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write all curves that there are, and show them to the tracker."""
        assert isinstance(module, DiscreteVAE)
        if trainer.is_global_zero and module.history:
            self.run.write_table("metrics.csv", module.history)
            self.tracker.log(module.history, module.epochs, self.draw)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, DiscreteVAE)
        self.note_epoch(trainer, module)
        if bool((module.diverged_epoch >= 0).all()):
            trainer.should_stop = True

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["identity"] = self.identity
        checkpoint["seconds"] = self.seconds

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.seconds_before = checkpoint["seconds"]


def rehearse(module: DiscreteVAE) -> None:
    """Evaluate a chunk of images as at the end, so that what lacks memory then does so before the first step."""
    config, split = module.trainer_config, module.final_splits[-1]
    count = min(config.evaluation_batch, len(module.test_pixels))
    most = largest_group(count)
    noise = SeedNoise(module.seeds, module.device).restart(0, "final")
    indices = torch.arange(count, device=module.device)
    samples, importance = min(config.final_samples, most), min(config.importance_samples, most)
    module.evaluate_chunk(module.best, split, indices, samples, noise, importance)


class Snapshot(TorchCheckpointIO):
    """Keeps in memory what Lightning saves, as `content`; reads checkpoints from the disk as Lightning does."""

    content: dict[str, Any] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: object, storage_options: Any = None) -> None:
        """Copy a checkpoint whose tensors training goes on to change."""
        self.content = copied(checkpoint)


def copied(value: Any) -> Any:
    """Nested dicts and sequences with copies of their tensors."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(copied(item) for item in value)
    return value


class SaveLast(pl.Callback):
    """Keeps the state to resume from in memory after every epoch, behind its other callbacks.

    It is written to the disk every `checkpoint_every` epochs, at the end of an epoch when `checkpoint_minutes` have
    gone by, after the last epoch, and by `write` when a run is interrupted.
    """

    def __init__(self, run: RunDirectory, snapshot: Snapshot, runtime: RuntimeConfig) -> None:
        self.run, self.snapshot, self.runtime = run, snapshot, runtime
        self.written = -1
        self.written_at = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """All processes come here, for Lightning to wait for them; the first one has the snapshot."""
        trainer.save_checkpoint(self.run.checkpoint)
        epoch = trainer.current_epoch + 1
        late = time.monotonic() - self.written_at >= 60 * self.runtime.checkpoint_minutes
        if late or epoch % self.runtime.checkpoint_every == 0 or epoch == trainer.max_epochs:
            self.write()

    def write(self) -> None:
        """Write the state after the last whole epoch, if it is not on the disk yet."""
        content = self.snapshot.content
        if content is None or content["epoch"] == self.written:
            return
        write_keeping(self.run.checkpoint, self.run.previous, partial(torch.save, content))
        self.written, self.written_at = content["epoch"], time.monotonic()


def kept(run: RunDirectory, epochs: int, continues: RunDirectory | None = None) -> str:
    """What an interrupted run of so many epochs goes on from, read from its files."""
    if run.has_ended:
        return f"{run.path} is {run.status}"
    for path in (run.checkpoint, run.previous):
        try:
            done = load_checkpoint(path)["epoch"] + 1
        except (UsageError, KeyError):
            continue
        return f"{run.path} keeps {done} of {epochs} epochs, from where the same command goes on"
    start = f"at the end of {continues.path}" if continues else "with the first epoch"
    return f"{run.path} keeps no epoch, the same command starts {start}"


class Stopwatch(pl.Callback):
    """Seconds from the second epoch on, the first of which compiles, and those of them within steps and evaluations."""

    def __init__(self) -> None:
        self.busy = self.whole = self.started = self.entered = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            self.busy, self.started = 0.0, time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.whole = time.perf_counter() - self.started

    def on_train_batch_start(self, *_: Any) -> None:
        self.entered = time.perf_counter()

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.busy += time.perf_counter() - self.entered

    def on_validation_batch_start(self, *_: Any, **__: Any) -> None:
        self.on_train_batch_start()

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        self.on_train_batch_end()
