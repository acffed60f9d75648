"""A learned prior: its divergence, gradients, bounds and samples, against enumeration and closed forms."""

from pathlib import Path
from typing import Any

import pytest
import torch

from argmax_vae.errors import UsageError
from argmax_vae.estimators.exact import Exact, ExactConfig
from argmax_vae.latents import all_codes, exp_concrete_log_density, kl_to_prior, kl_to_uniform, relaxed_kl
from argmax_vae.models.discrete import ModelConfig, Perceptrons
from argmax_vae.models.mixture import MixtureConfig
from argmax_vae.models.reconstruction import Reconstruction
from argmax_vae.objective.bounds import bound_sums, importance_weights
from argmax_vae.objective.terms import ObjectiveConfig, training_terms
from argmax_vae.randomness import SeedNoise
from argmax_vae.runs.checkpoints import load_checkpoint
from argmax_vae.runs.directory import identity
from helpers import cell, metrics, same_numbers, train
from tabular import TabularLoss, code_probabilities, expected_loss

STEP = torch.tensor(0)


def random(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("n", "k"), [(1, 4), (3, 2), (2, 3)])
def test_divergence_by_enumeration(n: int, k: int, generator: torch.Generator) -> None:
    logits, log_prior = random(generator, 5, n, k), random(generator, n, k).log_softmax(-1)
    codes = all_codes(n, k).double()
    log_q = torch.einsum("bij,cij->bc", logits.log_softmax(-1), codes)
    log_p = torch.einsum("ij,cij->c", log_prior, codes)
    torch.testing.assert_close(kl_to_prior(logits, log_prior), (log_q.exp() * (log_q - log_p)).sum(-1))
    uniform = torch.full_like(log_prior, 1 / k).log()
    torch.testing.assert_close(kl_to_prior(logits, uniform), kl_to_uniform(logits))
    torch.testing.assert_close(kl_to_prior(logits, None), kl_to_uniform(logits))
    assert kl_to_prior(log_prior + 3, log_prior).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kl", ["analytic", "folded"])
def test_the_objective_and_its_gradients(kl: str, generator: torch.Generator) -> None:
    """−ELBO by enumeration, also in the prior, with the exact estimator; the best prior is the mean of q."""
    logits, prior_logits = random(generator, 5, 2, 3).requires_grad_(), random(generator, 2, 3).requires_grad_()
    loss = TabularLoss(random(generator, 5, 9), 2, 3)
    log_prior = prior_logits.log_softmax(-1)
    q = code_probabilities(logits, loss)
    log_p = (log_prior * loss.codes).sum((-2, -1))
    expected = expected_loss(logits, loss) + (q * (q.log() - log_p)).sum(-1)
    terms = training_terms(ObjectiveConfig(kl=kl), Exact(ExactConfig()), logits, loss, {}, STEP, log_prior)
    torch.testing.assert_close(terms.objective, expected)
    variables = [logits, prior_logits]
    found = torch.autograd.grad(terms.objective.sum(), variables, retain_graph=True)
    torch.testing.assert_close(found, torch.autograd.grad(expected.sum(), variables, retain_graph=True))
    torch.testing.assert_close(found[1] / 5, (prior_logits.softmax(-1) - logits.softmax(-1).mean(0)).detach())


def test_the_relaxed_divergence_has_the_prior_as_its_centre(generator: torch.Generator) -> None:
    logits, log_prior = random(generator, 5, 2, 3), random(generator, 2, 3).log_softmax(-1)
    log_codes = random(generator, 4, 5, 2, 3).log_softmax(-1)
    expected = exp_concrete_log_density(log_codes, logits, 0.6) - exp_concrete_log_density(log_codes, log_prior, 0.4)
    torch.testing.assert_close(relaxed_kl(log_codes, logits, 0.6, 0.4, log_prior), expected.sum(-1))


@torch.no_grad()
def test_the_reported_bounds(generator: torch.Generator) -> None:
    """The exact bound of one variable; and weights whose sum over all codes, times q, is p(x)."""
    networks = Perceptrons(6, 1, 4, [], [3, 8]).learn_prior(2)
    assert networks.prior_logits is not None
    networks.prior_logits.copy_(torch.randn(2, 1, 4, generator=generator))
    images = torch.rand(2, 5, 6, generator=generator).round()
    noise = SeedNoise([3, 8], "cpu").restart(0, "test")
    sums = bound_sums(networks, images, 1, noise)
    logits, log_prior = networks.encode(images), networks.log_prior
    losses = Reconstruction(networks, images).shared(torch.eye(4).unsqueeze(1))
    q, log_p = logits.softmax(-1).squeeze(-2), log_prior.squeeze(-2)
    torch.testing.assert_close(sums.kl, (q * (q.log() - log_p)).sum((1, 2)).double(), rtol=1e-5, atol=1e-5)
    codes = torch.eye(4).reshape(4, 1, 1, 1, 4).expand(4, 2, 5, 1, 4)
    weights = importance_weights(losses.movedim(-1, 0), logits, codes, log_prior)
    marginal = (weights + q.log().movedim(-1, 0)).logsumexp(0)
    torch.testing.assert_close(marginal, (log_p - losses).logsumexp(-1))


def test_a_run_learns_keeps_and_shows_its_prior(tmp_path: Path) -> None:
    """Each seed has its own, whatever its neighbours; the bound is no worse than with the uniform prior."""
    both = train(tmp_path, "model.prior=learned", "seeds=[0,1]", "trainer.epochs=10", "trainer.evaluate_every=5")
    kept = load_checkpoint(both.best)["networks"]["prior_logits"]
    assert kept.shape == (2, 3, 4)
    assert (kept != 0).any()
    assert (kept[0] != kept[1]).any()
    alone = train(tmp_path, "model.prior=learned", "seeds=[1]", "trainer.epochs=10", "trainer.evaluate_every=5")
    lone = load_checkpoint(alone.best)["networks"]["prior_logits"]
    torch.testing.assert_close(lone[0], kept[1], rtol=1e-3, atol=1e-4)
    uniform = train(tmp_path, "seeds=[0,1]", "trainer.epochs=10", "trainer.evaluate_every=5")
    means = [metrics(run).query("epoch == 10")["validation_bound"].mean() for run in (both, uniform)]
    assert means[0] < means[1] + 0.1
    assert (both.path / "samples.png").stat().st_size > 0


def test_the_same_run_again_gives_the_same_numbers(tmp_path: Path) -> None:
    first, second = (train(tmp_path / name, "model.prior=learned") for name in ("a", "b"))
    same_numbers(first, second)


def test_a_uniform_prior_is_no_part_of_the_identity(tmp_path: Path) -> None:
    plain = cell(tmp_path).config_dict
    without: dict[str, Any] = {**plain, "model": {k: v for k, v in plain["model"].items() if k != "prior"}}
    assert identity(plain) == identity(without)
    assert identity(cell(tmp_path, "model.prior=learned").config_dict) != identity(plain)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["model.prior=flat"], "model.prior=flat must be one of uniform, learned"),
        (
            ["objective=none"],
            "objective.kl=none must be one that is trained, such as analytic, with",
        ),
    ],
)
def test_what_does_not_fit_is_a_line(overrides: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=told) as raised:
        cell(tmp_path, "model.prior=learned", *overrides)
    assert "\n" not in str(raised.value)


def test_mixtures_have_a_uniform_prior() -> None:
    assert ModelConfig(prior="learned").prior == "learned"
    with pytest.raises(UsageError, match=r"model\.prior=learned must be uniform for a mixture"):
        MixtureConfig(prior="learned")
