"""Relatives of straight-through, whose decoder sees a hard code: decoupled, gapped, and ZGR.

False alarms of the statistical tests 1e-6.
"""

import math

import pytest
import torch
from torch import Tensor

from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.gapped_straight_through import GAPS, expected_gap
from argmax_vae.estimators.schedules import Constant
from argmax_vae.latents import gumbel_from_uniform, one_hot_argmax
from chance import FALSE_ALARM, mean_p_value
from estimators.test_biased import NUMBER, Quadratic, gradients, quadratic
from estimators.test_direct import SHAPES
from helpers import ready
from tabular import code_probabilities, exact_gradient

STEP = torch.tensor(0)


def gradient(name: str, logits: Tensor, loss: Quadratic, noise: dict[str, Tensor], **choices: object) -> Tensor:
    """The gradients of images with these logits (*leading, n, k)."""
    logits = logits.clone().requires_grad_()
    estimate = ready(name, *logits.shape[-2:], **choices)(logits, loss, noise, STEP)
    return torch.autograd.grad(estimate.objective.sum(), logits)[0]


def drawn(number: int, n: int, k: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"uniform": torch.rand((1, number, n, k), generator=generator, dtype=torch.float64)}


def slopes_at(loss: Quadratic, codes: Tensor) -> Tensor:
    """∇θ(z) = (A + Aᵀ)z."""
    return (codes.flatten(-2) @ (loss.matrix + loss.matrix.T)).unflatten(-1, codes.shape[-2:])


def through_softmax(probabilities: Tensor, slopes: Tensor) -> Tensor:
    """(diag(p) − p pᵀ) v."""
    return probabilities * (slopes - (probabilities * slopes).sum(-1, keepdim=True))


@pytest.mark.parametrize(("n", "k"), SHAPES[:2])
def test_zgr_is_the_limit_of_gumbel_rao(n: int, k: int, generator: torch.Generator) -> None:
    """The mean over noise given one code is ZGR's gradient at τ = 0.02, and is not at τ = 1."""
    logits, loss = quadratic(n, k, generator)
    uniform = torch.rand((1, n, k), generator=generator, dtype=torch.float64)
    limit = gradient("zgr", logits, loss, {"uniform": uniform}).flatten()
    inner = torch.rand((1, NUMBER, n, k), generator=generator, dtype=torch.float64)
    noise = {"uniform": uniform.expand(NUMBER, n, k), "inner": inner}
    for temperature, same in ((0.02, True), (1.0, False)):
        choices = {"temperature": Constant(value=temperature), "inner_samples": 1}
        samples = gradient("gumbel_rao", logits.expand(NUMBER, n, k), loss, noise, **choices).flatten(1)
        assert (mean_p_value(samples, limit) > FALSE_ALARM) == same


@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_zgr_is_half_straight_through_and_half_darn(n: int, k: int, generator: torch.Generator) -> None:
    """And it is ReinMax at τ = 1, whose Jacobian is written otherwise."""
    logits, loss = quadratic(n, k, generator)
    noise = drawn(100, n, k, generator)
    codes = one_hot_argmax(logits + gumbel_from_uniform(noise["uniform"][0]))
    probabilities, slopes = logits.softmax(-1), slopes_at(loss, codes)
    score = codes - probabilities
    expected = (through_softmax(probabilities, slopes) + score * (score * slopes).sum(-1, keepdim=True)) / 2
    found = gradient("zgr", logits.expand(100, n, k), loss, noise)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found, gradient("reinmax", logits.expand(100, n, k), loss, noise))


@pytest.mark.parametrize("k", [2, 3, 5])
def test_zgr_is_exact_for_one_variable_and_a_quadratic_loss(k: int, generator: torch.Generator) -> None:
    logits, loss = quadratic(1, k, generator)
    exact = exact_gradient(logits, loss).flatten()
    assert mean_p_value(gradients("zgr", logits, loss), exact) > FALSE_ALARM


@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_decoupled_is_the_mean_slope_at_one_temperature_through_the_softmax_at_another(
    n: int, k: int, generator: torch.Generator
) -> None:
    """Its expectation by enumeration: Σ_z q_f(z) J(softmax(φ/τ))ᵀ ∇θ(z)/τ, q_f = softmax(φ/τ_f)."""
    logits, loss = quadratic(n, k, generator)
    through = through_softmax((logits / 0.5).softmax(-1), slopes_at(loss, loss.codes)) / 0.5
    choices = {"temperature": Constant(value=0.5), "forward_temperature": 2.0}
    samples = gradients("decoupled_straight_through", logits, loss, **choices)
    for forward, same in ((2.0, True), (1.0, False)):
        probabilities = code_probabilities(logits / forward, loss)
        expected = torch.einsum("c,cij->ij", probabilities, through).flatten()
        assert (mean_p_value(samples, expected) > FALSE_ALARM) == same


@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_what_decoupled_is_where_its_temperatures_meet(n: int, k: int, generator: torch.Generator) -> None:
    """With τ_f = 2 and noise in the softmax, ψ = φ/2 are the logits of straight-through Gumbel-Softmax at τ/2."""
    logits, loss = quadratic(n, k, generator)
    batch, noise = logits.expand(100, n, k), drawn(100, n, k, generator)

    def decoupled(**choices: object) -> Tensor:
        return gradient("decoupled_straight_through", batch, loss, noise, **choices)

    def gumbel_softmax(logits: Tensor, temperature: float) -> Tensor:
        schedule = Constant(value=temperature)
        return gradient("gumbel_softmax", logits, loss, noise, straight_through=True, temperature=schedule)

    torch.testing.assert_close(decoupled(), gradient("straight_through", batch, loss, noise))
    within = {"surrogate": "gumbel_softmax", "temperature": Constant(value=0.5)}
    torch.testing.assert_close(decoupled(**within), gumbel_softmax(batch, 0.5))
    torch.testing.assert_close(decoupled(**within, forward_temperature=2.0), gumbel_softmax(batch / 2, 0.25) / 2)


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_gapped_moves_the_logits_as_written(n: int, k: int, gap: str, generator: torch.Generator) -> None:
    """Every variable and value on its own: the drawn one up to the largest, others at least the gap below it."""
    logits, loss = quadratic(n, k, generator)
    noise = drawn(30, n, k, generator)
    codes = one_hot_argmax(logits + gumbel_from_uniform(noise["uniform"][0]))
    moved = logits.expand(30, n, k).clone()
    for image in range(30):
        for i in range(n):
            value, top = int(codes[image, i].argmax()), float(logits[i].max())
            p = float(logits[i].softmax(-1)[value])
            size = 0.8 if gap == "constant" else -math.log(1 - p) / p
            for j in range(k):
                moved[image, i, j] = top if j == value else min(float(logits[i, j]), top - size)
    assert torch.equal(moved.argmax(-1), codes.argmax(-1))
    expected = through_softmax((moved / 0.7).softmax(-1), slopes_at(loss, codes)) / 0.7
    choices = {"gap": gap, "gap_size": 0.8, "temperature": Constant(value=0.7)}
    found = gradient("gapped_straight_through", logits.expand(30, n, k), loss, noise, **choices)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("k", [2, 5])
def test_expected_gap_is_that_of_gumbel_scores(k: int, generator: torch.Generator) -> None:
    """The mean difference of the two largest scores, for every code of one variable."""
    logits = torch.randn(1, k, generator=generator, dtype=torch.float64)
    uniform = torch.rand((NUMBER, 1, k), generator=generator, dtype=torch.float64)
    scores = logits + gumbel_from_uniform(uniform)
    best, codes = scores.topk(2, -1).values, one_hot_argmax(scores)
    for value in range(k):
        gaps = (best[..., 0] - best[..., 1])[codes[:, 0, value] > 0]
        expected = expected_gap(logits, torch.eye(k, dtype=torch.float64)[None, value : value + 1]).flatten()
        assert mean_p_value(gaps, expected) > FALSE_ALARM
        assert mean_p_value(1.1 * gaps, expected) < FALSE_ALARM


@pytest.mark.parametrize("probability", [1e-12, 1e-6, 0.3, 0.7, 1 - 1e-6])
def test_expected_gap_is_as_exact_in_single_precision(probability: float) -> None:
    logits = torch.tensor([[math.log(probability), math.log1p(-probability)]], dtype=torch.float64)
    found = expected_gap(logits.float(), torch.tensor([[[1.0, 0.0]]]))
    assert found.item() == pytest.approx(-math.log1p(-probability) / probability, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "choices", "message"),
    [
        ("zgr", {"samples": 0}, "estimator.samples=0 must be at least 1"),
        (
            "decoupled_straight_through",
            {"forward_temperature": 0.0},
            "estimator.forward_temperature=0.0 must be greater than 0",
        ),
        (
            "decoupled_straight_through",
            {"surrogate": "none"},
            "estimator.surrogate=none must be one of softmax, gumbel_softmax",
        ),
        ("gapped_straight_through", {"gap": "none"}, "estimator.gap=none must be one of constant, expected"),
        ("gapped_straight_through", {"gap_size": 0.0}, "estimator.gap_size=0.0 must be greater than 0"),
    ],
)
def test_wrong_choices(name: str, choices: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        ESTIMATORS[name].config_class(**choices)
    assert str(raised.value).startswith(message)
