"""What holds for every estimator of ESTIMATORS with its default configuration."""

import pytest
import torch
from torch import Tensor

from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.base import Estimate, EstimatorConfig
from argmax_vae.models.discrete import Perceptrons
from argmax_vae.models.reconstruction import Reconstruction
from argmax_vae.objective.terms import ObjectiveConfig, training_terms
from argmax_vae.randomness import PlainNoise, SeedNoise
from helpers import latents, ready
from tabular import TabularLoss

STEP = torch.tensor(1500)


def estimate_of(name: str, seeds: list[int], n: int = 2, k: int = 3) -> tuple[Estimate, Perceptrons, Tensor]:
    """An estimate for five images of each seed, its networks, and the logits."""
    n, k = latents(name, n, k)
    estimator = ready(name, n, k, seeds)
    networks = Perceptrons(12, n, k, [], seeds)
    images = torch.stack([torch.rand(5, 12, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    logits = networks.encode(images.round())
    logits.retain_grad()
    noise = estimator.noise(tuple(logits.shape), SeedNoise(seeds, "cpu").restart(0, "noise"))
    return estimator(logits, Reconstruction(networks, images.round()), noise, STEP), networks, logits


@pytest.mark.parametrize("name", ESTIMATORS)
def test_registered_under_its_own_name(name: str) -> None:
    config = ESTIMATORS[name].config_class()
    assert isinstance(config, EstimatorConfig)
    assert config.name == name
    assert "\n" not in config.describe_schedule()
    config.validate_latents(1, 2)


@pytest.mark.parametrize(("n", "k"), [(1, 4), (2, 3)])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimate(name: str, n: int, k: int) -> None:
    estimate, networks, logits = estimate_of(name, [3, 8], n, k)
    assert estimate.objective.shape == estimate.loss.shape == (2, 5)
    assert not estimate.loss.requires_grad
    assert torch.isfinite(estimate.loss).all()
    torch.testing.assert_close(estimate.objective.detach(), estimate.loss)
    assert all(metric.shape in ((), (2,)) for metric in estimate.metrics.values())
    relaxed, temperature = estimate.relaxed_log_codes, estimate.temperature
    assert (relaxed is not None) == (temperature is not None) == ESTIMATORS[name].has_relaxed_codes
    if relaxed is not None and temperature is not None:
        assert relaxed.shape[1:] == logits.shape
        assert temperature.shape == ()
    estimate.objective.sum().backward()
    for parameter in networks.parameters():
        assert torch.isfinite(parameter.grad).all()
    for parameter in networks.decoder.parameters():
        assert (parameter.grad != 0).any()


@pytest.mark.parametrize("gap", [20.0, 60.0, 100.0, 300.0])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_where_one_code_is_nearly_certain_the_gradient_is_finite_and_vanishes(name: str, gap: float) -> None:
    """In float32 other codes have probabilities below its least number; the exact gradient is below kⁿ e^−gap."""
    n, k = latents(name, 2, 3)
    generator = torch.Generator().manual_seed(4)
    logits = torch.rand(64, n, k, generator=generator) * 5
    logits = (logits + gap * (torch.rand(64, n, k, generator=generator).argsort(-1) == 0)).requires_grad_()
    estimator = ready(name, n, k)
    losses = TabularLoss(torch.rand(64, k**n, generator=generator), n, k)
    estimate = estimator(logits, losses, estimator.noise((64, n, k), PlainNoise(generator)), STEP)
    estimate.objective.sum().backward()
    assert torch.isfinite(estimate.loss).all()
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_shifted_logits_change_nothing(name: str) -> None:
    """q ignores a constant added to a variable's logits: gradients sum to zero over its values."""
    estimate, _, logits = estimate_of(name, [3, 8])
    estimate.objective.sum().backward()
    torch.testing.assert_close(logits.grad.sum(-1), torch.zeros(2, 5, 2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_seeds_do_not_touch_each_other(name: str) -> None:
    together, networks, _ = estimate_of(name, [3, 8])
    together.objective.sum().backward()
    for index, seed in enumerate([3, 8]):
        alone, lone_networks, _ = estimate_of(name, [seed])
        alone.objective.sum().backward()
        torch.testing.assert_close(together.loss[index], alone.loss[0])
        for many, one in zip(networks.parameters(), lone_networks.parameters(), strict=True):
            torch.testing.assert_close(many.grad[index : index + 1], one.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("leading", [(), (4,), (2, 3)])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_any_leading_dimensions(name: str, leading: tuple[int, ...], generator: torch.Generator) -> None:
    n, k = latents(name)
    estimator = ready(name, n, k)
    logits = torch.randn(*leading, n, k, generator=generator, dtype=torch.float64, requires_grad=True)
    loss = TabularLoss(torch.randn(*leading, k**n, generator=generator, dtype=torch.float64), n, k)
    noise = estimator.noise(tuple(logits.shape), PlainNoise(generator, torch.float64))
    first, again = (estimator(logits, loss, noise, STEP) for _ in range(2))
    assert first.objective.shape == leading
    assert first.objective.dtype == torch.float64
    assert torch.equal(first.objective, again.objective)
    (gradient,) = torch.autograd.grad(first.objective.sum(), logits)
    assert gradient.shape == logits.shape


OFTEN = ("direct", "relax")
"""Of which every run of the tests records the derivatives, too: one from losses, and one that differentiates itself."""


@pytest.mark.parametrize("name", ESTIMATORS)
def test_same_objective_when_traced(name: str) -> None:
    """The whole training objective in one graph, as torch.compile records it, against the eager one."""
    assert_traced(name, "eager")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in OFTEN else pytest.mark.slow) for name in ESTIMATORS]
)
def test_same_gradients_when_traced(name: str) -> None:
    """With a graph of the derivatives, which is recorded before they are asked for."""
    assert_traced(name, "aot_eager")


def assert_traced(name: str, backend: str) -> None:
    n, k = latents(name)
    estimator = ready(name, n, k, [3, 8])
    networks = Perceptrons(12, n, k, [], [3, 8])
    images = torch.rand(2, 5, 12, generator=torch.Generator().manual_seed(0)).round()
    noise = estimator.noise((2, 5, n, k), SeedNoise([3, 8], "cpu").restart(0, "noise"))
    config = ObjectiveConfig()

    def objective(images: Tensor, noise: dict[str, Tensor], step: Tensor) -> Tensor:
        loss = Reconstruction(networks, images)
        return training_terms(config, estimator, networks.encode(images), loss, noise, step).objective.sum()

    def gradients(value: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(value, list(networks.parameters()))

    torch.compiler.reset()
    traced = torch.compile(objective, backend=backend, dynamic=False, fullgraph=True)
    found, expected = traced(images, noise, STEP), objective(images, noise, STEP)
    torch.testing.assert_close(found, expected)
    for gradient, reference in zip(gradients(found), gradients(expected), strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-4)
