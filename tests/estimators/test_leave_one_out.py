"""Leave-one-out and the control variates that are built on it: exact expectations, and their written formulas."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from argmax_vae.estimators import Estimator
from argmax_vae.estimators.rodeo import Rodeo
from argmax_vae.randomness import PlainNoise
from estimators.test_biased import quadratic
from helpers import ready
from tabular import TabularLoss, code_probabilities, exact_gradient

STEP = torch.tensor(0)
CASES: list[tuple[str, dict[str, Any]]] = [
    ("reinforce", {}),
    ("double_control_variates", {"initial_alpha": 0.8}),
    ("rodeo", {"hidden": [5]}),
]


def chosen(name: str, n: int, k: int, **choices: Any) -> Estimator:
    """An estimator in float64, with RODEO's α and β away from zero."""
    estimator = ready(name, n, k, **choices).double()
    if isinstance(estimator, Rodeo):
        estimator.alpha.data.fill_(0.7)
        estimator.beta.data.fill_(-0.9)
    return estimator


def slope(estimator: Estimator, logits: Tensor, loss: TabularLoss, noise: dict[str, Tensor]) -> Tensor:
    return torch.autograd.grad(estimator(logits, loss, noise, STEP).objective.sum(), logits)[0]


def noise_of(codes: Tensor) -> dict[str, Tensor]:
    """Uniform numbers of which Gumbel-max samples with moderate logits are these codes."""
    return {"uniform": torch.where(codes > 0, 1 - 1e-16, 0.5).to(codes.dtype)}


@pytest.mark.parametrize(("n", "k", "samples"), [(1, 4, 2), (2, 3, 2), (2, 2, 3), (1, 3, 3)])
@pytest.mark.parametrize(("name", "choices"), CASES)
def test_expectation_over_all_tuples_of_codes(
    name: str, choices: dict[str, Any], n: int, k: int, samples: int, generator: torch.Generator
) -> None:
    """The exact gradient to rounding, of a loss that curves between the codes."""
    logits, loss = quadratic(n, k, generator)
    tuples = torch.cartesian_prod(*[torch.arange(k**n)] * samples).T
    probability = code_probabilities(logits, loss)[tuples].prod(0)
    batch = logits.expand(tuples.shape[1], n, k).clone().requires_grad_()
    found = slope(chosen(name, n, k, samples=samples, **choices), batch, loss, noise_of(loss.codes[tuples]))
    torch.testing.assert_close(probability @ found.flatten(1), exact_gradient(logits, loss).flatten())


def test_double_control_variates_as_the_source_has_them(generator: torch.Generator) -> None:
    """Sample by sample, the slope of θ(z) = zᵀAz by hand."""
    n, k, samples, alpha = 2, 3, 4, 0.6
    logits, loss = quadratic(n, k, generator)
    batch = logits.expand(7, n, k).clone().requires_grad_()
    codes = loss.codes[torch.randint(k**n, (samples, 7), generator=generator)]
    found = slope(
        ready("double_control_variates", n, k, samples=samples, initial_alpha=alpha).double(),
        batch,
        loss,
        noise_of(codes),
    )
    mean = logits.softmax(-1).flatten()
    jacobian = torch.block_diag(*(torch.diag(row) - torch.outer(row, row) for row in logits.softmax(-1)))
    for image in range(7):
        z = codes[:, image].flatten(1)
        slopes = z @ (loss.matrix + loss.matrix.T)
        left = []
        for m in range(samples):
            others = torch.stack([slopes[j] for j in range(samples) if j != m]).mean(0)
            left.append(loss(codes[m, image]) - alpha * others @ (z[m] - mean))
        expected = alpha * jacobian @ slopes.mean(0)
        for m in range(samples):
            baseline = sum(left[j] for j in range(samples) if j != m) / (samples - 1)
            expected = expected + (left[m] - baseline) * (z[m] - mean) / samples
        torch.testing.assert_close(found[image].flatten(), expected)


def test_rodeo_as_the_source_has_it(generator: torch.Generator) -> None:
    """Functions of any code, the Gibbs operator on them value by value, for one image."""
    n, k, samples = 2, 3, 3
    logits, loss = quadratic(n, k, generator)
    codes = loss.codes[torch.randint(k**n, (samples, 1), generator=generator)]
    estimator = chosen("rodeo", n, k, samples=samples, hidden=[4])
    found = slope(estimator, logits.unsqueeze(0).clone().requires_grad_(), loss, noise_of(codes))[0]
    (inner, outer), (bias, last) = estimator.weights, estimator.biases
    z, q = codes[:, 0], logits.softmax(-1)
    slopes = (z.flatten(1) @ (loss.matrix + loss.matrix.T)).unflatten(1, (n, k))

    def surrogate(m: int, y: Tensor, output: int) -> Tensor:
        answers = []
        for other in range(samples):
            if other != m:
                inputs = torch.stack([loss(z[other]), (slopes[other] * (y - z[other])).sum()])
                hidden = inputs @ inner + bias
                answers.append((torch.where(hidden > 0, hidden, 0.3 * hidden) @ outer + last)[output])
        return torch.stack(answers).mean()

    def gibbs(function: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
        total = torch.zeros_like(function(y))
        for i in range(n):
            for v in range(k):
                changed = y.clone()
                changed[i] = torch.eye(k, dtype=y.dtype)[v]
                total = total + q[i, v] * function(changed) / n
        return total - function(y)

    left = [loss(z[m]) + 0.7 * gibbs(partial(surrogate, m, output=0), z[m]) for m in range(samples)]
    expected = torch.zeros_like(found)
    for m in range(samples):
        baseline = sum(left[other] for other in range(samples) if other != m) / (samples - 1)
        directed = gibbs(lambda y, m=m: surrogate(m, y, 1) * (y - q), z[m])
        expected = expected + ((loss(z[m]) - baseline) * (z[m] - q) - 0.9 * directed) / samples
    torch.testing.assert_close(found, expected.detach())


@pytest.mark.parametrize(("name", "choices"), [("double_control_variates", {"initial_alpha": 0.0}), ("rodeo", {})])
def test_where_it_is_leave_one_out(name: str, choices: dict[str, Any], generator: torch.Generator) -> None:
    """Without α, and RODEO at its start."""
    logits, loss = quadratic(3, 4, generator)
    batch = logits.expand(7, 3, 4).clone().requires_grad_()
    noise = ready("reinforce", 3, 4).noise((7, 3, 4), PlainNoise(generator, torch.float64))
    found = slope(ready(name, 3, 4, **choices), batch, loss, noise)
    torch.testing.assert_close(found, slope(ready("reinforce", 3, 4), batch, loss, noise))


def test_double_control_variates_of_an_additive_loss_have_no_variance(generator: torch.Generator) -> None:
    """Its extension is linear but for a constant for each variable; α = 1 leaves the exact gradient of every sample."""
    logits, loss = quadratic(3, 4, generator)
    single = TabularLoss(loss.codes.flatten(-2) @ torch.randn(12, generator=generator, dtype=torch.float64), 3, 4)
    batch = logits.expand(50, 3, 4).clone().requires_grad_()
    estimator = ready("double_control_variates", 3, 4, initial_alpha=1.0, samples=2)
    noise = estimator.noise((50, 3, 4), PlainNoise(generator, torch.float64))
    torch.testing.assert_close(slope(estimator, batch, single, noise), exact_gradient(batch, single))


@pytest.mark.parametrize(("name", "choices"), [case for case in CASES if case[0] != "reinforce"])
def test_what_is_learned_follows_the_derivative_of_the_second_moment(
    name: str, choices: dict[str, Any], generator: torch.Generator
) -> None:
    """What Adam gets for an entry of each parameter, against central differences of the mean of ‖g‖²."""
    logits, loss = quadratic(2, 3, generator)
    batch = logits.expand(20, 2, 3).clone().requires_grad_()
    estimator = chosen(name, 2, 3, samples=3, **choices)
    noise = estimator.noise((20, 2, 3), PlainNoise(generator, torch.float64))
    estimator(batch, loss, noise, STEP).objective.mean().backward()

    def second_moment() -> float:
        return slope(estimator, batch, loss, noise).pow(2).sum((-2, -1)).mean().item()

    for parameter in estimator.parameters():
        entry = (0,) * parameter.ndim
        assert parameter.grad is not None
        start, ends = parameter[entry].item(), []
        for change in (1e-5, -1e-5):
            parameter.data[entry] = start + change
            ends.append(second_moment())
        parameter.data[entry] = start
        assert parameter.grad[entry].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-7)
