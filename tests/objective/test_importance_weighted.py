"""The importance-weighted bound in training: its value and gradients against enumeration of all tuples of samples."""

import itertools
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from argmax_vae.commands.sweep import summary
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.base import Estimator, importance_weighted_bound
from argmax_vae.objective.terms import ObjectiveConfig, Weighed, training_terms
from argmax_vae.randomness import PlainNoise
from helpers import cell, metrics, ready, seeds, train
from tabular import TabularLoss

STEP = torch.tensor(0)
CONFIG = ObjectiveConfig(kl="importance_weighted")
ABLE = [name for name in ESTIMATORS if ESTIMATORS[name].has_importance_weighted]


def problem(n: int, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor, TabularLoss]:
    """Logits, log-probabilities of a prior that is not uniform, and losses of all codes."""
    logits = torch.randn(n, k, generator=generator, dtype=torch.float64)
    log_prior = torch.randn(n, k, generator=generator, dtype=torch.float64).log_softmax(-1)
    return logits, log_prior, TabularLoss(torch.randn(k**n, generator=generator, dtype=torch.float64), n, k)


def tuples(loss: TabularLoss, samples: int) -> Tensor:
    """All tuples of codes: (samples, tuples, n, k)."""
    chosen = torch.tensor(list(itertools.product(range(len(loss.codes)), repeat=samples)))
    return loss.codes[chosen].movedim(1, 0)


def expected_bound(logits: Tensor, log_prior: Tensor, loss: TabularLoss, samples: int) -> tuple[Tensor, Tensor]:
    """E[−log (1/M) Σ w] over all tuples of M codes, differentiable, and the probability of every tuple."""
    codes = tuples(loss, samples)
    log_q = (logits.log_softmax(-1) * codes).sum((-2, -1))
    log_weights = (log_prior * codes).sum((-2, -1)) - loss(codes) - log_q
    bounds = math.log(samples) - log_weights.exp().sum(0).log()
    probabilities = log_q.sum(0).exp()
    return (probabilities * bounds).sum(), probabilities


def on_all_tuples(estimator: Estimator, monkeypatch: pytest.MonkeyPatch, codes: Tensor) -> None:
    """Let an estimator draw every tuple of codes once."""
    monkeypatch.setattr(estimator, "codes", lambda *_: codes)


@pytest.mark.parametrize("baseline", ["leave_one_out", "none", "moving_average"])
@pytest.mark.parametrize(("n", "k", "samples"), [(1, 3, 2), (1, 4, 3), (2, 2, 3)])
def test_the_mean_of_vimco_is_the_exact_gradient(
    n: int, k: int, samples: int, baseline: str, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To rounding, since the mean is taken over all tuples; the learned prior gets its exact gradient too."""
    logits, log_prior, loss = problem(n, k, generator)
    logits.requires_grad_()
    log_prior.requires_grad_()
    exact, probabilities = expected_bound(logits, log_prior, loss, samples)
    expected = torch.autograd.grad(exact, [logits, log_prior])
    estimator = ready("reinforce", n, k, samples=samples, baseline=baseline)
    if baseline == "moving_average":
        estimator.observe(torch.full((4,), 0.7))
    on_all_tuples(estimator, monkeypatch, tuples(loss, samples))
    batch = logits.expand(len(probabilities), n, k)
    terms = training_terms(CONFIG, estimator, batch, loss, {}, STEP, log_prior)
    weights = probabilities.detach()
    torch.testing.assert_close((weights * (terms.reconstruction + terms.kl)).sum(), exact.detach())
    found = torch.autograd.grad((weights * terms.objective).sum(), [logits, log_prior])
    torch.testing.assert_close(found, expected)


def test_without_the_derivative_of_the_weights_it_is_biased(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Σ_m w̃_m ∇ log q(z_m), which the score of one sample may leave out, is a part of the gradient of several."""
    logits, log_prior, loss = problem(1, 3, generator)
    logits.requires_grad_()
    exact, probabilities = expected_bound(logits, log_prior, loss, 2)
    (expected,) = torch.autograd.grad(exact, logits)
    estimator = ready("reinforce", 1, 3, samples=2)
    on_all_tuples(estimator, monkeypatch, tuples(loss, 2))
    batch = logits.expand(len(probabilities), 1, 3)
    weighed = Weighed(loss, batch.detach(), log_prior)
    estimate = estimator.importance_weighted(batch, weighed, {}, STEP)
    (found,) = torch.autograd.grad((probabilities.detach() * estimate.objective).sum(), logits)
    assert (found - expected).abs().max() > 0.01


def test_the_baseline_of_vimco_by_hand() -> None:
    """M = 3, log w = 0, 1, 5: the first is replaced by the mean 3 of the others."""
    losses = torch.tensor([0.0, -1.0, -5.0], dtype=torch.float64)
    found = ready("reinforce", 1, 2, samples=3).importance_weighted_baseline(losses)
    first = math.log(3) - math.log(math.exp(3) + math.exp(1) + math.exp(5))
    second = math.log(3) - math.log(1 + math.exp(2.5) + math.exp(5))
    last = math.log(3) - math.log(1 + math.exp(1) + math.exp(0.5))
    torch.testing.assert_close(found, torch.tensor([first, second, last], dtype=torch.float64))


def test_its_baseline_lowers_the_variance(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enumerated, with losses that have a large mean."""
    logits, log_prior, loss = problem(2, 2, generator)
    loss.table += 50
    _, probabilities = expected_bound(logits, log_prior, loss, 3)
    variances = {}
    for baseline in ("leave_one_out", "none"):
        estimator = ready("reinforce", 2, 2, samples=3, baseline=baseline)
        on_all_tuples(estimator, monkeypatch, tuples(loss, 3))
        batch = logits.expand(len(probabilities), 2, 2).clone().requires_grad_()
        objective = training_terms(CONFIG, estimator, batch, loss, {}, STEP, log_prior).objective
        (gradients,) = torch.autograd.grad(objective.sum(), batch)
        mean = torch.einsum("t,tnk->nk", probabilities, gradients)
        variances[baseline] = (probabilities * (gradients - mean).square().sum((-2, -1))).sum()
    assert variances["leave_one_out"] < 0.01 * variances["none"]


@pytest.mark.parametrize("name", ABLE)
def test_the_objective_is_the_bound_of_the_samples(name: str, generator: torch.Generator) -> None:
    """And one sample, or M times the same code, gives −log w, which is the folded objective's value."""
    logits, log_prior, loss = problem(2, 2, generator)
    batch = logits.expand(5, 2, 2).clone().requires_grad_()
    estimator = ready(name, 2, 2, samples=4)
    noise = estimator.noise(tuple(batch.shape), PlainNoise(generator, torch.float64))
    terms = training_terms(CONFIG, estimator, batch, loss, noise, STEP, log_prior)
    assert terms.objective.shape == (5,)
    torch.testing.assert_close(terms.objective.detach(), terms.reconstruction + terms.kl)
    torch.autograd.grad(terms.objective.sum(), batch)
    same = {key: values[:1].expand_as(values).clone() for key, values in noise.items()}
    several = training_terms(CONFIG, estimator, batch, loss, same, STEP, log_prior)
    folded = training_terms(ObjectiveConfig(kl="folded"), estimator, batch, loss, same, STEP, log_prior)
    torch.testing.assert_close(several.objective, folded.objective)


def test_the_bound_of_weights_by_hand() -> None:
    losses = torch.tensor([[0.0, 700.0], [math.log(2), 702.0]], dtype=torch.float64)
    expected = torch.tensor([-math.log(0.75), 700 + math.log(2) - math.log1p(math.exp(-2))], dtype=torch.float64)
    torch.testing.assert_close(importance_weighted_bound(losses), expected)


def test_a_run_reports_the_bound_that_it_trains_beside_the_plain_one(tmp_path: Path) -> None:
    """The weighted bound is tighter (Burda et al. 2015, theorem 1), and chooses the networks that are kept."""
    chosen = ("estimator=reinforce", "objective=importance_weighted", "estimator.samples=5", "seeds=[0,1]")
    run = train(tmp_path, *chosen, "trainer.epochs=3")
    assert run.status == "done"
    curves, final = metrics(run), seeds(run)
    for split in ("validation", "test"):
        assert (curves[f"{split}_importance_weighted"] < curves[f"{split}_bound"]).all()
    assert (final["test_importance_weighted"] < final["test_bound"]).all()
    assert ", importance-weighted " in summary(run)
    best = curves.loc[curves.groupby("seed")["validation_importance_weighted"].idxmin()]
    pd.testing.assert_series_equal(
        best["epoch"].reset_index(drop=True), final["best_epoch"], check_names=False, check_dtype=False
    )


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["estimator=direct"], "objective.kl=importance_weighted: estimator=direct has no gradient of that bound"),
        (
            ["estimator=reinforce", "model=mixture"],
            "importance_weighted must be another with model=mixture",
        ),
    ],
)
def test_what_does_not_fit_is_a_line(overrides: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=told) as raised:
        cell(tmp_path, "objective=importance_weighted", *overrides, *(["model.latents=1x4"] * (len(overrides) - 1)))
    assert "\n" not in str(raised.value)
