"""Samples, divergences and densities against torch.distributions, scipy and enumeration."""

import itertools
import math

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import (
    Categorical,
    Independent,
    OneHotCategorical,
    RelaxedOneHotCategorical,
    kl_divergence,
)
from torch.distributions.relaxed_bernoulli import LogitRelaxedBernoulli
from torch.distributions.relaxed_categorical import ExpRelaxedCategorical

from argmax_vae import latents
from chance import FALSE_ALARM, counts_p_value

SHAPES = [(1, 2), (1, 40), (3, 2), (20, 10)]
TEMPERATURES = [0.1, 0.5, 2 / 3, 1.0, 3.0]


def random_logits(generator: torch.Generator, *shape: int, scale: float = 2.0) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64) * scale


def random_gumbel(generator: torch.Generator, *shape: int) -> Tensor:
    return latents.gumbel_from_uniform(torch.rand(shape, generator=generator, dtype=torch.float64))


def test_noise_is_the_quantile_function() -> None:
    uniform = torch.linspace(1e-6, 1 - 1e-6, 1001, dtype=torch.float64)
    gumbel = torch.from_numpy(stats.gumbel_r.ppf(uniform.numpy()))
    logistic = torch.from_numpy(stats.logistic.ppf(uniform.numpy()))
    torch.testing.assert_close(latents.gumbel_from_uniform(uniform), gumbel)
    torch.testing.assert_close(latents.logistic_from_uniform(uniform), logistic)


@pytest.mark.parametrize("noise", [latents.gumbel_from_uniform, latents.logistic_from_uniform])
def test_noise_is_finite_at_the_ends_of_float32(noise) -> None:
    """torch.rand draws multiples of 2⁻²⁴ on [0, 1)."""
    ends = noise(torch.tensor([0.0, 2.0**-24, 1 - 2.0**-24]))
    assert ends.isfinite().all()
    assert (ends.diff() > 0).all()


def test_largest_score_and_ties() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0], [-1.0, 0.0, 0.0]])
    assert latents.one_hot_argmax(scores).tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0]]


def gumbel_max_counts(logits: Tensor, number: int, generator: torch.Generator) -> Tensor:
    gumbel = latents.gumbel_from_uniform(torch.rand((number, *logits.shape), generator=generator))
    return latents.sample_codes(logits.float(), gumbel).sum(0).double()


@pytest.mark.parametrize("shape", [(1, 2), (3, 4), (2, 10)])
def test_gumbel_max_samples_the_softmax(shape: tuple[int, int], generator: torch.Generator) -> None:
    """Chi-square of the frequencies of 200,000 samples, false alarms 1e-6."""
    logits = random_logits(generator, *shape, scale=1.0)
    counts = gumbel_max_counts(logits, 200_000, generator)
    assert counts_p_value(counts, logits.softmax(-1)) > FALSE_ALARM


def test_frequencies_would_show_wrong_logits(generator: torch.Generator) -> None:
    """Logits 5 % too large fail the test above."""
    logits = random_logits(generator, 3, 4, scale=1.0)
    counts = gumbel_max_counts(1.05 * logits, 200_000, generator)
    assert counts_p_value(counts, logits.softmax(-1)) < FALSE_ALARM


def test_samples_carry_no_gradient(generator: torch.Generator) -> None:
    logits = random_logits(generator, 5, 3, 4).requires_grad_()
    assert not latents.sample_codes(logits, random_gumbel(generator, 7, 5, 3, 4)).requires_grad


@pytest.mark.parametrize("scale", [0.1, 2.0, 30.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_kl_against_torch_distributions(shape: tuple[int, int], scale: float, generator: torch.Generator) -> None:
    logits = random_logits(generator, 6, *shape, scale=scale)
    expected = kl_divergence(Categorical(logits=logits), Categorical(logits=torch.zeros_like(logits))).sum(-1)
    kl = latents.kl_to_uniform(logits)
    torch.testing.assert_close(kl, expected)
    n, k = shape
    assert (kl >= 0).all()
    assert (kl <= n * math.log(k) + 1e-9).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_kl_reaches_its_bounds(shape: tuple[int, int]) -> None:
    n, k = shape
    uniform = torch.full((n, k), 3.0, dtype=torch.float64)
    certain = torch.zeros(n, k, dtype=torch.float64)
    certain[:, 0] = 200.0
    assert latents.kl_to_uniform(uniform).item() == pytest.approx(0.0, abs=1e-12)
    assert latents.kl_to_uniform(certain).item() == pytest.approx(n * math.log(k))


@pytest.mark.parametrize(("n", "k"), [(1, 2), (1, 5), (3, 2), (2, 4)])
def test_all_codes_and_their_probabilities(n: int, k: int, generator: torch.Generator) -> None:
    codes = latents.all_codes(n, k)
    assert codes.argmax(-1).tolist() == [list(values) for values in itertools.product(range(k), repeat=n)]
    assert (codes.sum(-1) == 1).all()
    logits = random_logits(generator, n, k)
    log_probability = latents.log_probability(logits, codes.double())
    expected = Independent(OneHotCategorical(logits=logits), 1).log_prob(codes.double())
    torch.testing.assert_close(log_probability, expected)
    assert log_probability.exp().sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("k", [2, 3, 10])
def test_concrete_densities_against_torch_distributions(k: int, temperature: float, generator: torch.Generator) -> None:
    logits = random_logits(generator, 5, 3, k)
    log_codes = latents.exp_concrete_sample(logits, random_gumbel(generator, 4, 5, 3, k), temperature)
    torch.testing.assert_close(log_codes.exp().sum(-1), torch.ones(4, 5, 3, dtype=torch.float64))
    tau = torch.tensor(temperature, dtype=torch.float64)
    expected = ExpRelaxedCategorical(tau, logits=logits, validate_args=False).log_prob(log_codes)
    torch.testing.assert_close(latents.exp_concrete_log_density(log_codes, logits, temperature), expected)
    torch.testing.assert_close(latents.exp_concrete_log_density(log_codes, logits, tau), expected)
    codes = log_codes.exp().clamp_min(1e-290)
    expected = RelaxedOneHotCategorical(tau, logits=logits, validate_args=False).log_prob(codes)
    torch.testing.assert_close(latents.concrete_log_density(codes, logits, temperature), expected)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_logistic_density_against_torch_distributions(temperature: float, generator: torch.Generator) -> None:
    logits = random_logits(generator, 5, 3)
    scores = random_logits(generator, 4, 5, 3, scale=4.0)
    tau = torch.tensor(temperature, dtype=torch.float64)
    expected = LogitRelaxedBernoulli(tau, logits=logits).log_prob(scores)
    torch.testing.assert_close(latents.logistic_log_density(scores, logits, temperature), expected)


def test_two_values_are_the_logistic_form(generator: torch.Generator) -> None:
    """For k = 2, y₁ − y₀ = (log α + γ₁ − γ₀)/τ, and the density is the logistic one of that difference."""
    logits, gumbel = random_logits(generator, 5, 3, 2), random_gumbel(generator, 4, 5, 3, 2)
    log_codes = latents.exp_concrete_sample(logits, gumbel, 0.7)
    difference = log_codes[..., 1] - log_codes[..., 0]
    one_logit = latents.binary_logits(logits)
    torch.testing.assert_close(difference, (one_logit + gumbel[..., 1] - gumbel[..., 0]) / 0.7)
    torch.testing.assert_close(one_logit.sigmoid(), logits.softmax(-1)[..., 1])
    torch.testing.assert_close(
        latents.exp_concrete_log_density(log_codes, logits, 0.7),
        latents.logistic_log_density(difference, one_logit, 0.7),
    )


def test_difference_of_gumbels_is_logistic(generator: torch.Generator) -> None:
    """Kolmogorov–Smirnov over 100,000 differences, false alarms 1e-6."""
    gumbel = random_gumbel(generator, 100_000, 2)
    assert stats.kstest((gumbel[:, 1] - gumbel[:, 0]).numpy(), stats.logistic.cdf).pvalue > FALSE_ALARM


@pytest.mark.parametrize(("temperature", "prior_temperature"), [(0.5, 0.5), (2 / 3, 0.4), (1.0, 2.0)])
def test_relaxed_kl_against_torch_distributions(
    temperature: float, prior_temperature: float, generator: torch.Generator
) -> None:
    logits = random_logits(generator, 5, 3, 4)
    log_codes = latents.exp_concrete_sample(logits, random_gumbel(generator, 6, 5, 3, 4), temperature)
    posterior = ExpRelaxedCategorical(
        torch.tensor(temperature, dtype=torch.float64), logits=logits, validate_args=False
    )
    prior = ExpRelaxedCategorical(
        torch.tensor(prior_temperature, dtype=torch.float64),
        logits=torch.zeros_like(logits),
        validate_args=False,
    )
    expected = (posterior.log_prob(log_codes) - prior.log_prob(log_codes)).sum(-1)
    torch.testing.assert_close(latents.relaxed_kl(log_codes, logits, temperature, prior_temperature), expected)


def test_relaxed_kl_of_equal_distributions_is_zero(generator: torch.Generator) -> None:
    logits = torch.full((5, 3, 4), 1.5, dtype=torch.float64)
    log_codes = latents.exp_concrete_sample(logits, random_gumbel(generator, 6, 5, 3, 4), 0.5)
    divergence = latents.relaxed_kl(log_codes, logits, 0.5, 0.5)
    torch.testing.assert_close(divergence, torch.zeros_like(divergence), atol=1e-12, rtol=0)


def test_excluded_values_become_zero_and_what_diverged_stays() -> None:
    values = torch.tensor([2.5, latents.EXCLUDED, -latents.EXCLUDED, math.nan, math.inf])
    assert latents.without_excluded(values)[:3].tolist() == [2.5, 0, 0]
    assert latents.without_excluded(values)[3].isnan() and latents.without_excluded(values)[4].isinf()
