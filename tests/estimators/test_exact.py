"""Enumeration against sums written out by hand, in float64."""

import itertools

import pytest
import torch
from torch.distributions import Bernoulli

from argmax_vae.errors import UsageError
from argmax_vae.estimators.exact import Exact, ExactConfig
from argmax_vae.models.discrete import Perceptrons
from argmax_vae.models.reconstruction import Reconstruction
from tabular import TabularLoss, exact_gradient, expected_loss

STEP = torch.tensor(0)


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
@pytest.mark.parametrize(("n", "k"), [(1, 2), (1, 6), (2, 3), (3, 2), (4, 4)])
def test_expectation_and_gradient(n: int, k: int, leading: tuple[int, ...], generator: torch.Generator) -> None:
    logits = torch.randn(*leading, n, k, generator=generator, dtype=torch.float64, requires_grad=True)
    loss = TabularLoss(torch.randn(*leading, k**n, generator=generator, dtype=torch.float64), n, k)
    estimate = Exact(ExactConfig())(logits, LookUp(loss), {}, STEP)
    torch.testing.assert_close(estimate.objective, expected_loss(logits, loss))
    estimate.objective.sum().backward()
    torch.testing.assert_close(logits.grad, exact_gradient(logits, loss))


class LookUp(TabularLoss):
    """A table whose shared losses are its columns, so that nothing but the enumeration is tested."""

    def __init__(self, loss: TabularLoss) -> None:
        self.__dict__ = loss.__dict__

    def shared(self, codes: torch.Tensor) -> torch.Tensor:
        assert torch.equal(codes, self.codes)
        return self.table


def test_one_variable_by_hand(generator: torch.Generator) -> None:
    """E[θ] = Σ_j q_j θ_j, with the gradient q_j (θ_j − E[θ])."""
    logits = torch.randn(1, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    losses = torch.randn(5, generator=generator, dtype=torch.float64)
    estimate = Exact(ExactConfig())(logits, TabularLoss(losses, 1, 5), {}, STEP)
    probabilities = logits.detach().softmax(-1)[0]
    mean = (probabilities * losses).sum()
    torch.testing.assert_close(estimate.loss, mean)
    estimate.objective.backward()
    torch.testing.assert_close(logits.grad[0], probabilities * (losses - mean))


@pytest.mark.parametrize("hidden", [[], [7]])
@pytest.mark.parametrize(("n", "k"), [(1, 4), (2, 3)])
def test_decoder(n: int, k: int, hidden: list[int], generator: torch.Generator) -> None:
    """Expectation, gradient of the logits and of the decoder, one image and one code at a time."""
    networks = Perceptrons(12, n, k, hidden, [0, 1]).double()
    images = torch.rand(2, 3, 12, generator=generator, dtype=torch.float64).round()
    logits = torch.randn(2, 3, n, k, generator=generator, dtype=torch.float64, requires_grad=True)
    estimate = Exact(ExactConfig())(logits, Reconstruction(networks, images), {}, STEP)
    expected = torch.zeros(2, 3, dtype=torch.float64)
    for seed, image in itertools.product(range(2), range(3)):
        for values in itertools.product(range(k), repeat=n):
            code = torch.eye(k, dtype=torch.float64)[list(values)]
            outputs = networks.decode(code.expand(2, 1, n, k))[seed, 0]
            loss = -Bernoulli(logits=outputs).log_prob(images[seed, image]).sum()
            share = torch.zeros_like(expected)
            share[seed, image] = 1.0
            expected = expected + share * (logits[seed, image].softmax(-1) * code).sum(-1).prod() * loss
    torch.testing.assert_close(estimate.objective, expected)
    variables = [logits, *networks.decoder.parameters()]
    found = torch.autograd.grad(estimate.objective.sum(), variables)
    for gradient, reference in zip(found, torch.autograd.grad(expected.sum(), variables), strict=True):
        torch.testing.assert_close(gradient, reference)


def test_limit() -> None:
    config = ExactConfig(limit=64)
    config.validate_latents(2, 8)
    config.validate_latents(1, 64)
    with pytest.raises(UsageError) as raised:
        config.validate_latents(3, 5)
    assert "5^3 is beyond estimator.limit=64" in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(UsageError, match=r"^estimator\.limit=1 must be at least 2$"):
        ExactConfig(limit=1)
