"""Tiny mixtures on the digits that learn from labels, in every way of training."""

from pathlib import Path

from argmax_vae.data.datasets import load_dataset
from argmax_vae.training import build
from argmax_vae.training.mixture_vae import MixtureVAE
from helpers import cell

MIXTURE = (
    "model=mixture",
    *("model.latents=1x10", "model.hidden=[32,24]", "model.row=12", "model.component_hidden=[10]"),
    *("model.decoder_hidden=[32]", "model.discrete_hidden=[20]", "model.gaussian=4", "trainer.batch=200"),
)
JOINT = ("supervision=joint", "supervision.labels=50", "supervision.labelled_batch=40")
SEQUENTIAL = ("supervision=sequential", "supervision.labels=50", "supervision.labelled_visits=12")
SEQUENTIAL_JOINT = (
    *("supervision=sequential_joint", "supervision.labels=50"),
    *("supervision.labelled_batch=50", "supervision.labelled_visits=12"),
)
PASSES = (
    *("supervision=sequential_joint", "supervision.labels=50", "supervision.labelled_batch=10"),
    *("supervision.labelled_visits=2", "supervision.sampling=without_replacement"),
)


def started(tmp_path: Path, *overrides: str) -> MixtureVAE:
    """A tiny mixture on the digits, at the first step of its first epoch."""
    module = build.build(cell(tmp_path, *MIXTURE, *overrides).config, load_dataset("digits", Path()))
    assert isinstance(module, MixtureVAE)
    module.prepare_steps(module.configure_optimizers())
    module.on_train_epoch_start()
    return module
