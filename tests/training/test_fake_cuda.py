"""Training steps as on a GPU, without one: no tensor of a step is on the CPU, and nothing is read on the host.

Two stand-ins for a GPU see what no machine without one can run:
- `meta` tensors have a shape and no numbers: whole steps run on them, with every backward pass, but the code is not
  told that the device is CUDA;
- fake CUDA tensors (`FakeTensorMode`) say that they are on CUDA: the code takes its CUDA branches, but PyTorch's
  backward pass would ask the driver for streams. So these see the forward pass and the optimiser, and of estimators
  that differentiate in their forward pass nothing.
Reading a number on the host is an error of both.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from argmax_vae.counter_noise import CounterStreams
from argmax_vae.training.steps import Noise
from argmax_vae.training.vae import DiscreteVAE
from combinations import BATCH, COMBINATIONS, COUNTED, SEEDS, Combination

FORWARD = [
    each
    for each in COMBINATIONS
    if each.estimator == "direct" or (each.model == "mixture" and each.kl == "analytic" and each.phase == "both")
    if each.estimator not in ("rebar", "relax", "imle", "double_control_variates", "rodeo")
]
"""Every estimator with one model, and one estimator with every model."""


def often(combination: Combination) -> bool:
    """What every run of the tests sees: all estimators with two models, and three of their kinds with all."""
    kind = (combination.model, combination.kl, combination.phase)
    return combination.estimator in ("direct", "gumbel_softmax", "relax") or kind in (
        ("linear", "analytic", "unlabelled"),
        ("mixture", "analytic", "both"),
    )


class NoneOnTheHost(TorchDispatchMode):
    """Fails at the first operator that takes or gives a CPU tensor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        assert all(tensor.device.type != "cpu" for tensor in tensors), f"{func} has a CPU tensor"
        return result


def step_on(device: str, module: DiscreteVAE, drawn: Noise) -> tuple[Tensor, Noise]:
    """Gives a module tensors of a device, without their numbers; returns the indices and noise of a step there."""

    def there(tensor: Tensor) -> Tensor:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)

    noise = {name: there(values) for name, values in drawn.items()}
    module._apply(there)
    module._device = torch.device(device, 0)
    return torch.zeros(len(SEEDS), BATCH, dtype=torch.int64, device=device), noise


@pytest.mark.parametrize(
    "combination",
    [pytest.param(each, id=str(each), marks=[] if often(each) else pytest.mark.slow) for each in COMBINATIONS],
)
def test_a_step_stays_on_its_device(combination: Combination) -> None:
    module = combination.module()
    indices, noise = step_on("meta", module, module.draw())
    module.optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with NoneOnTheHost():
        bound = module.step(indices, noise)
    assert bound.shape == (len(SEEDS),)
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in learned)


@pytest.mark.parametrize("combination", FORWARD, ids=str)
def test_the_forward_pass_and_the_optimiser_stay_on_cuda(combination: Combination) -> None:
    module = combination.module()
    drawn = module.draw()
    with FakeTensorMode():
        indices, noise = step_on("cuda", module, drawn)
        optimizer = module.configure_optimizers()
        for parameter in module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        with NoneOnTheHost():
            objective, *_ = module.terms(module.inputs(indices, noise), noise, module.steps_done)
            optimizer.step()
            optimizer.step()
    assert objective.device.type == "cuda"
    assert objective.requires_grad


def test_noise_that_a_step_draws_stays_on_cuda() -> None:
    module = COUNTED.module()
    with FakeTensorMode():
        step_on("cuda", module, {})
        module.noise = CounterStreams(module.seeds, module.steps_done)
        with NoneOnTheHost():
            drawn = module.draw()
    assert {values.device.type for values in drawn.values()} == {"cuda"}


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda value: value + torch.arange(3), "."),
        (lambda value: value * torch.tensor(2.0), "has a CPU tensor"),
        (lambda value: value * value.sum().item(), "."),
        (lambda value: value[value > 0], "."),
    ],
    ids=["a CPU tensor", "a CPU number", "a number read", "a shape that numbers decide"],
)
@pytest.mark.parametrize("device", ["meta", "cuda"])
def test_what_must_not_be_is_seen(device: str, wrong: Callable[[Tensor], Tensor], reason: str) -> None:
    with FakeTensorMode() if device == "cuda" else torch.device("cpu"):
        value = torch.zeros(3, device=device)
        with NoneOnTheHost(), pytest.raises(Exception, match=reason):
            wrong(value)
