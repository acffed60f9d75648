"""The importance-weighted bound in training: its value and gradients against enumeration of all tuples of samples."""

import itertools
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

import argmax_vae
from argmax_vae.commands.sweep import summary
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.base import Estimator, importance_weighted_bound
from argmax_vae.estimators.schedules import Constant
from argmax_vae.gradients.cost import decoder_evaluations
from argmax_vae.gradients.settings import LaboratoryConfig
from argmax_vae.latents import relaxed_kl
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


@pytest.mark.parametrize(
    ("baseline", "auxiliary"), [("leave_one_out", 0), ("none", 0), ("moving_average", 0), ("ovis", 0), ("ovis", 1)]
)
@pytest.mark.parametrize(("n", "k", "samples"), [(1, 3, 2), (1, 4, 3), (2, 2, 3)])
def test_the_mean_of_reinforce_is_the_exact_gradient(
    n: int,
    k: int,
    samples: int,
    baseline: str,
    auxiliary: int,
    generator: torch.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To rounding, since the mean is taken over all tuples; the learned prior gets its exact gradient too.

    With any auxiliary codes, since they do not depend on the tuple.
    """
    logits, log_prior, loss = problem(n, k, generator)
    logits.requires_grad_()
    log_prior.requires_grad_()
    exact, probabilities = expected_bound(logits, log_prior, loss, samples)
    expected = torch.autograd.grad(exact, [logits, log_prior])
    estimator = ready("reinforce", n, k, samples=samples, baseline=baseline, auxiliary=auxiliary)
    if baseline == "moving_average":
        estimator.observe(torch.full((4,), 0.7))
    drawn = tuples(loss, samples)
    further = loss.codes[1].expand(auxiliary, len(probabilities), n, k)
    on_all_tuples(estimator, monkeypatch, torch.cat([drawn, further]))
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
    found = ready("reinforce", 1, 2, samples=3).importance_weighted_baseline(losses, losses[:0])
    first = math.log(3) - math.log(math.exp(3) + math.exp(1) + math.exp(5))
    second = math.log(3) - math.log(1 + math.exp(2.5) + math.exp(5))
    last = math.log(3) - math.log(1 + math.exp(1) + math.exp(0.5))
    torch.testing.assert_close(found, torch.tensor([first, second, last], dtype=torch.float64))


@pytest.mark.parametrize("auxiliary", [[], [-2.0], [3.0, 0.5]])
def test_the_baseline_of_ovis_by_hand(auxiliary: list[float]) -> None:
    """With auxiliary samples the mean of −log Ẑ + v in their place; without, what the other weights alone bound."""
    losses = [0.0, -1.0, -5.0]
    estimator = ready("reinforce", 1, 2, samples=3, baseline="ovis", auxiliary=len(auxiliary))
    found = estimator.importance_weighted_baseline(
        *(torch.tensor(values, dtype=torch.float64) for values in (losses, auxiliary))
    )
    for m in range(3):
        others = sum(math.exp(-other) for other in losses[:m] + losses[m + 1 :])
        totals = [(others + math.exp(-value), math.exp(-value)) for value in auxiliary]
        terms = [-math.log(total / 3) + own / total for total, own in totals] or [-math.log(others / 3)]
        assert float(found[m]) == pytest.approx(sum(terms) / len(terms), abs=1e-12)


def test_ovis_has_less_variance_than_vimco_where_weights_are_alike(generator: torch.Generator) -> None:
    """Fifty samples, 4,000 estimates of the same noise: on four such problems it had 0.0004 to 0.009 of it."""
    logits, log_prior, loss = problem(4, 3, generator)
    logits, log_prior, loss.table = 0.3 * logits, (0.3 * log_prior).log_softmax(-1), 0.3 * loss.table
    variances = {}
    for baseline in ("leave_one_out", "ovis"):
        estimator = ready("reinforce", 4, 3, samples=50, baseline=baseline)
        batch = logits.expand(4000, 4, 3).clone().requires_grad_()
        noise = estimator.noise(tuple(batch.shape), PlainNoise(torch.Generator().manual_seed(1), torch.float64))
        objective = training_terms(CONFIG, estimator, batch, loss, noise, STEP, log_prior).objective
        (gradients,) = torch.autograd.grad(objective.sum(), batch)
        variances[baseline] = float(gradients.var(0).sum())
    assert variances["ovis"] < 0.1 * variances["leave_one_out"]


def test_dreg_is_the_gradient_of_the_relaxed_bound(generator: torch.Generator) -> None:
    """One variable of two values and two samples: an integral over two logistic numbers, on a grid of midpoints."""
    points, samples = 300, 2
    middle = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    first = torch.stack([middle.logit().clamp_min(0), (-middle.logit()).clamp_min(0)], -1)
    grid = torch.cartesian_prod(torch.arange(points), torch.arange(points)).T
    noise = {"uniform": torch.exp(-torch.exp(-first))[grid].unsqueeze(-2)}
    logits, log_prior, loss = problem(1, 2, generator)
    logits.requires_grad_()
    log_prior.requires_grad_()
    loss.table.requires_grad_()
    wanted = [logits, log_prior, loss.table]
    log_codes = ((logits + first[grid].unsqueeze(-2)) / 0.75).log_softmax(-1)
    log_weights = -loss(log_codes.exp()) - relaxed_kl(log_codes, logits, 0.75, 0.5, log_prior)
    exact = (math.log(samples) - log_weights.logsumexp(0)).mean()
    expected = torch.autograd.grad(exact, wanted)
    estimator = ready(
        "gumbel_softmax", 1, 2, samples=samples, doubly_reparameterized=True, temperature=Constant(value=0.75)
    )
    batch = logits.expand(points**2, 1, 2)
    terms = training_terms(CONFIG, estimator, batch, loss, noise, STEP, log_prior)
    torch.testing.assert_close(terms.objective.mean(), exact, rtol=1e-12, atol=1e-12)
    found = torch.autograd.grad(terms.objective.mean(), wanted)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)


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


@pytest.mark.parametrize(
    ("name", "choices", "evaluations"),
    [
        ("reinforce", {"samples": 4, "baseline": "ovis", "auxiliary": 3}, 7),
        ("gumbel_softmax", {"samples": 4, "doubly_reparameterized": True}, 4),
    ],
)
def test_what_is_for_this_bound_alone(name: str, choices: dict, evaluations: int) -> None:
    """It is counted with this objective, and refused where there is none: in one's own model and in the laboratory."""
    config = ESTIMATORS[name].config_class(**choices)
    assert decoder_evaluations(config, 3, 2, CONFIG) == evaluations
    (choice,) = (word for word in ("baseline=ovis", "doubly_reparameterized=true") if word.startswith(list(choices)[1]))
    with pytest.raises(UsageError, match=f"{choice} is for the importance-weighted bound"):
        decoder_evaluations(config, 3, 2)
    with pytest.raises(UsageError, match=f"estimator '{name}': {choice} is for the importance-weighted bound"):
        argmax_vae.estimator(name, **choices)
    with pytest.raises(UsageError, match=f"laboratory.variants: .* {choice} is for the importance-weighted bound"):
        LaboratoryConfig(variants=[{"name": name, **choices}])


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
            ["estimator=gumbel_softmax", "estimator.doubly_reparameterized=true", "estimator.straight_through=true"],
            "estimator.doubly_reparameterized=true needs relaxed codes: estimator.straight_through=false",
        ),
        (
            ["estimator=reinforce", "estimator.auxiliary=2"],
            "estimator.auxiliary=2 must be 0 for estimator.baseline=leave_one_out",
        ),
        (
            ["estimator=reinforce", "estimator.baseline=ovis", "objective=analytic"],
            "estimator.baseline=ovis needs objective=importance_weighted; objective.kl is analytic",
        ),
        (
            ["estimator=gumbel_softmax", "estimator.doubly_reparameterized=true", "objective=folded"],
            "estimator.doubly_reparameterized=true needs objective=importance_weighted; objective.kl is folded",
        ),
        (
            ["estimator=reinforce", "estimator.baseline=ovis", "model=mixture", "model.latents=1x4"],
            "estimator.baseline=ovis is for the importance-weighted bound, which model=mixture does not have",
        ),
        (
            ["estimator=reinforce", "model=mixture", "model.latents=1x4"],
            "importance_weighted must be analytic, none, folded or concrete with model=mixture",
        ),
    ],
)
def test_what_does_not_fit_is_a_line(overrides: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=told) as raised:
        cell(tmp_path, "objective=importance_weighted", *overrides)
    assert "\n" not in str(raised.value)
