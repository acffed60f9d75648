"""Direct as a control variate: the loss whose gradient direct's step is, its samples, and where its variance is low.

False alarms of the statistical tests 1e-6. Variances are of 10,000 estimates; the ratios asserted leave more than five
standard errors of a ratio of such variances (5 %).
"""

import pytest
import torch
from scipy import stats
from torch import Tensor

from argmax_vae.estimators.direct_control_variate import saturated
from argmax_vae.gradients.cost import CountingLoss
from argmax_vae.latents import codes_far_from, codes_near, one_hot_argmax
from argmax_vae.randomness import PlainNoise
from chance import FALSE_ALARM
from helpers import ready
from tabular import TabularLoss, code_probabilities

STEP = torch.tensor(0)
NUMBER = 10_000
SLACK = 1.3


def problem(
    n: int, k: int, scale: float, generator: torch.Generator, interaction: float = 1.0
) -> tuple[Tensor, TabularLoss]:
    """Logits of this scale, and a loss with terms of single variables and, less or more, of pairs of them."""
    logits = scale * torch.randn(n, k, generator=generator, dtype=torch.float64)
    loss = TabularLoss(torch.zeros(k**n, dtype=torch.float64), n, k)
    flat = loss.codes.flatten(-2)
    pairs = torch.randn(n * k, n * k, generator=generator, dtype=torch.float64)
    loss.table = flat @ torch.randn(n * k, generator=generator, dtype=torch.float64)
    loss.table = loss.table + interaction * ((flat @ pairs) * flat).sum(-1) / n
    return logits, loss


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 20.0])
def test_direct_is_the_exact_gradient_of_the_saturated_loss(epsilon: float, generator: torch.Generator) -> None:
    logits, candidates = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    values = saturated(logits.detach(), candidates, torch.tensor(epsilon))
    (gradient,) = torch.autograd.grad((logits.softmax(-1) * values).sum(), logits)
    direct = (logits.softmax(-1) - (logits - epsilon * candidates).softmax(-1)) / epsilon
    torch.testing.assert_close(gradient, direct.detach())
    assert values.max() <= 1 / epsilon


@pytest.mark.parametrize(("n", "k"), [(3, 2), (3, 3)])
@pytest.mark.parametrize("which", ["near", "far"])
def test_codes_are_those_of_q_within_their_set(which: str, n: int, k: int, generator: torch.Generator) -> None:
    """Counts of every code by chi-square; the probability of the set by enumeration."""
    number = 100_000
    logits, loss = problem(n, k, 1.0, generator)
    mode = one_hot_argmax(logits)
    inside = ((loss.codes * mode).sum((-2, -1)) >= n - 1) == (which == "near")
    probabilities = code_probabilities(logits, loss) * inside
    if which == "near":
        uniform = torch.rand(number, n, k, generator=generator, dtype=torch.float64)
        codes = codes_near(mode.expand(number, n, k), logits.expand(number, n, k), uniform)
    else:
        uniform, places = (
            torch.rand(number, *shape, generator=generator, dtype=torch.float64) for shape in ((n, k), (2, n))
        )
        codes, probability = codes_far_from(mode, logits, uniform, places)
        torch.testing.assert_close(probability, probabilities.sum())
    index = (codes.argmax(-1) * k ** torch.arange(n - 1, -1, -1)).sum(-1)
    counts = torch.bincount(index, minlength=k**n)
    assert counts[~inside].sum() == 0
    expected = number * (probabilities / probabilities.sum())[inside]
    assert stats.chisquare(counts[inside].numpy(), expected.numpy()).pvalue > FALSE_ALARM


def variance(name: str, logits: Tensor, loss: TabularLoss, **choices: object) -> float:
    """Trace of the covariance of the gradient times decoder evaluations: what is left at equal numbers of them."""
    batch = logits.expand(NUMBER, *logits.shape).clone().requires_grad_()
    estimator = ready(name, *logits.shape, **choices).eval()
    noise = estimator.noise(tuple(batch.shape), PlainNoise(torch.Generator().manual_seed(0), torch.float64))
    counting = CountingLoss(loss, NUMBER)
    (gradient,) = torch.autograd.grad(estimator(batch, counting, noise, STEP).objective.sum(), batch)
    return gradient.flatten(1).var(0).sum().item() * counting.evaluations


@pytest.mark.parametrize(("n", "k"), [(5, 2), (3, 3)])
def test_variance_at_equal_decoder_evaluations(n: int, k: int, generator: torch.Generator) -> None:
    """Least where q is nearly certain; where q is uniform local expectation has less, leave-one-out more."""
    certain, uniform = (
        [
            variance("direct_control_variate", logits, loss, samples=n * (k - 1)),
            variance("local_expectation", logits, loss),
            variance("reinforce", logits, loss),
        ]
        for logits, loss in (problem(n, k, scale, generator) for scale in (4.0, 0.0))
    )
    assert SLACK * certain[0] < min(certain[1:])
    assert SLACK * uniform[1] < uniform[0]
    assert SLACK * uniform[0] < uniform[2]


def test_eta_follows_the_derivative_of_the_second_moment(generator: torch.Generator) -> None:
    logits, loss = problem(3, 2, 1.0, generator)
    estimator = ready("direct_control_variate", 3, 2, initial_eta=0.4, samples=3).double()
    batch = logits.expand(50, 3, 2).clone().requires_grad_()
    noise = estimator.noise(tuple(batch.shape), PlainNoise(generator, torch.float64))

    def second_moment(eta: float) -> float:
        estimator.eta.data.fill_(eta)
        (gradient,) = torch.autograd.grad(estimator(batch, loss, noise, STEP).objective.sum(), batch)
        return gradient.pow(2).sum((-2, -1)).mean().item()

    estimator(batch, loss, noise, STEP).objective.mean().backward()
    assert estimator.eta.grad is not None
    expected = (second_moment(0.4 + 1e-5) - second_moment(0.4 - 1e-5)) / 2e-5
    assert estimator.eta.grad.item() == pytest.approx(expected, rel=1e-6)
