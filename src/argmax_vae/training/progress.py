"""Progress of a run on standard error: a line that is rewritten on a terminal, a line now and then elsewhere."""

import shutil
import sys
import time

import pytorch_lightning as pl

from argmax_vae.markup import duration
from argmax_vae.training.vae import DiscreteVAE

SECONDS_BETWEEN_LINES = 30.0
COLLAPSED = 0.01
"""A KL divergence, in nats per image, below which codes say nothing of their images."""


class Progress(pl.Callback):
    """Which path the steps take; then epoch, bound, KL, ε or τ, steps per second, and the time left.

    `place` says which run of a sweep it is, `behind` how many come after it, which are taken to last as long. The first
    epoch, in which steps are compiled, does not count for speed and time. On a terminal a line fits its width: the
    run's name and the first measures give way. A posterior that has collapsed onto the prior is told once.
    """

    def __init__(self, name: str, epochs: int, place: str = "", behind: int = 0) -> None:
        self.name, self.epochs, self.behind = name, epochs, behind
        self.place = f"{place}: " if place else ""
        self.told_collapse = False
        self.terminal = sys.stderr.isatty()
        self.last_line = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.first_epoch = trainer.current_epoch
        self.count_from(module, self.first_epoch, time.monotonic())

    def count_from(self, module: pl.LightningModule, epoch: int, now: float) -> None:
        """Measure speed and time from here on."""
        assert isinstance(module, DiscreteVAE)
        self.counted_epoch, self.counted_step, self.counted_time = epoch, int(module.steps_done), now

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        now = time.monotonic()
        assert isinstance(module, DiscreteVAE)
        finished = trainer.current_epoch + 1
        if finished == self.first_epoch + 1:
            print(f"{self.place}{self.name} on {module.device.type}: {module.path}", file=sys.stderr, flush=True)
            self.count_from(module, finished, now)
        if not self.terminal and finished < self.epochs and now - self.last_line < SECONDS_BETWEEN_LINES:
            return
        self.last_line = now
        line = self.line(trainer, module, finished, now)
        self.tell_collapse(trainer)
        if self.terminal:
            line = fitting(line, self.name, shutil.get_terminal_size().columns - 1)
            end = "\n" if finished == self.epochs else ""
            print(f"\r\033[K{line}", end=end, file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def line(self, trainer: pl.Trainer, module: pl.LightningModule, finished: int, now: float) -> str:
        """The text of the line after `finished` epochs, at this time in seconds."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        parts = [f"{self.place}{self.name} epoch {finished}/{self.epochs}"]
        labels = {
            "train_bound": "train bound",
            "validation_bound": "validation bound",
            "validation_kl": "KL",
            "epsilon": "ε",
            "temperature": "τ",
        }
        parts += [f"{label} {metrics[name]:.4g}" for name, label in labels.items() if name in metrics]
        assert isinstance(module, DiscreteVAE)
        if finished > self.counted_epoch:
            seconds = now - self.counted_time
            parts.append(f"{(int(module.steps_done) - self.counted_step) / seconds:.0f} steps/s")
            epoch = seconds / (finished - self.counted_epoch)
            left = epoch * (self.epochs - finished)
            sweep = f" ({duration(left + epoch * self.epochs * self.behind)} of the sweep)" if self.behind else ""
            parts.append(f"{duration(left)} left{sweep}")
        return ", ".join(parts)

    def tell_collapse(self, trainer: pl.Trainer) -> None:
        """Say once that the KL divergence on validation is next to nothing."""
        kl = trainer.callback_metrics.get("validation_kl")
        if kl is None or self.told_collapse or not abs(float(kl)) < COLLAPSED:
            return
        self.told_collapse = True
        start = "\r\033[K" if self.terminal else ""
        told = f"{self.name}: KL {float(kl):.2g} nats on validation, the posterior has collapsed onto the prior"
        print(f"{start}argmax-vae: {told}", file=sys.stderr, flush=True)


def fitting(line: str, name: str, columns: int) -> str:
    """A line of progress that is no longer than so many columns, if that can be."""
    if len(line) > columns:
        line = line.replace(name, f"…{name[-10:]}") if len(name) > 11 else line
    first, *rest = line.split(", ")
    while len(", ".join([first, *rest])) > columns and len(rest) > 1:
        rest = rest[1:]
    return ", ".join([first, *rest])[: max(columns, 0)]
