"""The experiments `released_mixture_*` against what is stated of the paper's code, and a step of them written out."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, leaky_relu, one_hot

from argmax_vae.config.compose import Cell, cells
from argmax_vae.config.stored import config_of_dict
from argmax_vae.data.datasets import load_dataset
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.objective.labels import labelled_config
from argmax_vae.runs.directory import LATER_KEYS, identity
from argmax_vae.training import build
from argmax_vae.training.mixture_vae import MixtureVAE
from helpers import cell, metrics, train

ESTIMATOR_NAMES = pytest.mark.parametrize("estimator", ["direct", "gumbel_softmax"])
SCHEDULED = {"direct": "epsilon", "gumbel_softmax": "temperature"}
LABELLED_VALUE = {"direct": 0.05, "gumbel_softmax": 1.0}
TINY_RELEASED = (
    *("model.latents=1x10", "model.hidden=[32,24]", "model.row=12", "model.component_hidden=[10]"),
    *("model.decoder_hidden=[32]", "model.discrete_hidden=[20]", "model.gaussian=4", "trainer.batch=200"),
    *("supervision.labels=50", "supervision.labelled_batch=10", "supervision.labelled_visits=2"),
)


def released(estimator: str, labels: int) -> Cell:
    """The cell of Figure 3."""
    overrides = [f"experiment=released_mixture_{estimator}", f"supervision.labels={labels}"]
    (found,) = cells("figure3", overrides)
    return found


@ESTIMATOR_NAMES
@pytest.mark.parametrize("labels", [50, 600])
def test_the_configuration_is_what_is_stated(estimator: str, labels: int) -> None:
    """1,499 passes over the labelled images, then epochs of 500 steps without labels; ε and τ by the published rule."""
    config = released(estimator, labels).config
    batch, supervision = min(100, labels), config.supervision
    assert (supervision.training, supervision.sampling, supervision.batch) == (
        "sequential",
        "without_replacement",
        batch,
    )
    assert supervision.labelled_steps(500) == 1499 * labels // batch
    assert (supervision.source, supervision.binarize) == ("train_and_validation", False)
    alone = labelled_config(ESTIMATORS[estimator](config.estimator), supervision)
    assert float(getattr(alone, SCHEDULED[estimator])(torch.tensor(7))) == pytest.approx(LABELLED_VALUE[estimator])
    assert supervision.schedule_starts == "after_labels"
    schedule, value = getattr(config.estimator, SCHEDULED[estimator]), 1.0
    for epoch in range(1500, 1510):
        for step in ((epoch - 1500) * 500, (epoch - 1499) * 500 - 1):
            assert float(schedule(torch.tensor(step))) == pytest.approx(value)
        value = max(0.1, math.exp(-1e-5 * 500 * epoch))
    assert config.objective.kl == {"direct": "none", "gumbel_softmax": "analytic"}[estimator]
    assert (config.optim.learning_rate, config.trainer.batch) == (8e-4, 100)


def without(plain: dict[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """A stored configuration of a version that lacks these keys of its sections."""
    return {
        section: {key: inner for key, inner in value.items() if f"{section}.{key}" not in keys}
        if isinstance(value, dict)
        else value
        for section, value in plain.items()
    }


AS_BEFORE = (
    *("model.prior", "model.component_bias", "supervision.labelled_classes"),
    *("estimator.doubly_reparameterized", "optim.estimator_factor"),
)
"""Later keys that the released experiments leave at the values of before."""


@pytest.mark.parametrize(("estimator", "name"), [("direct", "2dc8221dcb"), ("gumbel_softmax", "152818db64")])
def test_runs_of_earlier_versions_keep_their_identity(estimator: str, name: str) -> None:
    """Rows of record with 50 labels: later keys at the values that stand for earlier versions are no part of it."""
    plain = released(estimator, 50).config_dict
    constant = {"direct": 0.1, "gumbel_softmax": 1.0}[estimator]
    plain["estimator"][SCHEDULED[estimator]] = {"name": "constant", "value": constant}
    plain["model"]["gaussian_kl"] = "selected"
    plain["supervision"]["labelled_visits"] = 1500
    plain["supervision"]["labelled_value"] = {"direct": 0.05, "gumbel_softmax": 0.0}[estimator]
    later = {key: value for key, value in LATER_KEYS.items() if key.split(".")[1] in plain[key.split(".")[0]]}
    for key, value in later.items():
        section, inner = key.split(".")
        assert plain[section][inner] != value or key in AS_BEFORE
        plain[section][inner] = value
    assert identity(plain) == name
    config = config_of_dict(without(plain, later))
    assert identity(without(plain, later)) == name
    for key, value in later.items():
        section, inner = key.split(".")
        assert getattr(getattr(config, section), inner) == value


@ESTIMATOR_NAMES
def test_epsilon_and_tau_of_a_run_start_behind_the_labelled_images(estimator: str, tmp_path: Path) -> None:
    """Two passes of five steps, which end within the second epoch of six, then 1 in one epoch and 0.1 in all others."""
    scheduled = SCHEDULED[estimator]
    run = train(
        tmp_path,
        *(f"experiment=released_mixture_{estimator}", *TINY_RELEASED, "trainer.epochs=5"),
        *(f"estimator.{scheduled}.every=6", f"estimator.{scheduled}.rate=1"),
    )
    expected = [LABELLED_VALUE[estimator]] * 2 + [1.0, 0.1, 0.1]
    assert metrics(run)[scheduled].tolist() == pytest.approx(expected)


def written_out(
    estimator: str, weights: list[Tensor], x: Tensor, label: Tensor | None, noise: dict[str, Tensor], value: float
) -> Tensor:
    """The loss of one step of one seed, from the stated facts alone; `value` is ε or τ, `label` of labelled images.

    Its derivative is the released gradient: that of direct optimization is put on the logits as a linear function.
    """
    (w1, b1), (w2, b2), (w3, b3), (w4, b4), (w5, b5), (w6, b6), (w7, b7), (w8, b8), (w9, b9) = zip(
        weights[::2], weights[1::2], strict=True
    )
    batch, k = noise["gumbel"].shape
    common = leaky_relu(x @ w1 + b1, 0.2) @ w2 + b2
    logits = leaky_relu(common @ w3 + b3, 0.2) @ w4 + b4
    rows = (common @ w5 + b5).reshape(batch * k, -1)
    kept = (noise["dropout"].reshape(batch * k, -1) >= 0.5) / 0.5
    gaussians = (kept * leaky_relu(rows @ w6 + b6, 0.5)) @ w7 + b7
    mean, log_variance = gaussians.reshape(batch, k, -1).chunk(2, -1)
    z_c = mean + torch.exp(log_variance / 2) * noise["normal"]

    def reconstruction(z: Tensor) -> Tensor:
        outputs = torch.relu((z[:, :, None] * z_c).reshape(batch, -1) @ w8 + b8) @ w9 + b9
        return binary_cross_entropy_with_logits(outputs, x, reduction="none").sum(-1)

    def divergence(z: Tensor) -> Tensor:
        mixed_mean, mixed = (z[:, :, None] * mean).sum(1), (z[:, :, None] * log_variance).sum(1)
        return 0.5 * (mixed.exp() + mixed_mean**2 - 1 - mixed).sum(-1)

    perturbed = logits + noise["gumbel"]
    if estimator == "gumbel_softmax":
        log_z = (perturbed / value).log_softmax(-1)
        q = logits.softmax(-1)
        loss = reconstruction(log_z.exp()) + divergence(log_z.exp()) + (q * (q * k).log()).sum(-1)
        if label is not None:
            loss = loss - 10 * (log_z * label).sum(-1)
        return loss.mean()
    z = one_hot(perturbed.argmax(-1), k).to(x.dtype)
    losses = torch.stack([reconstruction(code.expand(batch, k)) for code in torch.eye(k, dtype=x.dtype)], -1)
    lower = one_hot((perturbed - value * losses).argmax(-1), k).to(x.dtype) if label is None else label
    return (reconstruction(z) + divergence(z) + ((z - lower).detach() / value * logits).sum(-1)).mean()


@ESTIMATOR_NAMES
@pytest.mark.parametrize("phase", ["labelled", "first epoch without labels", "later"])
def test_a_step_is_the_released_one(
    phase: str, estimator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients of every layer of two seeds in double precision, to 1e-8 of the largest of the layer."""
    config = cell(tmp_path, f"experiment=released_mixture_{estimator}", *TINY_RELEASED, "seeds=[0,1]").config
    module = build.build(config, load_dataset("digits", Path()))
    assert isinstance(module, MixtureVAE)
    if phase != "labelled":
        monkeypatch.setattr(MixtureVAE, "current_epoch", 2)
        module.steps_done += module.labelled_steps + (500 if phase == "later" else 0)
    module.prepare_steps(module.configure_optimizers())
    module.on_train_epoch_start()
    assert module.phase == ("labelled" if phase == "labelled" else "unlabelled")
    noise = module.draw()
    images, labels = module.inputs(torch.arange(400).view(2, 200), noise)
    assert bool((images == images.round()).all()) == (phase != "labelled")
    module.networks.double()
    exact = {name: value.double() if value.is_floating_point() else value for name, value in noise.items()}
    parameters = list(module.networks.parameters())
    total = module.terms((images.double(), labels.double()), exact, module.steps_done)[0]

    value = {"labelled": LABELLED_VALUE[estimator], "first epoch without labels": 1.0, "later": 0.1}[phase]
    expected = torch.zeros((), dtype=torch.float64)
    for s in range(2):
        own = {
            "gumbel": -torch.log(-torch.log(exact["uniform"][0, s, :, 0])),
            "normal": exact["gaussian"][s],
            "dropout": exact["dropout"][s],
        }
        label = labels[s, :, 0].double() if phase == "labelled" else None
        weights = [parameter[s] for parameter in parameters]
        expected = expected + written_out(estimator, weights, images[s].double(), label, own, float(np.float32(value)))
    found, truth = (torch.autograd.grad(loss, parameters) for loss in (total, expected))
    for one, other in zip(found, truth, strict=True):
        assert float(other.abs().max()) > 0
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8 * float(other.abs().max()))
