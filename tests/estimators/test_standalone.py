"""Estimators on a plain function of codes, as somebody uses them in a model of their own."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

import argmax_vae
from argmax_vae import estimator
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS
from helpers import latents
from tabular import TabularLoss

LEADING = (2, 3)


def problem(name: str, generator: torch.Generator, n: int = 2, k: int = 3) -> tuple[Tensor, TabularLoss]:
    """Logits of latents that fit the estimator, and a loss that is a table over all codes."""
    n, k = latents(name, n, k)
    logits = torch.randn(*LEADING, n, k, generator=generator, dtype=torch.float64, requires_grad=True)
    return logits, TabularLoss(torch.randn(*LEADING, k**n, generator=generator, dtype=torch.float64), n, k)


def slope(logits: Tensor, objective: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(objective.sum(), logits)
    return gradient


@pytest.mark.parametrize("one_at_a_time", [False, True])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_plain_function_is_enough(name: str, one_at_a_time: bool, generator: torch.Generator) -> None:
    """The estimate from a plain function is the one from a loss that knows candidates and shared codes."""
    logits, loss = problem(name, generator)
    ready = estimator(name, latents=tuple(logits.shape[-2:]), one_at_a_time=one_at_a_time).double().eval()
    noise = ready.draw(logits, generator)
    found = ready(logits, loss.__call__, noise=noise, step=3)
    expected = ready(logits, loss, noise=noise, step=3)
    assert found.shape == LEADING
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(slope(logits, found), slope(logits, expected))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_defaults_are_enough_for_a_step(name: str) -> None:
    """Noise, step and preparation have defaults; only RELAX and NVIL, which learn networks of n and k, ask for them."""
    if ESTIMATORS[name].learns_from_latents:
        with pytest.raises(UsageError, match=r"give latents=\(n, k\)"):
            estimator(name)
    chosen = estimator(name, latents=(3, 2)) if ESTIMATORS[name].learns_from_latents else estimator(name)
    logits = torch.zeros(4, 3, 2, requires_grad=True)
    weights = torch.ones(3, 2, requires_grad=True)
    chosen(logits, lambda codes: (codes * weights).sum((-2, -1))).mean().backward()
    assert logits.grad is not None and weights.grad is not None
    assert int(chosen.steps_done) == 1


def test_a_generator_decides_the_noise(generator: torch.Generator) -> None:
    logits, loss = problem("direct", generator)
    first, again, other = (
        slope(logits, estimator("direct", epsilon=0.5)(logits, loss, generator=torch.Generator().manual_seed(seed)))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_steps_are_counted_in_training_alone() -> None:
    logits = torch.zeros(1, 2, requires_grad=True)
    schedule = argmax_vae.Linear(start=1.0, end=0.5, steps=2)
    chosen = estimator("direct", epsilon=schedule)

    def epsilon() -> float:
        return float(chosen.estimate(logits, lambda codes: codes.sum((-2, -1))).metrics["epsilon"])

    assert [epsilon() for _ in range(3)] == [1.0, 0.75, 0.5]
    chosen.eval()
    assert [epsilon() for _ in range(2)] == [0.5, 0.5]
    assert int(chosen.steps_done) == 3


def test_a_moving_average_is_remembered() -> None:
    chosen = estimator("reinforce", baseline="moving_average", samples=1, decay=0.0)
    logits = torch.zeros(5, 1, 2, requires_grad=True)
    chosen(logits, lambda codes: 7 + 0 * codes.sum((-2, -1)))
    assert float(chosen.inner.average) == 7
    assert torch.equal(slope(logits, chosen(logits, lambda codes: 7 + 0 * codes.sum((-2, -1)))), torch.zeros(5, 1, 2))


def test_half_precision_logits_are_used_in_float32() -> None:
    logits = torch.zeros(4, 2, 3, dtype=torch.bfloat16, requires_grad=True)
    objective = estimator("gumbel_softmax", temperature=0.5)(logits, lambda codes: codes[..., 0].sum(-1))
    assert objective.dtype == torch.float32
    objective.mean().backward()
    assert logits.grad is not None and logits.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: estimator("dirct"), ["no estimator named 'dirct'", "direct"]),
        (lambda: estimator("direct", eps=1), ["no choice 'eps'", "epsilon"]),
        (lambda: estimator("arm", samples=1), ["no choice 'samples'", "it has none"]),
        (lambda: estimator("direct", epsilon=0), ["epsilon=0", "greater than 0"]),
        (lambda: estimator("disarm")(torch.zeros(2, 3), lambda codes: codes), ["the logits have k = 3"]),
        (lambda: estimator("arm", latents=(2, 3)), ["k = 2"]),
        (lambda: estimator("arm")(torch.zeros(2, 3), lambda codes: codes.sum((-2, -1))), ["k = 2"]),
        (lambda: estimator("relax", latents=(1, 2))(torch.zeros(2, 3), lambda codes: codes.sum((-2, -1))), ["(1, 2)"]),
        (
            lambda: estimator("direct")(torch.zeros(4, 2, 3), lambda codes: codes.sum()),
            ["one loss for each code", "()"],
        ),
        (lambda: estimator("exact")(torch.zeros(2, 3), lambda codes: 1.0), ["float", "one loss for each code"]),
    ],
)
def test_mistakes_are_named_in_one_line(call: object, parts: list[str]) -> None:
    with pytest.raises(UsageError) as raised:
        call()  # type: ignore[operator]
    message = str(raised.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_public_names_are_those_that_are_promised() -> None:
    assert argmax_vae.__all__ == [
        "ESTIMATORS",
        "SCHEDULES",
        "CodeLoss",
        "Constant",
        "Cosine",
        "Dataset",
        "EachSeed",
        "Estimate",
        "Estimator",
        "EstimatorConfig",
        "Exponential",
        "FromLosses",
        "Images",
        "Linear",
        "ModelConfig",
        "Networks",
        "Pathwise",
        "SampledConfig",
        "Schedule",
        "StandaloneEstimator",
        "UsageError",
        "estimator",
    ]
    for name in argmax_vae.__all__:
        assert getattr(argmax_vae, name) is not None
    assert set(argmax_vae.__all__) <= set(dir(argmax_vae))
    with pytest.raises(AttributeError, match="no attribute 'estimators_'"):
        _ = argmax_vae.estimators_


def test_using_an_estimator_needs_few_packages() -> None:
    """Lightning, Hydra, wandb and the rest stay unloaded, and so does every network. Mistakes are named there too."""
    code = """
import sys, torch
from argmax_vae import estimator
estimator("direct", epsilon=0.1)(torch.zeros(2, 3, requires_grad=True), lambda codes: codes.sum((-2, -1))).backward()
heavy = {"pytorch_lightning", "hydra", "omegaconf", "wandb", "tensorboard", "sklearn", "scipy", "matplotlib", "pandas"}
print(sorted(heavy & set(sys.modules)) + [name for name in sys.modules if name.startswith("argmax_vae.models")])
try:
    estimator("direct")(torch.zeros(3), lambda codes: codes)
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "logits (3,) must be (…, n, k): n variables with k values each"]
