"""ARSM against its written formula, and ARM, which it is for two values."""

import pytest
import torch
from torch import Tensor

from argmax_vae.estimators.arsm import REFERENCES, ArsmConfig
from argmax_vae.gradients.cost import decoder_evaluations
from estimators.test_coupled import problem, slope
from helpers import ready
from tabular import TabularLoss


def written_out(logits: Tensor, loss: TabularLoss, uniform: Tensor, references: list[int]) -> Tensor:
    """The mean of ARS over these references as the source has it, by arg min, with swapped entries of π."""
    exponential = -uniform.log()
    share = exponential / exponential.sum(-1, keepdim=True)
    k = logits.shape[-1]
    total = torch.zeros_like(logits)
    for j in references:
        losses = []
        for c in range(k):
            swapped = share.clone()
            swapped[..., c], swapped[..., j] = share[..., j], share[..., c]
            losses.append(loss(torch.eye(k, dtype=logits.dtype)[(swapped.log() - logits).argmin(-1)]))
        for c in range(k):
            total[..., c] += (losses[c] - sum(losses) / k).unsqueeze(-1) * (1 - k * share[..., j])
    return total / len(references)


@pytest.mark.parametrize(("n", "k"), [(1, 4), (3, 2), (2, 5)])
def test_the_formula_of_the_source(n: int, k: int, generator: torch.Generator) -> None:
    logits, loss = problem(n, k, generator)
    uniform = torch.rand(7, n, k, generator=generator, dtype=torch.float64)
    found = slope(ready("arsm", n, k), logits, loss, {"uniform": uniform})
    assert (found != 0).any()
    torch.testing.assert_close(found, written_out(logits.detach(), loss, uniform, list(range(k))))
    for j in range(k):
        noise = {"uniform": uniform, "reference": torch.full((7, 1, 1), (j + 0.5) / k, dtype=torch.float64)}
        of_one = slope(ready("arsm", n, k, reference="one"), logits, loss, noise)
        torch.testing.assert_close(of_one, written_out(logits.detach(), loss, uniform, [j]))


@pytest.mark.parametrize("reference", REFERENCES)
def test_with_two_values_it_is_arm(reference: str, generator: torch.Generator) -> None:
    """The share of value 1 is ARM's uniform number."""
    logits, loss = problem(3, 2, generator)
    noise = {
        "uniform": torch.rand(7, 3, 2, generator=generator, dtype=torch.float64),
        "reference": torch.rand(7, 1, 1, generator=generator, dtype=torch.float64),
    }
    exponential = -noise["uniform"].log()
    expected = slope(ready("arm", 3, 2), logits, loss, {"uniform": exponential[..., 1] / exponential.sum(-1)})
    torch.testing.assert_close(slope(ready("arsm", 3, 2, reference=reference), logits, loss, noise), expected)


@pytest.mark.parametrize(("reference", "expected"), [("all", 46), ("one", 10)])
def test_cost(reference: str, expected: int) -> None:
    assert decoder_evaluations(ArsmConfig(reference=reference), 3, 10) == expected
