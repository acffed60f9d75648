"""Gumbel-Softmax: values and gradients against the softmax's Jacobian written out, in float64."""

import pytest
import torch
from torch import Tensor

from argmax_vae.errors import UsageError
from argmax_vae.estimators.base import CodeLoss
from argmax_vae.estimators.gumbel_softmax import GumbelSoftmax, GumbelSoftmaxConfig
from argmax_vae.estimators.schedules import Constant
from argmax_vae.latents import gumbel_from_uniform, sample_codes
from argmax_vae.models.discrete import Perceptrons
from argmax_vae.models.reconstruction import Reconstruction
from argmax_vae.randomness import PlainNoise
from tabular import TabularLoss

STEP = torch.tensor(0)
LEADING = (2, 5)


def gumbel_softmax(temperature: float, straight_through: bool = False, samples: int = 1) -> GumbelSoftmax:
    schedule = Constant(value=temperature)
    return GumbelSoftmax(GumbelSoftmaxConfig(temperature=schedule, straight_through=straight_through, samples=samples))


class Recorded:
    """A loss that remembers the codes it was asked for."""

    def __init__(self, loss: CodeLoss) -> None:
        self.loss = loss

    def __call__(self, codes: Tensor) -> Tensor:
        self.codes = codes.detach()
        return self.loss(codes)

    def with_candidates(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        return self.loss.with_candidates(codes)

    def shared(self, codes: Tensor) -> Tensor:
        return self.loss.shared(codes)


def problem(
    n: int, k: int, generator: torch.Generator, decoder: bool = True
) -> tuple[Tensor, Recorded, dict[str, Tensor]]:
    """Logits, a loss (of a decoder with a hidden layer, or a table) and noise of three samples."""
    logits = torch.randn(*LEADING, n, k, generator=generator, dtype=torch.float64, requires_grad=True)
    networks = Perceptrons(20, n, k, [7], [0, 1]).double()
    images = torch.rand(*LEADING, 20, generator=generator, dtype=torch.float64).round()
    table = torch.randn(*LEADING, k**n, generator=generator, dtype=torch.float64)
    loss: CodeLoss = Reconstruction(networks, images) if decoder else TabularLoss(table, n, k)
    noise = gumbel_softmax(1.0, samples=3).noise(tuple(logits.shape), PlainNoise(generator, torch.float64))
    return logits, Recorded(loss), noise


def relaxed(logits: Tensor, noise: dict[str, Tensor], temperature: float) -> Tensor:
    scores = (logits.detach() - torch.log(-torch.log(noise["uniform"]))) / temperature
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True)


def chain_rule(codes: Tensor, slope: Tensor, temperature: float) -> Tensor:
    """(diag y − y yᵀ) ∂θ/∂y / τ, the gradient with respect to φ."""
    return (codes * slope - codes * (codes * slope).sum(-1, keepdim=True)) / temperature


def slope_at(loss: CodeLoss, codes: Tensor) -> Tensor:
    codes = codes.detach().requires_grad_()
    return torch.autograd.grad(loss(codes).sum(), codes)[0]


@pytest.mark.parametrize("decoder", [False, True])
@pytest.mark.parametrize("temperature", [0.125, 0.5, 1.0])
@pytest.mark.parametrize(("n", "k"), [(1, 4), (2, 3), (3, 2)])
def test_gradient_of_relaxed_codes(
    n: int, k: int, temperature: float, decoder: bool, generator: torch.Generator
) -> None:
    logits, loss, noise = problem(n, k, generator, decoder)
    estimate = gumbel_softmax(temperature, samples=3)(logits, loss, noise, STEP)
    codes = relaxed(logits, noise, temperature)
    torch.testing.assert_close(loss.codes, codes)
    torch.testing.assert_close(estimate.objective, loss.loss(codes).mean(0))
    assert estimate.relaxed_log_codes is not None
    torch.testing.assert_close(estimate.relaxed_log_codes.exp(), codes)
    assert estimate.temperature is not None
    assert estimate.temperature.item() == temperature
    (gradient,) = torch.autograd.grad(estimate.objective.sum(), logits)
    torch.testing.assert_close(gradient, chain_rule(codes, slope_at(loss.loss, codes), temperature).mean(0))


@pytest.mark.parametrize("decoder", [False, True])
@pytest.mark.parametrize("temperature", [0.125, 1.0])
def test_straight_through(temperature: float, decoder: bool, generator: torch.Generator) -> None:
    """The decoder sees the hard code; its slope there goes through the Jacobian of the relaxed code."""
    logits, loss, noise = problem(2, 3, generator, decoder)
    estimate = gumbel_softmax(temperature, straight_through=True, samples=3)(logits, loss, noise, STEP)
    hard = sample_codes(logits, gumbel_from_uniform(noise["uniform"]))
    torch.testing.assert_close(loss.codes, hard)
    torch.testing.assert_close(estimate.loss, loss.loss(hard).mean(0))
    (gradient,) = torch.autograd.grad(estimate.objective.sum(), logits)
    codes = relaxed(logits, noise, temperature)
    torch.testing.assert_close(gradient, chain_rule(codes, slope_at(loss.loss, hard), temperature).mean(0))


def test_low_temperatures_give_the_hard_codes(generator: torch.Generator) -> None:
    """Off by at most (k − 1) exp(−gap/τ), the gap that between the two best scores."""
    logits, loss, noise = problem(2, 3, generator)
    hard = sample_codes(logits, gumbel_from_uniform(noise["uniform"]))
    best = (logits.detach() + gumbel_from_uniform(noise["uniform"])).topk(2, -1).values
    gap = (best[..., 0] - best[..., 1]).unsqueeze(-1)
    for temperature in (0.5, 0.125, 2.0**-7):
        gumbel_softmax(temperature, samples=3)(logits, loss, noise, STEP)
        assert ((loss.codes - hard).abs() <= 2 * torch.exp(-gap / temperature) + 1e-12).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_two_values_are_a_sigmoid_of_logistic_noise(temperature: float, generator: torch.Generator) -> None:
    """y₁ = σ((φ₁ − φ₀ + γ₁ − γ₀)/τ)."""
    logits, loss, noise = problem(3, 2, generator)
    gumbel_softmax(temperature, samples=3)(logits, loss, noise, STEP)
    gumbel = gumbel_from_uniform(noise["uniform"])
    logistic = gumbel[..., 1] - gumbel[..., 0]
    difference = logits.detach()[..., 1] - logits.detach()[..., 0]
    torch.testing.assert_close(loss.codes[..., 1], torch.sigmoid((difference + logistic) / temperature))


def test_number_of_samples() -> None:
    with pytest.raises(UsageError, match=r"^estimator\.samples=0 must be at least 1$"):
        GumbelSoftmaxConfig(samples=0)
