"""Progress of a run on standard error: a line that is rewritten on a terminal, a line now and then elsewhere."""

import sys
import time

import pytorch_lightning as pl

from argmax_vae.training.vae import DiscreteVAE

SECONDS_BETWEEN_LINES = 30.0


class Progress(pl.Callback):
    """Which path the steps take; then epoch, bound, KL, ε or τ, steps per second, and the time left."""

    def __init__(self, name: str, epochs: int) -> None:
        self.name, self.epochs = name, epochs
        self.terminal = sys.stderr.isatty()
        self.last_line = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.first_epoch = trainer.current_epoch
        self.started = time.monotonic()
        assert isinstance(module, DiscreteVAE)
        self.first_step = int(module.steps_done)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        now = time.monotonic()
        assert isinstance(module, DiscreteVAE)
        finished = trainer.current_epoch + 1
        if finished == self.first_epoch + 1:
            print(f"{self.name} on {module.device.type}: {module.path}", file=sys.stderr, flush=True)
        if not self.terminal and finished < self.epochs and now - self.last_line < SECONDS_BETWEEN_LINES:
            return
        self.last_line = now
        line = self.line(trainer, module, finished, now - self.started)
        if self.terminal:
            end = "\n" if finished == self.epochs else ""
            print(f"\r\033[K{line}", end=end, file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def line(self, trainer: pl.Trainer, module: pl.LightningModule, finished: int, seconds: float) -> str:
        """The text of the line after `finished` epochs, `seconds` after the start."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        parts = [f"{self.name} epoch {finished}/{self.epochs}"]
        labels = {
            "train_bound": "train bound",
            "validation_bound": "validation bound",
            "validation_kl": "KL",
            "epsilon": "ε",
            "temperature": "τ",
        }
        parts += [f"{label} {metrics[name]:.4g}" for name, label in labels.items() if name in metrics]
        assert isinstance(module, DiscreteVAE)
        steps = int(module.steps_done) - self.first_step
        parts.append(f"{steps / seconds:.0f} steps/s")
        left = seconds / (finished - self.first_epoch) * (self.epochs - finished)
        parts.append(f"{left // 60:.0f} min {left % 60:.0f} s left")
        return ", ".join(parts)
