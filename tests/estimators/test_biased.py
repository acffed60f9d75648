"""Rao-Blackwellised direct, Gumbel-Rao and ReinMax: what their expectation is known to be.

False alarms of the statistical tests 1e-6.
"""

import itertools

import pytest
import torch
from torch import Tensor

from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.direct import DIRECTIONS
from argmax_vae.estimators.direct_rao_blackwell import CONDITIONS
from argmax_vae.estimators.schedules import Constant
from argmax_vae.randomness import PlainNoise
from chance import FALSE_ALARM, mean_p_value
from estimators.test_direct import SHAPES, expected_gradient, problem
from helpers import ready
from tabular import TabularLoss, exact_gradient
from tabular import code_probabilities as probabilities_of

STEP = torch.tensor(0)
NUMBER = 100_000


def gradients(name: str, logits: Tensor, loss: TabularLoss, **choices: object) -> Tensor:
    """Gradients of NUMBER images that share logits and loss: (NUMBER, n·k)."""
    estimator = ready(name, *logits.shape, **choices)
    batch = logits.expand(NUMBER, *logits.shape).clone().requires_grad_()
    noise = estimator.noise(tuple(batch.shape), PlainNoise(torch.Generator().manual_seed(1), torch.float64))
    (gradient,) = torch.autograd.grad(estimator(batch, loss, noise, STEP).objective.sum(), batch)
    return gradient.flatten(1)


@pytest.mark.parametrize("given", CONDITIONS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_rao_blackwell_keeps_the_expectation_of_direct(
    n: int, k: int, direction: str, given: str, generator: torch.Generator
) -> None:
    logits, loss = problem(n, k, generator)
    samples = gradients(
        "direct_rao_blackwell",
        logits,
        loss,
        epsilon=Constant(value=0.5),
        direction=direction,
        given=given,
        inner_samples=3,
        samples=2,
    )
    expected = expected_gradient(logits, loss, 0.5, direction).flatten()
    assert mean_p_value(samples, expected) > FALSE_ALARM
    for other in DIRECTIONS:
        if other != direction:
            assert mean_p_value(samples, expected_gradient(logits, loss, 0.5, other).flatten()) < FALSE_ALARM


def test_given_the_others_and_small_epsilon_it_is_the_local_expectation_gradient(generator: torch.Generator) -> None:
    """The same samples give gradients that differ by a term of order ε², halved ε by halved ε."""
    logits, loss = problem(2, 3, generator)
    batch = logits.expand(20, 2, 3).clone().requires_grad_()
    uniform = {"uniform": torch.rand((1, 20, 2, 3), generator=generator, dtype=torch.float64)}

    def gradient(name: str, **choices: object) -> Tensor:
        estimate = ready(name, 2, 3, **choices)(batch, loss, uniform, STEP)
        return torch.autograd.grad(estimate.objective.sum(), batch)[0]

    limit = gradient("local_expectation")
    errors = []
    for epsilon in (0.1, 0.05, 0.025):
        choices = {"epsilon": Constant(value=epsilon), "direction": "symmetric", "given": "others"}
        errors.append((gradient("direct_rao_blackwell", **choices) - limit).norm().item())
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(4, rel=0.1)


class Quadratic(TabularLoss):
    """θ(y) = yᵀ A y of the flattened code: relaxed codes are no longer looked up but curved through."""

    def __init__(self, matrix: Tensor, n: int, k: int) -> None:
        super().__init__(matrix.new_zeros(k**n), n, k)
        self.matrix = matrix
        self.table = self(self.codes)

    def __call__(self, codes: Tensor) -> Tensor:
        flat = codes.flatten(-2)
        return ((flat @ self.matrix) * flat).sum(-1)


def quadratic(n: int, k: int, generator: torch.Generator) -> tuple[Tensor, Quadratic]:
    logits = torch.randn(n, k, generator=generator, dtype=torch.float64)
    return logits, Quadratic(torch.randn(n * k, n * k, generator=generator, dtype=torch.float64), n, k)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_reinmax_is_exact_for_one_variable_and_a_quadratic_loss(k: int, generator: torch.Generator) -> None:
    """Heun's method is; Euler's, which is straight-through, is not."""
    logits, loss = quadratic(1, k, generator)
    exact = exact_gradient(logits, loss).flatten()
    assert mean_p_value(gradients("reinmax", logits, loss, temperature=Constant(value=1.0)), exact) > FALSE_ALARM
    assert mean_p_value(gradients("straight_through", logits, loss), exact) < FALSE_ALARM


@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_straight_through_is_the_mean_slope_through_the_softmax(n: int, k: int, generator: torch.Generator) -> None:
    """Its expectation by enumeration: Σ_z q(z) J(q)ᵀ ∇θ(z)."""
    logits, loss = quadratic(n, k, generator)
    codes = loss.codes.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(loss(codes).sum(), codes)
    weight = logits.softmax(-1)
    through = weight * (slopes - (weight * slopes).sum(-1, keepdim=True))
    expected = torch.einsum("c,cij->ij", probabilities_of(logits, loss), through).flatten()
    assert mean_p_value(gradients("straight_through", logits, loss), expected) > FALSE_ALARM


@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_gumbel_rao_keeps_the_expectation_of_straight_through_gumbel_softmax(
    n: int, k: int, generator: torch.Generator
) -> None:
    """Two independent means, compared with their joint covariance; one at another temperature is refused."""
    logits, loss = quadratic(n, k, generator)
    plain = gradients("gumbel_softmax", logits, loss, temperature=Constant(value=0.5), straight_through=True)
    for temperature, same in ((0.5, True), (1.0, False)):
        averaged = gradients("gumbel_rao", logits, loss, temperature=Constant(value=temperature), inner_samples=5)
        difference = averaged - plain[torch.randperm(NUMBER, generator=generator)]
        assert (mean_p_value(difference, torch.zeros(n * k, dtype=torch.float64)) > FALSE_ALARM) == same


WRONG = [
    ("reinforce", {"samples": 1}, "estimator.samples=1 must be at least 2 for estimator.baseline=leave_one_out"),
    ("reinforce", {"samples": 0, "baseline": "none"}, "estimator.samples=0 must be at least 1"),
    ("reinforce", {"baseline": "median"}, "estimator.baseline=median must be one of"),
    ("reinforce", {"decay": 1.0}, "estimator.decay=1.0 must be at least 0 and less than 1"),
    ("rebar", {"initial_temperature": 0.0}, "estimator.initial_temperature=0.0 must be greater than 0"),
    ("relax", {"initial_temperature": -1.0}, "estimator.initial_temperature=-1.0 must be greater than 0"),
    ("relax", {"surrogate": [50, 0]}, "estimator.surrogate=[50, 0] must be a list of sizes from 1 to 1048576"),
    ("rebar", {"reduction": "sum"}, "estimator.reduction=sum must be one of image, batch"),
    ("rebar", {"parameterization": "ternary"}, "estimator.parameterization=ternary must be one of"),
    ("gumbel_rao", {"inner_samples": 0}, "estimator.inner_samples=0 must be at least 1"),
    ("direct_rao_blackwell", {"given": "nothing"}, "estimator.given=nothing must be one of code, others"),
    ("arsm", {"reference": "two"}, "estimator.reference=two must be one of all, one"),
    ("double_control_variates", {"samples": 1}, "estimator.samples=1 must be at least 2"),
    ("rodeo", {"samples": 1}, "estimator.samples=1 must be at least 2"),
    ("rodeo", {"hidden": [0]}, "estimator.hidden=[0] must be a list of sizes from 1 to 1048576"),
    ("carms", {"samples": 1}, "estimator.samples=1 must be at least 2"),
    ("unordered_set", {"samples": 9}, "estimator.samples=9 must be from 2 to 8"),
    ("sum_and_sample", {"samples": 1}, "estimator.samples=1 must be from 2 to 8"),
    ("nvil", {"hidden": [0]}, "estimator.hidden=[0] must be a list of sizes from 1 to 1048576"),
    ("nvil", {"decay": 1.0}, "estimator.decay=1.0 must be at least 0 and less than 1"),
    ("local_expectation", {"samples": 0}, "estimator.samples=0 must be at least 1"),
]


@pytest.mark.parametrize(("name", "choices", "message"), WRONG)
def test_wrong_choices(name: str, choices: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        ESTIMATORS[name].config_class(**choices)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("name", "choices"), [("arm", {}), ("disarm", {}), ("rebar", {"parameterization": "binary"})])
def test_binary_estimators_refuse_other_latents(name: str, choices: dict[str, object]) -> None:
    config = ESTIMATORS[name].config_class(**choices)
    config.validate_latents(20, 2)
    with pytest.raises(
        UsageError, match=rf"^estimator={name}.* needs binary latents, k = 2; model\.latents has k = 3$"
    ):
        config.validate_latents(20, 3)
