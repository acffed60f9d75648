"""Estimators that claim to be unbiased, against enumeration, and tests that know a wrong one when they see it.

The loss is a random table over all codes. Joint chi-square tests of the mean of 100,000 estimates, or more where that
is not enough to find a wrong one; false alarms 1e-6.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from argmax_vae.counter_noise import CounterStreams
from argmax_vae.estimators import ESTIMATORS, rebar
from argmax_vae.estimators.base import Estimator
from argmax_vae.estimators.schedules import Constant
from argmax_vae.randomness import PlainNoise
from chance import FALSE_ALARM, mean_p_value
from helpers import latents, ready
from tabular import TabularLoss, exact_gradient

STEP = torch.tensor(0)
NUMBER, MANY = 100_000, 400_000
UNBIASED: dict[str, tuple[str, dict[str, Any]]] = {
    "reinforce without baseline": ("reinforce", {"baseline": "none", "samples": 1}),
    "reinforce, moving average": ("reinforce", {"baseline": "moving_average", "samples": 2}),
    "reinforce, leave one out": ("reinforce", {"baseline": "leave_one_out", "samples": 3}),
    "rebar, categorical": ("rebar", {}),
    "rebar, binary": ("rebar", {"parameterization": "binary", "initial_temperature": 0.7}),
    "relax, categorical": ("relax", {"initial_eta": 0.8}),
    "relax, binary": ("relax", {"parameterization": "binary", "surrogate": [5, 4]}),
    "arm": ("arm", {}),
    "arsm": ("arsm", {}),
    "ars": ("arsm", {"reference": "one"}),
    "disarm": ("disarm", {}),
    "local expectation": ("local_expectation", {}),
    "straight-through, where the loss is linear in each code": ("straight_through", {}),
    "direct as a control variate": (
        "direct_control_variate",
        {"epsilon": Constant(value=0.7), "samples": 2, "initial_eta": 0.6},
    ),
    "double control variates": ("double_control_variates", {"samples": 3, "initial_alpha": 0.7}),
    "rodeo": ("rodeo", {"samples": 2, "hidden": [3]}),
    "disarm, categorical": ("disarm_categorical", {}),
    "carms": ("carms", {"samples": 3}),
    "unordered set": ("unordered_set", {"samples": 3}),
    "sum and sample": ("sum_and_sample", {"samples": 3}),
    "nvil": ("nvil", {"hidden": [5], "samples": 2}),
    "exact": ("exact", {}),
}
SIZES = [(1, 2), (1, 4), (3, 2), (2, 3)]


def chosen(which: str, n: int, k: int) -> Estimator:
    """An estimator as UNBIASED has it, with learned and remembered values away from where they start."""
    name, choices = UNBIASED[which]
    estimator = ready(name, n, k, **choices).eval()
    if name == "relax":
        estimator.scale.data.fill_(0.5)
    if name == "rodeo":
        estimator.alpha.data.fill_(2.0)
        estimator.beta.data.fill_(-0.3)
    if choices.get("baseline") == "moving_average":
        for value in (0.3, 0.9):
            estimator.observe(torch.full((4,), value))
    return estimator


def problem(n: int, k: int, generator: torch.Generator) -> tuple[Tensor, TabularLoss]:
    logits = torch.randn(n, k, generator=generator, dtype=torch.float64)
    return logits, TabularLoss(torch.randn(k**n, generator=generator, dtype=torch.float64), n, k)


def gradients(estimator: Estimator, logits: Tensor, loss: TabularLoss, number: int = NUMBER, seed: int = 0) -> Tensor:
    """The gradients of `number` images that share logits and loss: (number, n·k)."""
    batch = logits.expand(number, *logits.shape).clone().requires_grad_()
    noise = estimator.noise(tuple(batch.shape), PlainNoise(torch.Generator().manual_seed(seed), torch.float64))
    (gradient,) = torch.autograd.grad(estimator(batch, loss, noise, STEP).objective.sum(), batch)
    return gradient.flatten(1)


def applies(which: str, n: int, k: int) -> bool:
    name, choices = UNBIASED[which]
    return k == 2 or (latents(name, n, k) == (n, k) and choices.get("parameterization") != "binary")


CASES = [(which, n, k) for which in UNBIASED for n, k in SIZES if applies(which, n, k)]


@pytest.mark.parametrize(("which", "n", "k"), CASES)
def test_mean_is_the_exact_gradient(which: str, n: int, k: int, generator: torch.Generator) -> None:
    """For three binary variables an error of 2 % is found: see the test below."""
    logits, loss = problem(n, k, generator)
    assert (
        mean_p_value(gradients(chosen(which, n, k), logits, loss), exact_gradient(logits, loss).flatten()) > FALSE_ALARM
    )


@pytest.mark.parametrize("which", ["disarm", "rebar, categorical"])
def test_mean_with_noise_from_counters(which: str, generator: torch.Generator) -> None:
    """The numbers of one step and seed, for 100,000 images."""
    number = 100_000
    logits, loss = problem(3, 2, generator)
    source = CounterStreams([3], torch.tensor(7)).of_step("noise")
    batch = logits.expand(1, number, 3, 2).clone().requires_grad_()
    estimator = chosen(which, 3, 2)
    noise = {name: values.double() for name, values in estimator.noise((1, number, 3, 2), source).items()}
    (gradient,) = torch.autograd.grad(estimator(batch, loss, noise, STEP).objective.sum(), batch)
    assert mean_p_value(gradient[0].flatten(1), exact_gradient(logits, loss).flatten()) > FALSE_ALARM


@pytest.mark.parametrize(("which", "n", "k"), [case for case in CASES if case[1:] == (3, 2)])
def test_an_error_of_two_percent_would_be_found(which: str, n: int, k: int, generator: torch.Generator) -> None:
    """On a gradient made large by a table with one direction, each estimator's mean of estimates 2 % off is refused."""
    logits = torch.zeros(n, k, dtype=torch.float64)
    loss = TabularLoss(torch.linspace(-1, 1, k**n, dtype=torch.float64), n, k)
    expected = exact_gradient(logits, loss).flatten()

    def refused(number: int) -> list[bool]:
        samples = gradients(chosen(which, n, k), logits, loss, number)
        assert mean_p_value(samples, expected) > FALSE_ALARM
        return [mean_p_value(factor * samples, expected) < FALSE_ALARM for factor in (1.02, 0.98)]

    assert all(refused(NUMBER)) or all(refused(MANY))


@pytest.mark.parametrize("parameterization", ["categorical", "binary"])
@pytest.mark.parametrize("name", ["rebar", "relax"])
def test_without_the_derivative_of_the_conditional_scores_it_is_biased(
    name: str, parameterization: str, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """z̃ depends on the logits through its noise; an estimator that forgets ∂z̃/∂φ is refused."""
    logits, loss = problem(3, 2, generator)
    for function in ("conditional_gumbel_scores", "conditional_logistic_scores"):
        original: Callable[..., Tensor] = getattr(rebar, function)
        monkeypatch.setattr(
            rebar, function, lambda *arguments, right=original: right(*arguments).detach() + 0 * arguments[0]
        )
    estimator = ready(name, 3, 2, parameterization=parameterization).eval()
    assert mean_p_value(gradients(estimator, logits, loss), exact_gradient(logits, loss).flatten()) < FALSE_ALARM


def test_a_baseline_that_contains_its_own_sample_is_found(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, loss = problem(3, 2, generator)
    estimator = ready("reinforce", 3, 2, samples=3)
    monkeypatch.setattr(estimator, "baseline", lambda losses: losses.mean(0, keepdim=True))
    assert mean_p_value(gradients(estimator, logits, loss), exact_gradient(logits, loss).flatten()) < FALSE_ALARM


def test_losses_averaged_over_the_batch_stay_unbiased(generator: torch.Generator) -> None:
    """`reduction=batch`: many batches of four images with one score each; the variance is far larger."""
    logits, loss = problem(3, 2, generator)
    shape = (NUMBER // 4, 4, 3, 2)
    batch = logits.expand(shape).clone().requires_grad_()
    found = {}
    for reduction in ("batch", "image"):
        estimator = ready("rebar", 3, 2, reduction=reduction).eval()
        noise = estimator.noise(shape, PlainNoise(torch.Generator().manual_seed(0), torch.float64))
        (gradient,) = torch.autograd.grad(estimator(batch, loss, noise, STEP).objective.sum(), batch)
        found[reduction] = gradient.mean(1).flatten(1)
        assert mean_p_value(found[reduction], exact_gradient(logits, loss).flatten()) > FALSE_ALARM
    assert found["batch"].var(0).sum() > 1.5 * found["image"].var(0).sum()


def test_every_estimator_without_a_bias_is_here() -> None:
    perturbed = {"direct", "direct_rao_blackwell", "imle"}
    relaxed = {"gumbel_softmax", "gumbel_rao", "zgr", "reinmax"}
    hard = {"decoupled_straight_through", "gapped_straight_through"}
    assert {name for name, _ in UNBIASED.values()} == set(ESTIMATORS) - perturbed - relaxed - hard
