"""Direct optimization: its expectation in closed form, its bias, and its samples against that expectation.

Coordinate i of z_{±ε} is an arg max of φ_i + γ_i ± εθ_i(·; z_−i), and θ_i does not depend on z_i. Given the
other coordinates it is therefore a Gumbel-max sample of softmax(φ_i ± εθ_i), which gives

    E[(z_i − z_{−ε,i})/ε] = Σ_{z_−i} q(z_−i) (softmax(φ_i) − softmax(φ_i − εθ_i(·; z_−i)))/ε.
"""

import itertools
import math

import pytest
import torch
from torch import Tensor

from argmax_vae.errors import UsageError
from argmax_vae.estimators.base import with_gradient
from argmax_vae.estimators.direct import DIRECTIONS, Direct, DirectConfig
from argmax_vae.estimators.schedules import Constant, Exponential
from argmax_vae.latents import gumbel_from_uniform, sample_codes
from argmax_vae.models.discrete import Perceptrons
from argmax_vae.models.reconstruction import Reconstruction
from argmax_vae.objective.terms import Folded
from argmax_vae.randomness import PlainNoise
from chance import FALSE_ALARM, counts_p_value, mean_p_value
from tabular import TabularLoss, code_probabilities, exact_gradient

STEP = torch.tensor(0)
SHAPES = [(1, 4), (2, 3), (3, 2)]


def direct(direction: str, epsilon: float, samples: int = 1) -> Direct:
    return Direct(DirectConfig(epsilon=Constant(value=epsilon), direction=direction, samples=samples))


def problem(n: int, k: int, generator: torch.Generator, scale: float = 2.0) -> tuple[Tensor, TabularLoss]:
    logits = torch.randn(n, k, generator=generator, dtype=torch.float64)
    table = torch.randn(k**n, generator=generator, dtype=torch.float64) * scale
    return logits, TabularLoss(table, n, k)


def expected_gradient(logits: Tensor, loss: TabularLoss, epsilon: float, direction: str) -> Tensor:
    """E[gradient] by enumeration of all codes; the sum over z_i of q(z) is q(z_−i)."""
    candidates = loss.candidates(loss.codes)
    lower = (logits - epsilon * candidates).softmax(-1)
    higher = (logits + epsilon * candidates).softmax(-1)
    start = logits.softmax(-1)
    difference = {
        "toward": (start - lower) / epsilon,
        "away": (higher - start) / epsilon,
        "symmetric": (higher - lower) / (2 * epsilon),
    }[direction]
    return torch.einsum("c,cij->ij", code_probabilities(logits, loss), difference)


def gradients(estimator: Direct, logits: Tensor, loss: TabularLoss, number: int, seed: int = 0) -> Tensor:
    """The gradients of `number` images that share logits and loss: (number, n·k)."""
    batch = logits.expand(number, *logits.shape).clone().requires_grad_()
    noise = estimator.noise(batch.shape, PlainNoise(torch.Generator().manual_seed(seed), torch.float64))
    estimator(batch, loss, noise, STEP).objective.sum().backward()
    return batch.grad.flatten(1)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_bias_vanishes_with_its_order(n: int, k: int, direction: str, generator: torch.Generator) -> None:
    """Halving ε halves the bias of the one-sided forms and quarters that of the symmetric form."""
    logits, loss = problem(n, k, generator)
    exact = exact_gradient(logits, loss)
    sizes = [2.0**-power for power in range(5, 11)]
    biases = [(expected_gradient(logits, loss, size, direction) - exact).norm().item() for size in sizes]
    order = 2 if direction == "symmetric" else 1
    for coarse, fine in itertools.pairwise(biases):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.2)
    assert biases[-1] < 0.01 * exact.norm().item()


NUMBER = 250_000
EPSILON = 0.5


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_mean_is_the_expectation(n: int, k: int, direction: str, generator: torch.Generator) -> None:
    """Joint chi-square of the mean of 250,000 estimates, false alarms 1e-6."""
    logits, loss = problem(n, k, generator)
    samples = gradients(direct(direction, EPSILON), logits, loss, NUMBER)
    expected = expected_gradient(logits, loss, EPSILON, direction).flatten()
    assert mean_p_value(samples, expected) > FALSE_ALARM


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_wrong_variants_would_be_found(n: int, k: int, direction: str, generator: torch.Generator) -> None:
    """The test above refuses gradients 3 % too large or small, the other directions, and a negated loss."""
    logits, loss = problem(n, k, generator)
    samples = gradients(direct(direction, EPSILON), logits, loss, NUMBER)
    expected = expected_gradient(logits, loss, EPSILON, direction).flatten()
    for factor in (1.03, 0.97, -1.0):
        assert mean_p_value(factor * samples, expected) < FALSE_ALARM
    for other in DIRECTIONS:
        if other != direction:
            wrong = expected_gradient(logits, loss, EPSILON, other).flatten()
            assert mean_p_value(samples, wrong) < FALSE_ALARM


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_samples_are_averaged(direction: str, generator: torch.Generator) -> None:
    """Three samples at once give the mean of three estimates with one sample each."""
    logits, loss = problem(2, 3, generator)
    batch = logits.expand(50, 2, 3).clone().requires_grad_()
    estimator = direct(direction, 0.25, samples=3)
    noise = estimator.noise(batch.shape, PlainNoise(generator, torch.float64))
    assert noise["uniform"].shape == (3, 50, 2, 3)
    together = estimator(batch, loss, noise, STEP)
    (gradient,) = torch.autograd.grad(together.objective.sum(), batch)
    single, losses = [], []
    for index in range(3):
        one = {"uniform": noise["uniform"][index : index + 1]}
        estimate = direct(direction, 0.25)(batch, loss, one, STEP)
        single.append(torch.autograd.grad(estimate.objective.sum(), batch)[0])
        losses.append(estimate.loss)
    torch.testing.assert_close(gradient, torch.stack(single).mean(0))
    torch.testing.assert_close(together.loss, torch.stack(losses).mean(0))


def test_objective_has_the_value_and_decoder_gradient_of_the_sampled_loss(generator: torch.Generator) -> None:
    networks = Perceptrons(20, 2, 3, [], [0, 1]).double()
    images = torch.rand(2, 5, 20, generator=generator, dtype=torch.float64).round()
    loss, logits = Reconstruction(networks, images), networks.encode(images)
    estimator = direct("toward", 0.5, samples=4)
    noise = estimator.noise(tuple(logits.shape), PlainNoise(generator, torch.float64))
    estimate = estimator(logits, loss, noise, STEP)
    sampled = loss(sample_codes(logits, gumbel_from_uniform(noise["uniform"]))).mean(0)
    torch.testing.assert_close(estimate.objective, sampled)
    torch.testing.assert_close(estimate.loss, sampled)
    parameters = list(networks.decoder.parameters())
    expected = torch.autograd.grad(sampled.sum(), parameters)
    found = torch.autograd.grad(estimate.objective.sum(), parameters)
    for gradient, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, reference)


@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_folded_at_one_samples_the_posterior(n: int, k: int, generator: torch.Generator) -> None:
    """With ε = 1, coordinate i of z_{−ε} has the decoder's exact posterior p(z_i | x, z_−i).

    Chi-square of 200,000 samples per value of the other coordinates, false alarms 1e-6.
    """
    logits, loss = problem(n, k, generator)
    number = 200_000
    batch = logits.expand(number, n, k)
    uniform = torch.rand((1, number, n, k), generator=generator, dtype=torch.float64)
    estimator = direct("toward", 1.0)
    variable = batch.clone().requires_grad_()
    estimate = estimator(variable, Folded(loss, variable), {"uniform": uniform}, STEP)
    (gradient,) = torch.autograd.grad(estimate.objective.sum(), variable)
    codes = sample_codes(batch, gumbel_from_uniform(uniform))[0]
    perturbed = codes - gradient
    assert torch.equal(perturbed.sum(-1), torch.ones(number, n, dtype=torch.float64))
    places = k ** torch.arange(n - 1, -1, -1)
    counts, posteriors = [], []
    for i in range(n):
        others = (codes.argmax(-1) * places).sum(-1) - codes.argmax(-1)[:, i] * places[i]
        for other in others.unique():
            counts.append(perturbed[others == other, i].sum(0))
            posteriors.append((-loss.table[other + places[i] * torch.arange(k)]).softmax(-1))
    assert counts_p_value(torch.stack(counts), torch.stack(posteriors)) > FALSE_ALARM


def test_gradient_is_put_on_the_logits(generator: torch.Generator) -> None:
    logits = torch.randn(5, 2, 3, generator=generator, requires_grad=True)
    value, gradient = torch.randn(5, generator=generator), torch.randn(5, 2, 3, generator=generator)
    objective = with_gradient(value, logits, gradient)
    torch.testing.assert_close(objective, value)
    objective.sum().backward()
    assert torch.equal(logits.grad, gradient)


def test_epsilon_follows_its_schedule(generator: torch.Generator) -> None:
    logits, loss = problem(2, 3, generator)
    estimator = Direct(DirectConfig(epsilon=Exponential()))
    noise = estimator.noise((2, 3), PlainNoise(generator, torch.float64))
    estimate = estimator(logits, loss, noise, torch.tensor(200_000))
    assert estimate.metrics["epsilon"].item() == pytest.approx(math.exp(-2))


@pytest.mark.parametrize(("field", "value"), [("direction", "sideways"), ("samples", 0)])
def test_wrong_choices(field: str, value: str | int) -> None:
    with pytest.raises(UsageError) as raised:
        DirectConfig(**{field: value})
    assert f"estimator.{field}={value}" in str(raised.value)
    assert "\n" not in str(raised.value)
