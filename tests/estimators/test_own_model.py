"""Logits and losses as models of one's own have them: excluded values, autocast, other types, mistakes."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from argmax_vae import Linear, StandaloneEstimator, UsageError, estimator
from argmax_vae.estimators import ESTIMATORS
from chance import FALSE_ALARM, mean_p_value
from helpers import latents
from tabular import TabularLoss, exact_gradient

BIASED = {
    *("direct", "direct_rao_blackwell", "imle", "gumbel_softmax", "straight_through", "decoupled_straight_through"),
    *("gapped_straight_through", "gumbel_rao", "zgr", "reinmax"),
}
UNBIASED = [name for name in ESTIMATORS if name not in BIASED]
DIFFERENTIATING = [
    *("imle", "gumbel_softmax", "straight_through", "decoupled_straight_through", "gapped_straight_through"),
    *("gumbel_rao", "zgr", "reinmax", "rebar", "relax", "double_control_variates", "rodeo"),
]


def ready(name: str, k: int = 3, **choices: Any) -> tuple[StandaloneEstimator, Tensor]:
    """An estimator, and logits (5, 2, k) for it that ask for a gradient; k = 2 for binary latents."""
    n, k = latents(name, 2, k)
    logits = torch.randn(5, n, k, generator=torch.Generator().manual_seed(3)).requires_grad_()
    return estimator(name, latents=(n, k), **choices), logits


def quadratic(codes: Tensor) -> Tensor:
    return (codes * torch.arange(1.0, 1 + codes.shape[-1], dtype=codes.dtype)).sum((-2, -1)).square()


def all_finite(chosen: StandaloneEstimator, logits: Tensor, objective: Tensor) -> bool:
    """Whether the objective, its gradients and all that is remembered are finite numbers."""
    objective.sum().backward()
    learned = [value.grad for value in chosen.parameters() if value.grad is not None]
    assert logits.grad is not None
    return all(bool(each.isfinite().all()) for each in (objective, logits.grad, *learned, *chosen.buffers()))


CHOICES: dict[str, list[dict[str, Any]]] = {
    "reinforce": [{"baseline": "moving_average"}],
    "imle": [{"step": "adaptive"}],
    "rebar": [{"parameterization": "binary"}],
    "relax": [{"parameterization": "binary"}],
    "nvil": [{"normalize": True}],
    "arsm": [{"reference": "one"}],
    "direct_rao_blackwell": [{"given": "others"}],
    "gapped_straight_through": [{"gap": "expected"}],
}
VARIANTS = [(name, choices) for name in ESTIMATORS for choices in [{}, *CHOICES.get(name, [])]]


@pytest.mark.parametrize(("name", "choices"), VARIANTS)
def test_an_excluded_value_has_no_gradient_and_spoils_no_number(name: str, choices: dict[str, Any]) -> None:
    """−∞ as logit, as one masks values; learned networks and norms must not see a huge number in its place."""
    chosen, logits = ready(name, 2 if "binary" in choices.values() else 3, **choices)
    with torch.no_grad():
        logits[:3, 0, 1] = -math.inf
    objective = chosen(logits, quadratic)
    assert all_finite(chosen, logits, objective)
    assert logits.grad is not None and torch.equal(logits.grad[:3, 0, 1], torch.zeros(3))
    assert all(value.grad is None or value.grad.abs().max() < 1e5 for value in chosen.parameters())


@pytest.mark.parametrize("name", UNBIASED)
def test_an_excluded_value_leaves_the_mean_right(name: str, generator: torch.Generator) -> None:
    """The mean over 20,000 images is the exact gradient of the values that remain; false alarms 1e-6."""
    n, k = latents(name)
    logits = torch.randn(n, k, generator=generator, dtype=torch.float64)
    logits[0, 1] = -math.inf
    loss = TabularLoss(torch.randn(k**n, generator=generator, dtype=torch.float64), n, k)
    batch = logits.expand(20_000, n, k).clone().requires_grad_()
    objective = estimator(name, latents=(n, k)).eval()(batch, loss.__call__, generator=generator)
    (gradient,) = torch.autograd.grad(objective.sum(), batch)
    kept = torch.arange(n * k) != 1
    assert mean_p_value(gradient.flatten(1)[:, kept], exact_gradient(logits, loss).flatten()[kept]) > FALSE_ALARM


@pytest.mark.parametrize("kind", ["function", "codes"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_autocast_is_for_the_loss_alone(name: str, kind: str) -> None:
    """With a loss that leaves autocast nothing to round, the gradient is that without autocast; the loss sees it."""
    chosen, logits = ready(name)
    generator = torch.Generator().manual_seed(0)
    noise, found, seen = chosen.draw(logits, generator), [], set()
    table = TabularLoss(torch.randn(logits.shape[-1] ** 2, generator=generator), 2, logits.shape[-1])

    class Told(TabularLoss):
        def __call__(self, codes: Tensor) -> Tensor:
            seen.add(torch.is_autocast_enabled("cpu"))
            with torch.autocast("cpu", enabled=False):
                return super().__call__(codes)

        def shared(self, codes: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                return super().shared(codes)

        def candidates(self, codes: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                return super().candidates(codes)

    told = Told(table.table, 2, logits.shape[-1])
    for enabled in (False, True):
        seen.clear()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            objective = copy.deepcopy(chosen)(logits, told.__call__ if kind == "function" else told, noise=noise)
        assert objective.dtype == torch.float32
        assert seen <= {enabled}
        found.append(torch.autograd.grad(objective.sum(), logits)[0])
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_losses_of_another_type_are_used_in_that_of_the_logits(name: str, dtype: torch.dtype) -> None:
    chosen, logits = ready(name)
    objective = chosen(logits, lambda codes: quadratic(codes).to(dtype))
    assert objective.dtype == torch.float32
    assert all_finite(chosen, logits, objective)


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name not in DIFFERENTIATING])
def test_a_black_box_may_count(name: str) -> None:
    """Losses that are whole numbers or truth values, and have no derivative."""
    chosen, logits = ready(name)
    for loss in (lambda codes: codes.argmax(-1).sum(-1), lambda codes: codes[..., 0, 0] > 0.5):
        assert all_finite(chosen, logits, chosen(logits, loss))


@pytest.mark.parametrize("name", DIFFERENTIATING)
def test_a_loss_without_the_derivative_that_is_needed_is_refused(name: str) -> None:
    """Its gradient would silently be zero; a parameter that the loss has beside the codes must not hide that."""
    parameter = torch.ones((), requires_grad=True)
    for loss in (
        lambda codes: codes.argmax(-1).sum(-1).float(),
        lambda codes: parameter * codes.argmax(-1).sum(-1),
        lambda codes: parameter * quadratic(codes.detach()),
    ):
        chosen, logits = ready(name)
        with pytest.raises(UsageError, match="not differentiable in the codes"):
            chosen(logits, loss)
        with torch.no_grad():
            assert chosen(logits, loss).isfinite().all()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_loss_that_changes_the_codes_is_refused(name: str) -> None:
    """The estimator would make its gradient from the changed codes; PyTorch itself refuses some."""
    chosen, logits = ready(name)
    with pytest.raises((UsageError, RuntimeError), match=r"in place|in-place|clone\(\)"):
        chosen(logits, lambda codes: codes.mul_(2).sum((-2, -1))).sum().backward()


@pytest.mark.parametrize("leading", [(), (0,), (2, 3)])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_any_leading_axes_and_an_empty_batch(name: str, leading: tuple[int, ...]) -> None:
    """What is remembered stays finite without images."""
    n, k = latents(name)
    chosen, logits = estimator(name, latents=(n, k)), torch.zeros(*leading, n, k, requires_grad=True)
    objective = chosen(logits, quadratic)
    assert objective.shape == leading
    assert all_finite(chosen, logits, objective)


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if latents(name) == (2, 3)])
def test_a_single_value_has_no_gradient(name: str) -> None:
    chosen, logits = estimator(name, latents=(2, 1)), torch.randn(4, 2, 1).requires_grad_()
    objective = chosen(logits, quadratic)
    assert all_finite(chosen, logits, objective)
    assert logits.grad is not None and logits.grad.abs().max() < 1e-6
    torch.testing.assert_close(objective, torch.full((4,), 4.0))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_copy_a_pickle_and_a_state_go_on_alike(name: str) -> None:
    chosen, logits = ready(name)
    chosen(logits, quadratic).sum().backward()
    fresh, _ = ready(name)
    fresh.load_state_dict(chosen.state_dict())
    copies = [chosen, copy.deepcopy(chosen), pickle.loads(pickle.dumps(chosen)), fresh]
    generators = (torch.Generator().manual_seed(1) for _ in copies)
    objectives = [
        each(logits, quadratic, generator=generator) for each, generator in zip(copies, generators, strict=True)
    ]
    slopes = [torch.autograd.grad(objective.sum(), logits)[0] for objective in objectives]
    assert all(torch.equal(slope, slopes[0]) for slope in slopes)
    assert {int(each.steps_done) for each in copies} == {2}


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_objective_can_be_looked_at_without_gradients(name: str, context: Callable[[], Any]) -> None:
    chosen, logits = ready(name)
    with context():
        assert chosen(logits.detach(), quadratic).isfinite().all()


def test_noise_for_half_precision_is_as_fine_as_that_of_float32() -> None:
    chosen = estimator("direct", samples=3)
    logits = torch.zeros(4, 2, 3, dtype=torch.bfloat16)
    drawn = chosen.draw(logits, torch.Generator().manual_seed(0))["uniform"]
    assert torch.equal(drawn, chosen.draw(logits.float(), torch.Generator().manual_seed(0))["uniform"])


def test_numbers_of_numpy_and_pairs_of_any_kind_are_taken() -> None:
    chosen = estimator("direct", epsilon=np.float32(0.5), samples=np.int64(2), latents=[2, 3])  # type: ignore[arg-type]
    assert chosen.inner.config.epsilon.value == 0.5 and chosen.inner.config.samples == 2
    assert chosen(torch.zeros(4, 2, 3), quadratic).shape == (4,)
    assert estimator("relax", latents=(2, 3), surrogate=(5,)).inner.config.surrogate == [5]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: estimator("direct", epsilon="linear"), "epsilon='linear' must be a number or a schedule"),
        (lambda: estimator("direct", epsilon=True), "epsilon=True must be a number or a schedule"),
        (lambda: estimator("direct", epsilon=Linear), "must be a number or a schedule"),
        (lambda: estimator("direct", samples="4"), "samples='4' must be a whole number"),
        (lambda: estimator("direct", samples=2.5), "samples=2.5 must be a whole number"),
        (lambda: estimator("gumbel_softmax", straight_through=1), "straight_through=1 must be True or False"),
        (lambda: estimator("reinforce", baseline=None), "baseline=None must be a word"),
        (lambda: estimator("rebar", initial_eta="1"), "initial_eta='1' must be a number"),
        (lambda: estimator("rodeo", hidden=100), "hidden=100 must be a list of whole numbers"),
        (lambda: estimator("direct", latents="2x3"), r"latents='2x3' must be \(n, k\)"),
        (lambda: estimator("direct")(torch.zeros(2, 0), quadratic), r"logits \(2, 0\) must be"),
        (lambda: estimator("direct")(torch.zeros(2, 3), lambda codes: codes.sum((-2, -1)) * 1j), "must be real"),
    ],
)
def test_mistakes_are_named(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()
