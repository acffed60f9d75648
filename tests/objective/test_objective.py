"""The objective of each KL choice, and the reported bounds, against enumeration of all codes in float64."""

import copy
import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.exact import Exact, ExactConfig
from argmax_vae.estimators.gumbel_softmax import GumbelSoftmax, GumbelSoftmaxConfig
from argmax_vae.estimators.schedules import Constant
from argmax_vae.latents import all_codes, exp_concrete_sample, gumbel_from_uniform, kl_to_uniform, relaxed_kl
from argmax_vae.models.discrete import Perceptrons
from argmax_vae.models.reconstruction import Reconstruction
from argmax_vae.objective import bounds
from argmax_vae.objective.bounds import BoundSums, bound_sums, values_in_use
from argmax_vae.objective.terms import KL_CHOICES, ObjectiveConfig, Terms, training_terms
from argmax_vae.randomness import PlainNoise, SeedNoise
from chance import FALSE_ALARM, mean_p_value
from helpers import latents, ready
from tabular import TabularLoss, code_probabilities, expected_loss

STEP = torch.tensor(0)
SHAPES = [(1, 4), (2, 3), (3, 2)]


def problem(n: int, k: int, generator: torch.Generator) -> tuple[Tensor, TabularLoss]:
    logits = torch.randn(2, 5, n, k, generator=generator, dtype=torch.float64, requires_grad=True)
    return logits, TabularLoss(torch.randn(2, 5, k**n, generator=generator, dtype=torch.float64) * 3, n, k)


def exact_terms(kl: str, logits: Tensor, loss: TabularLoss) -> tuple[Terms, Tensor]:
    """Terms with the exact estimator, and the gradient on the logits."""
    terms = training_terms(ObjectiveConfig(kl=kl), Exact(ExactConfig()), logits, loss, {}, STEP)
    (gradient,) = torch.autograd.grad(terms.objective.sum(), logits)
    return terms, gradient


def kl_by_enumeration(logits: Tensor, loss: TabularLoss) -> Tensor:
    q = code_probabilities(logits, loss)
    n, k = logits.shape[-2:]
    return (q * (q.log() + n * math.log(k))).sum(-1)


@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("kl", ["analytic", "folded", "none"])
def test_terms_with_the_exact_estimator(kl: str, n: int, k: int, generator: torch.Generator) -> None:
    """`analytic` and `folded` train −ELBO, `none` the reconstruction; all three report the same two terms."""
    logits, loss = problem(n, k, generator)
    reconstruction, divergence = expected_loss(logits, loss), kl_by_enumeration(logits, loss)
    trained = reconstruction if kl == "none" else reconstruction + divergence
    (expected,) = torch.autograd.grad(trained.sum(), logits)
    terms, gradient = exact_terms(kl, logits, loss)
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(terms.objective, trained)
    torch.testing.assert_close(terms.reconstruction, reconstruction.detach())
    torch.testing.assert_close(terms.kl, divergence.detach())
    assert not terms.reconstruction.requires_grad
    assert not terms.kl.requires_grad


@pytest.mark.parametrize("name", ESTIMATORS)
def test_analytic_adds_the_gradient_of_the_kl_term(name: str, generator: torch.Generator) -> None:
    """With the same noise, for every estimator."""
    n, k = latents(name)
    logits, loss = problem(n, k, generator)
    estimator = ready(name, n, k)
    noise = estimator.noise(tuple(logits.shape), PlainNoise(generator, torch.float64))
    without, with_kl = (
        training_terms(ObjectiveConfig(kl=kl), estimator, logits, loss, noise, STEP) for kl in ("none", "analytic")
    )
    torch.testing.assert_close(with_kl.objective - without.objective, kl_to_uniform(logits))
    difference = torch.autograd.grad((with_kl.objective - without.objective).sum(), logits)[0]
    torch.testing.assert_close(difference, torch.autograd.grad(kl_to_uniform(logits).sum(), logits)[0])
    torch.testing.assert_close(with_kl.reconstruction, without.reconstruction)
    assert without.estimate.metrics.keys() == with_kl.estimate.metrics.keys()


@pytest.mark.parametrize("samples", [1, 3])
def test_concrete_adds_the_relaxed_divergence(samples: int, generator: torch.Generator) -> None:
    logits, loss = problem(2, 3, generator)
    estimator = GumbelSoftmax(GumbelSoftmaxConfig(temperature=Constant(value=0.625), samples=samples))
    noise = estimator.noise(tuple(logits.shape), PlainNoise(generator, torch.float64))
    config = ObjectiveConfig(kl="concrete", prior_temperature=0.4)
    terms = training_terms(config, estimator, logits, loss, noise, STEP)
    log_codes = exp_concrete_sample(logits, gumbel_from_uniform(noise["uniform"]), 0.625)
    expected = (loss(log_codes.exp()) + relaxed_kl(log_codes, logits, 0.625, 0.4)).mean(0)
    torch.testing.assert_close(terms.objective, expected)
    found = torch.autograd.grad(terms.objective.sum(), logits)[0]
    torch.testing.assert_close(found, torch.autograd.grad(expected.sum(), logits)[0])
    torch.testing.assert_close(terms.kl, kl_to_uniform(logits).detach())


@pytest.mark.parametrize("kl", KL_CHOICES)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_which_estimator_has_what_an_objective_needs(name: str, kl: str) -> None:
    config, estimator = ObjectiveConfig(kl=kl), ESTIMATORS[name]
    needed = {"concrete": estimator.has_relaxed_codes, "importance_weighted": estimator.has_importance_weighted}
    if needed.get(kl, True):
        config.validate_estimator(estimator, estimator.config_class())
        return
    with pytest.raises(UsageError) as raised:
        config.validate_estimator(estimator, estimator.config_class())
    assert f"estimator={name}" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kl", "sampled"),
        ("prior_temperature", 0.0),
        ("prior_temperature", -1.0),
        ("prior_temperature", math.nan),
    ],
)
def test_wrong_choices(field: str, value: str | float) -> None:
    with pytest.raises(UsageError) as raised:
        ObjectiveConfig(**{field: value})
    assert f"objective.{field}={value}" in str(raised.value)
    assert "\n" not in str(raised.value)


class Enumerated:
    """Two seeds, one image each, with losses and probabilities of all codes in float64."""

    def __init__(self, n: int, k: int, generator: torch.Generator) -> None:
        self.n, self.k = n, k
        self.networks = Perceptrons(6, n, k, [], [3, 8])
        with torch.no_grad():
            self.networks.decoder.layers[0].weight.mul_(3.0)
        self.images = torch.rand(2, 1, 6, generator=generator).round()
        precise = copy.deepcopy(self.networks).double()
        with torch.no_grad():
            self.logits = precise.encode(self.images.double())
            codes = all_codes(n, k).double()[:, None, None].expand(-1, 2, 1, n, k)
            self.losses = Reconstruction(precise, self.images.double())(codes).squeeze(-1).T
        self.probabilities = code_probabilities(self.logits, TabularLoss(self.losses, n, k)).squeeze(1)

    def bound(self, batch: int, samples: int, importance_samples: int = 0) -> BoundSums:
        """The reported bound of `batch` copies of the image."""
        noise = SeedNoise([3, 8], "cpu").restart(0, "test")
        return bound_sums(self.networks, self.images.expand(-1, batch, -1), samples, noise, importance_samples)

    @property
    def reconstruction(self) -> Tensor:
        return (self.probabilities * self.losses).sum(-1)

    @property
    def kl(self) -> Tensor:
        return kl_to_uniform(self.logits).squeeze(-1)

    @property
    def log_weights(self) -> Tensor:
        """log p(x, z)/q(z|x) of every code."""
        return -self.losses - self.n * math.log(self.k) - self.probabilities.log()

    @property
    def negative_log_likelihood(self) -> Tensor:
        return self.n * math.log(self.k) - (-self.losses).logsumexp(-1)

    def importance_weighted(self, samples: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of −log (1/K) Σ_k w_k over all K-tuples of codes."""
        values, shares = self.log_weights.exp(), self.probabilities
        sums, joint = values, shares
        for _ in range(samples - 1):
            sums = (sums.unsqueeze(-1) + values.unsqueeze(1)).flatten(1)
            joint = (joint.unsqueeze(-1) * shares.unsqueeze(1)).flatten(1)
        bounds = math.log(samples) - sums.log()
        mean = (joint * bounds).sum(-1)
        return mean, (joint * bounds**2).sum(-1) - mean**2


@pytest.mark.parametrize("k", [2, 7])
def test_bound_of_one_variable_is_exact(k: int, generator: torch.Generator) -> None:
    truth = Enumerated(1, k, generator)
    sums = truth.bound(batch=4, samples=1)
    assert sums.images == 4
    torch.testing.assert_close(sums.reconstruction / 4, truth.reconstruction, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sums.kl / 4, truth.kl, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sums.usage / 4, truth.probabilities.unsqueeze(1), rtol=1e-5, atol=1e-5)
    assert sums.importance_weighted.isnan().all()


def z_p_value(mean: Tensor, expected: Tensor, variance: Tensor, number: int) -> float:
    """Joint chi-square test of two seeds' means of `number` independent terms of known variance."""
    statistic = ((mean - expected) ** 2 / (variance / number)).sum().item()
    return float(stats.chi2.sf(statistic, 2))


def test_samples_drawn_in_groups_are_those_drawn_at_once(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory does not grow with the number of samples: no draw has more of them than a group has."""
    truth, drawn = Enumerated(3, 2, generator), []
    uniform = SeedNoise.uniform

    def counting(noise: SeedNoise, shape: tuple[int, ...], samples: int) -> Tensor:
        drawn.append(samples)
        return uniform(noise, shape, samples)

    monkeypatch.setattr(SeedNoise, "uniform", counting)
    found = []
    for group in (2, 1000):
        monkeypatch.setattr(bounds, "LARGEST_DECODE", 50 * group)
        found.append(truth.bound(batch=50, samples=7, importance_samples=5))
    assert drawn == [2, 2, 2, 1, 2, 2, 1, 7, 5]
    groups, once = found
    assert torch.equal(groups.usage, once.usage)
    torch.testing.assert_close(groups.reconstruction, once.reconstruction, rtol=1e-6, atol=0)
    torch.testing.assert_close(groups.importance_weighted, once.importance_weighted, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("n", "k"), [(2, 3), (3, 2)])
def test_sampled_bound_estimates_the_enumerated_one(n: int, k: int, generator: torch.Generator) -> None:
    """100,000 samples in all, false alarms 1e-6; a reconstruction 2 % too large would be found."""
    truth = Enumerated(n, k, generator)
    batch, samples = 1000, 100
    sums = truth.bound(batch, samples)
    variance = (truth.probabilities * truth.losses**2).sum(-1) - truth.reconstruction**2
    mean, number = sums.reconstruction / batch, batch * samples
    assert z_p_value(mean, truth.reconstruction, variance, number) > FALSE_ALARM
    assert z_p_value(1.02 * mean, truth.reconstruction, variance, number) < FALSE_ALARM
    torch.testing.assert_close(sums.kl / batch, truth.kl, rtol=1e-5, atol=1e-5)
    shares = truth.logits.squeeze(1).softmax(-1)
    deviations = (sums.usage / batch - shares) / (shares * (1 - shares) / number).sqrt()
    limit = stats.norm.isf(FALSE_ALARM / 2 / deviations.numel())
    assert (deviations.abs() < limit).all()


@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_importance_weighted_bound(n: int, k: int, samples: int, generator: torch.Generator) -> None:
    """The mean over 50,000 images is that over all K-tuples of codes, false alarms 1e-6.

    That mean is the bound at K = 1, falls with K, and is above −log p(x).
    """
    truth = Enumerated(n, k, generator)
    batch = 50_000
    expected, variance = truth.importance_weighted(samples)
    found = truth.bound(batch, 1, samples).importance_weighted / batch
    assert z_p_value(found, expected, variance, batch) > FALSE_ALARM
    if samples == 1:
        torch.testing.assert_close(expected, truth.reconstruction + truth.kl)
    else:
        assert (expected < truth.importance_weighted(samples - 1)[0]).all()
    assert (expected > truth.negative_log_likelihood).all()


@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_importance_weighted_bound_reaches_the_likelihood(n: int, k: int, generator: torch.Generator) -> None:
    """With 200,000 samples it deviates as the mean weight does (variance enumerated); false alarms 1e-6."""
    truth = Enumerated(n, k, generator)
    number = 200_000
    relative = (truth.log_weights + truth.negative_log_likelihood.unsqueeze(-1)).exp()
    variance = (truth.probabilities * relative**2).sum(-1) - 1
    found = truth.bound(1, 1, number).importance_weighted
    assert z_p_value(found, truth.negative_log_likelihood, variance, number) > FALSE_ALARM
    assert ((variance / number).sqrt() < 0.01).all()


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("kl", ["analytic", "none", "folded"])
def test_training_reports_estimate_the_loss_the_estimator_sees(name: str, kl: str, generator: torch.Generator) -> None:
    """The reported reconstruction, averaged over 20,000 images, is E[θ] (false alarms 1e-6).

    For relaxed codes it is the mean of the table's multilinear extension at the samples.
    """
    n, k = latents(name)
    table = TabularLoss(torch.randn(k**n, generator=generator, dtype=torch.float64), n, k)
    single = torch.randn(n, k, generator=generator, dtype=torch.float64)
    logits = single.expand(20_000, n, k).clone().requires_grad_()
    estimator = ready(name, n, k).eval()
    noise = estimator.noise(tuple(logits.shape), PlainNoise(generator, torch.float64))
    terms = training_terms(ObjectiveConfig(kl=kl), estimator, logits, table, noise, STEP)
    torch.testing.assert_close(terms.kl, kl_to_uniform(logits).detach())
    if not estimator.has_relaxed_codes:
        assert terms.reconstruction.shape == (20_000,)
        expected = expected_loss(single, table).reshape(1)
        assert mean_p_value(terms.reconstruction.unsqueeze(-1), expected) > FALSE_ALARM
    elif kl != "folded":
        log_codes = exp_concrete_sample(
            logits.detach(), gumbel_from_uniform(noise["uniform"]), terms.estimate.temperature
        )
        torch.testing.assert_close(terms.reconstruction, table(log_codes.exp()).mean(0))


def test_values_in_use_by_hand() -> None:
    """A value is in use from a share of 0.1/k on: here 0.025 of 400 codes, which is 10."""
    usage = torch.tensor([[[400.0, 0, 0, 0], [381, 10, 9, 0]], [[100, 100, 100, 100], [385, 9, 3, 3]]])
    assert values_in_use(usage).tolist() == [[1, 2], [4, 1]]
    assert values_in_use(usage.double() * 7).tolist() == [[1, 2], [4, 1]]
