"""Small runs on the bundled 8x8 digits, and how to compare them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import pytorch_lightning as pl

from argmax_vae.config import compose
from argmax_vae.config.compose import Cell
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.base import Estimator
from argmax_vae.runs.directory import RunDirectory
from argmax_vae.training import callbacks, fit
from argmax_vae.training.vae import DiscreteVAE

TINY = (
    "data=digits",
    "runtime.compile=false",
    "runtime.device=cpu",
    "tracker=none",
    "model.latents=3x4",
    "trainer.epochs=2",
    "trainer.evaluate_every=1",
    "trainer.final_samples=2",
    "trainer.batch=200",
)
SMALL_MIXTURE = (
    *("model=mixture", "model.latents=1x10", "model.hidden=[12]", "model.decoder_hidden=[12]", "model.row=6"),
    *("model.discrete_hidden=[10]", "model.component_hidden=[5]", "model.gaussian=3"),
)
TIME_COLUMNS = ["seconds", "steps_per_second"]


def latents(name: str, n: int = 2, k: int = 3) -> tuple[int, int]:
    """(n, k), with k = 2 for an estimator of binary latents."""
    try:
        ESTIMATORS[name].config_class().validate_latents(n, k)
    except UsageError:
        return n, 2
    return n, k


def ready(name: str, n: int, k: int, seeds: Sequence[int] | None = None, **choices: Any) -> Estimator:
    """An estimator for latents n × k, with default choices but those given."""
    estimator = ESTIMATORS[name]
    return estimator(estimator.config_class(**choices)).prepare(n, k, seeds)


def cell(runs: Path, *overrides: str) -> Cell:
    """The one configuration that these overrides of a tiny run select."""
    (found,) = compose.cells("train", [*TINY, f"paths.runs={runs}", *overrides])
    return found


def train(runs: Path, *overrides: str) -> RunDirectory:
    """Train a tiny run in `runs` and return its directory."""
    chosen = cell(runs, *overrides)
    fit.train(chosen)
    return chosen.run


def seeds(run: RunDirectory) -> pd.DataFrame:
    """The final numbers of every seed, without what the clock decides."""
    return pd.read_csv(run.path / "seeds.csv").drop(columns=TIME_COLUMNS)


def metrics(run: RunDirectory) -> pd.DataFrame:
    """The curves of every seed."""
    return pd.read_csv(run.path / "metrics.csv")


def same_numbers(first: RunDirectory, second: RunDirectory) -> None:
    """Assert that two runs gave the same numbers to the last bit."""
    pd.testing.assert_frame_equal(metrics(first), metrics(second), check_exact=True)
    pd.testing.assert_frame_equal(seeds(first), seeds(second), check_exact=True)


def raise_after(monkeypatch: pytest.MonkeyPatch, epoch: int, error: BaseException) -> None:
    """Let training raise an error at the end of an epoch, counted from 1, after its checkpoint is saved."""
    original = callbacks.SaveLast.on_train_epoch_end

    def stopping(self: callbacks.SaveLast, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        original(self, trainer, module)
        if trainer.current_epoch + 1 == epoch:
            raise error

    monkeypatch.setattr(callbacks.SaveLast, "on_train_epoch_end", stopping)


def poison(monkeypatch: pytest.MonkeyPatch, positions: list[int], epoch: int) -> None:
    """Turn the decoder of the seeds at these positions into NaN at the start of an epoch, counted from 1."""
    original = DiscreteVAE.on_train_epoch_start

    def poisoned(self: DiscreteVAE) -> None:
        original(self)
        if self.current_epoch + 1 == epoch:
            for parameter in self.networks.decoder.parameters():
                parameter.data[positions] = float("nan")

    monkeypatch.setattr(DiscreteVAE, "on_train_epoch_start", poisoned)
