"""Codes that are not drawn independently: by sticks, antithetic, and without replacement; and NVIL's learned baseline.

False alarms of the statistical tests 1e-6.
"""

import itertools
import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from argmax_vae.estimators import Estimator
from argmax_vae.estimators.nvil import Nvil
from argmax_vae.estimators.unordered_set import set_scores
from argmax_vae.latents import Sticks, beam_search
from argmax_vae.randomness import PlainNoise
from chance import FALSE_ALARM, counts_p_value
from helpers import ready
from tabular import TabularLoss, code_probabilities

STEP = torch.tensor(0)


def problem(n: int, k: int, generator: torch.Generator) -> tuple[Tensor, TabularLoss]:
    logits = torch.randn(7, n, k, generator=generator, dtype=torch.float64, requires_grad=True)
    return logits, TabularLoss(torch.randn(7, k**n, generator=generator, dtype=torch.float64), n, k)


def slope(estimator: Estimator, logits: Tensor, loss: TabularLoss, noise: dict[str, Tensor]) -> Tensor:
    return torch.autograd.grad(estimator(logits, loss, noise, STEP).objective.sum(), logits)[0]


def test_slopes_of_sticks_are_the_chain_rule(generator: torch.Generator) -> None:
    logits = torch.randn(5, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, 3, 3, generator=generator, dtype=torch.float64)
    sticks = Sticks(logits)
    (expected,) = torch.autograd.grad((sticks.log_odds * weights).sum(), logits)
    torch.testing.assert_close(sticks.to_logits(weights).detach(), expected)
    assert (sticks.log_odds[..., :-1] <= math.log(0.5)).all()
    assert (sticks.log_odds <= 0).all()


def test_with_two_values_and_two_codes_carms_and_sticks_are_disarm(generator: torch.Generator) -> None:
    """Where value 1 is the more frequent, the first stick asks for value 0, and the antithetic codes change places."""
    logits, loss = problem(3, 2, generator)
    uniform = torch.rand(7, 3, generator=generator, dtype=torch.float64)
    first = torch.where(logits[..., 1] < logits[..., 0], uniform, 1 - uniform).detach()
    expected = slope(ready("disarm", 3, 2), logits, loss, {"uniform": uniform})
    sticks = slope(ready("disarm_categorical", 3, 2), logits, loss, {"uniform": first.unsqueeze(-1)})
    exponentials = torch.stack([1 - first, first])
    carms = slope(ready("carms", 3, 2, samples=2), logits, loss, {"uniform": exponentials.neg().exp().unsqueeze(-1)})
    torch.testing.assert_close(sticks, expected)
    torch.testing.assert_close(carms, expected)


@pytest.mark.parametrize("samples", [2, 3])
def test_each_code_of_carms_is_of_q_and_two_are_seldom_equal(samples: int, generator: torch.Generator) -> None:
    number = 50_000
    logits = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    estimator = ready("carms", 2, 4, samples=samples)
    noise = estimator.noise((number, 2, 4), PlainNoise(generator, torch.float64))
    codes = estimator.codes(logits.expand(number, 2, 4), noise)
    for each in codes:
        assert counts_p_value(each.sum(0), logits.softmax(-1)) > FALSE_ALARM
    equal = (codes[0] * codes[1]).sum(-1).mean(0)
    assert (equal < 0.9 * logits.softmax(-1).square().sum(-1)).all()


def test_beams_are_the_most_probable_codes(generator: torch.Generator) -> None:
    logits, loss = problem(3, 3, generator)
    codes, scores = beam_search(logits.detach(), 5)
    expected = code_probabilities(logits.detach(), loss).topk(5, dim=-1).values
    torch.testing.assert_close(scores.exp().movedim(0, -1), expected)
    torch.testing.assert_close((logits.log_softmax(-1) * codes).sum((-2, -1)).detach(), scores)


def test_codes_without_replacement_come_in_the_order_of_plackett_and_luce(generator: torch.Generator) -> None:
    """Counts of every ordered pair of codes by chi-square; a set's probability is the sum over its orders."""
    number, n, k = 50_000, 2, 2
    logits, loss = problem(n, k, generator)
    logits = logits[0].detach()
    uniform = torch.rand(2, number, n, k, generator=generator, dtype=torch.float64)
    codes, scores = beam_search(logits.expand(number, n, k), 2, uniform)
    q = code_probabilities(logits, loss)
    first, second = (codes.argmax(-1) * torch.tensor([2, 1])).sum(-1)
    counts = torch.bincount(first * 4 + second, minlength=16)
    pairs = [(a, b) for a, b in itertools.product(range(4), repeat=2) if a != b]
    expected = torch.stack([number * q[a] * q[b] / (1 - q[a]) for a, b in pairs])
    found = torch.stack([counts[4 * a + b] for a, b in pairs])
    assert counts.sum() == found.sum()
    assert stats.chisquare(found.numpy(), expected.numpy()).pvalue > FALSE_ALARM
    torch.testing.assert_close(scores[0], q[first].log())


def test_probability_of_a_set_is_the_sum_over_its_orders(generator: torch.Generator) -> None:
    q = torch.rand(6, generator=generator, dtype=torch.float64).softmax(-1)
    found = set_scores(q[:4].log())
    expected = torch.zeros((), dtype=torch.float64)
    for order in itertools.permutations(range(4)):
        chosen = q[list(order)]
        expected = expected + (chosen / (1 - (chosen.cumsum(0) - chosen))).prod()
    torch.testing.assert_close(found[frozenset()].exp(), expected)
    weights = torch.stack([q[s] * (found[frozenset([s])] - found[frozenset()]).exp() for s in range(4)])
    torch.testing.assert_close(weights.sum(), torch.ones((), dtype=torch.float64))


def test_baseline_of_nvil_follows_its_squared_error_and_leaves_the_encoder_alone(generator: torch.Generator) -> None:
    logits, loss = problem(2, 3, generator)
    estimator = ready("nvil", 2, 3, hidden=[4]).double()
    assert isinstance(estimator, Nvil)
    for level in (3.0, 4.0):
        estimator.observe(torch.full((7,), level) + torch.tensor([-6.0, 6, -6, 6, -6, 6, 0]))
    mean, deviation = estimator.running()
    assert 3 < mean < 4.5 and 5 < deviation < 6
    noise = estimator.noise((7, 2, 3), PlainNoise(generator, torch.float64))
    estimate = estimator(logits, loss, noise, STEP)
    estimate.objective.mean().backward()
    found = [parameter.grad.clone() for parameter in estimator.parameters() if parameter.grad is not None]
    left = estimate.loss - mean - estimator.network(logits.detach())
    expected = torch.autograd.grad(left.square().mean() / 2, list(estimator.parameters()))
    torch.testing.assert_close(found, list(expected))
    normalized = ready("nvil", 2, 3, hidden=[4], normalize=True).double()
    normalized.load_state_dict(estimator.state_dict())
    torch.testing.assert_close(
        slope(normalized, logits, loss, noise) * deviation, slope(estimator, logits, loss, noise)
    )
