"""Chunks of steps: their order, their losses, and the fall back from compiled to eager."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from argmax_vae import steps
from argmax_vae.steps import CapturedSteps, CompiledOrEager, EagerSteps, Noise


def test_eager_steps_draw_before_every_step_in_order() -> None:
    seen: list[tuple[list[int], float]] = []
    drawn = iter(torch.arange(10.0))

    def step(indices: Tensor, noise: Noise) -> Tensor:
        seen.append((indices[:, 0].tolist(), noise["uniform"].item()))
        return indices[:, 0].float() * 10

    block = torch.arange(6).reshape(3, 2, 1)
    losses = EagerSteps(step, lambda: {"uniform": next(drawn)}).run(block)
    assert seen == [([0, 1], 0.0), ([2, 3], 1.0), ([4, 5], 2.0)]
    assert losses.tolist() == [[0, 10], [20, 30], [40, 50]]


def test_what_cannot_be_compiled_runs_eagerly_after_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def broken(function: Any, **options: Any) -> Any:
        def run(*arguments: Any) -> Any:
            tried.append(arguments)
            raise RuntimeError("no working C++ compiler\nand more lines")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    double = CompiledOrEager(lambda value: value * 2)
    with pytest.warns(UserWarning, match="the step runs eagerly: no working C\\+\\+ compiler$"):
        assert double(torch.tensor(3)).item() == 6
    assert double.path == "eager"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert double(torch.tensor(4)).item() == 8
    assert len(tried) == 1


def test_new_shapes_that_cannot_be_compiled_run_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def only_one_shape(function: Any, **options: Any) -> Any:
        def run(value: Tensor) -> Any:
            compiled.append(value.shape)
            if len(set(compiled)) > 1:
                raise RuntimeError("no working C++ compiler")
            return function(value)

        return run

    monkeypatch.setattr(torch, "compile", only_one_shape)
    double = CompiledOrEager(lambda value: value * 2)
    assert double(torch.ones(1)).tolist() == [2]
    double.expect_new_shapes()
    with pytest.warns(UserWarning, match="the step runs eagerly"):
        assert double(torch.ones(2)).tolist() == [2, 2]
    double.expect_new_shapes()
    assert double(torch.ones(3)).tolist() == [2, 2, 2]
    assert len(compiled) == 2


def test_an_error_of_the_step_itself_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(value: Tensor) -> Tensor:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    with pytest.warns(UserWarning, match="shapes do not match"), pytest.raises(RuntimeError, match="shapes"):
        CompiledOrEager(wrong)(torch.tensor(1))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_capturing_puts_the_state_back() -> None:
    parameter = torch.zeros(3, device="cuda", requires_grad=True)
    optimizer = torch.optim.Adam([parameter], lr=0.1, capturable=True)
    generator = torch.Generator("cuda").manual_seed(0)

    def step(indices: Tensor, noise: Noise) -> Tensor:
        loss = ((parameter - noise["target"]) ** 2).sum() + indices.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach().reshape(1)

    def draw() -> Noise:
        return {"target": torch.rand(3, device="cuda", generator=generator)}

    def state() -> list[Tensor]:
        return [parameter, *(value for values in optimizer.state.values() for value in values.values())]

    block = torch.arange(8, device="cuda").reshape(8, 1, 1)
    captured = CapturedSteps(step, draw, state).run(block)
    result = parameter.detach().clone()
    with torch.no_grad():
        parameter.zero_()
    optimizer.state.clear()
    generator.manual_seed(0)
    eager = steps.EagerSteps(step, draw).run(block)
    torch.testing.assert_close(captured, eager, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(result, parameter.detach(), rtol=1e-6, atol=1e-6)
