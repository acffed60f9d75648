"""Chunks of steps: their order, their losses, and what happens when they cannot be compiled or captured."""

import itertools
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.compilers import nop

from argmax_vae.training import steps
from argmax_vae.training.steps import CapturedSteps, CompiledOrEager, EagerSteps, Noise


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


# Compiled terms


class Scaled:
    """A parameter p and terms (p · value, value): the gradient of p is `value`."""

    def __init__(self) -> None:
        self.parameter = torch.ones(2, requires_grad=True)
        self.optimizer = torch.optim.SGD([self.parameter], lr=0.1)

    def terms(self, value: Tensor) -> tuple[Tensor, Tensor]:
        return (self.parameter * value).sum(), value

    def gradient(self, compiled: CompiledOrEager, value: float) -> list[float]:
        (seen,) = compiled.differentiate(self.optimizer, torch.tensor(value))
        assert seen.item() == value
        assert self.parameter.grad is not None
        return self.parameter.grad.tolist()


def compile_with(monkeypatch: pytest.MonkeyPatch, wrapped: Callable[[Any], Any]) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: wrapped(function))


def test_what_cannot_be_compiled_runs_eagerly_after_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def broken(*arguments: Any) -> Any:
        tried.append(arguments)
        raise RuntimeError("no C++ compiler; install one\nand more lines")

    compile_with(monkeypatch, lambda function: broken)
    problem = Scaled()
    compiled = CompiledOrEager(problem.terms)
    with pytest.warns(UserWarning, match="run eagerly, which is slower: RuntimeError: no C.. compiler; install one$"):
        assert problem.gradient(compiled, 3.0) == [3, 3]
    assert compiled.path == "eager: RuntimeError: no C++ compiler, install one"
    assert problem.gradient(compiled, 4.0) == [4, 4]
    compiled.expect_new_shapes()
    assert problem.gradient(compiled, 5.0) == [5, 5]
    assert len(tried) == 1


def test_new_shapes_that_cannot_be_compiled_run_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_small(function: Any) -> Any:
        def run(value: Tensor) -> Any:
            if value > 3:
                raise ValueError
            return function(value)

        return run

    compile_with(monkeypatch, only_small)
    problem = Scaled()
    compiled = CompiledOrEager(problem.terms)
    assert problem.gradient(compiled, 3.0) == [3, 3]
    assert compiled.path == "compiled"
    compiled.expect_new_shapes()
    with pytest.warns(UserWarning, match="ValueError$"):
        assert problem.gradient(compiled, 4.0) == [4, 4]
    assert compiled.path == "eager: ValueError"


def test_a_step_whose_backward_pass_cannot_be_compiled_is_done_again_eagerly() -> None:
    """The backward pass is compiled when it is first run. What the forward pass alone did leaves no trace."""

    def fails(graph: Any, inputs: Any) -> Any:
        raise ValueError("no kernel for this\nand more lines")

    backend = aot_autograd(fw_compiler=nop, bw_compiler=fails)
    problem = Scaled()
    compiled = CompiledOrEager(problem.terms)
    compiled.run = torch.compile(problem.terms, backend=backend, fullgraph=True)
    problem.parameter.grad = torch.full((2,), 100.0)
    with pytest.warns(UserWarning, match="run eagerly, which is slower: .*no kernel for this$"):
        assert problem.gradient(compiled, 3.0) == [3, 3]
    assert compiled.path.startswith("eager: ")
    assert compiled.path.endswith("no kernel for this")


def test_an_error_of_the_step_itself_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(value: Tensor) -> tuple[Tensor]:
        raise RuntimeError("shapes do not match")

    compile_with(monkeypatch, lambda function: function)
    with pytest.warns(UserWarning, match="shapes do not match"), pytest.raises(RuntimeError, match="shapes"):
        Scaled().gradient(CompiledOrEager(wrong), 1.0)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("`torch.jit.script_method` is deprecated. Please switch to `torch.compile` or `torch.export`.", FutureWarning),
        (
            "TensorFloat32 tensor cores for float32 matrix multiplication available but not enabled. Consider setting "
            "`torch.set_float32_matmul_precision('high')` for better performance.",
            UserWarning,
        ),
        ("\nOnline softmax is disabled on the fly since Inductor decides to\nsplit the reduction.", UserWarning),
    ],
)
def test_advice_of_the_compiler_is_silenced_and_no_other_warning(
    text: str, kind: type[Warning], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under `filterwarnings = error` the compiler's own warnings would make compilation fail."""

    def advising(function: Any) -> Any:
        def run(value: Tensor) -> Any:
            warnings.warn(text, kind, stacklevel=2)
            return function(value)

        return run

    compile_with(monkeypatch, advising)
    problem = Scaled()
    compiled = CompiledOrEager(problem.terms)
    assert problem.gradient(compiled, 3.0) == [3, 3]
    assert compiled.path == "compiled"
    with pytest.raises(UserWarning, match="something else"), steps.without_advice():
        warnings.warn("something else", stacklevel=2)


# Captured steps


class Descent:
    """Steps towards drawn targets, with everything that a step may change: parameter, optimiser, generator."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.parameter = torch.zeros(3, device=device, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.parameter], lr=0.1, capturable=device == "cuda")
        self.generator = torch.Generator(device).manual_seed(0)

    def step(self, indices: Tensor, noise: Noise) -> Tensor:
        loss = ((self.parameter - noise["target"]) ** 2).sum() + indices.sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach().reshape(1)

    def draw(self) -> Noise:
        return {"target": torch.rand(3, device=self.device, generator=self.generator)}

    def state(self) -> list[Tensor]:
        return [self.parameter, *(value for values in self.optimizer.state.values() for value in values.values())]

    def block(self) -> Tensor:
        return torch.arange(8, device=self.device).reshape(8, 1, 1)


class Refusing:
    """A capture that runs the step, as a CPU does, and is refused at its end, like one that CUDA found invalid."""

    def __init__(self, graph: object) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *raised: object) -> None:
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """What capturing asks of CUDA, on a CPU: streams that do nothing, and captures that are refused."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda entered: nullcontext())
    monkeypatch.setattr(torch.cuda, "set_stream", lambda entered: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", Refusing)


@pytest.mark.usefixtures("streams")
def test_a_capture_sees_the_layout_that_was_compiled_in_the_warm_up() -> None:
    """Whatever the layout of a block: indices laid out otherwise would be compiled for anew, within the capture."""
    problem = Descent()
    layouts = set()

    def step(indices: Tensor, noise: Noise) -> Tensor:
        layouts.add((indices.shape, indices.stride(), indices.dtype))
        return problem.step(indices, noise)

    block = torch.arange(24).reshape(1, 6, 4).permute(2, 0, 1)
    assert not block.is_contiguous()
    captured = CapturedSteps(step, problem.draw, problem.state, 4)
    with pytest.warns(UserWarning, match="capture as a CUDA graph was refused"):
        captured.run(block)
    assert layouts == {((1, 6), (6, 1), torch.int64)}


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize("in_step", [True, False])
def test_when_capture_is_refused_steps_go_on_one_by_one(in_step: bool) -> None:
    """From the same parameters, optimiser and noise, so the numbers are those of steps that were never captured."""
    problem, plain = Descent(), Descent()
    calls = itertools.count()

    def step(indices: Tensor, noise: Noise) -> Tensor:
        result = problem.step(indices, noise)
        if in_step and next(calls) == CapturedSteps.warm_up_steps:
            raise ValueError("a number is read on the host; no\nand more lines")
        return result

    reason = "ValueError: a number is read on the host" if in_step else "RuntimeError: CUDA error: operation failed"
    captured = CapturedSteps(step, problem.draw, problem.state, 3)
    with pytest.warns(UserWarning, match=f"capture as a CUDA graph was refused, .*: {reason}"):
        losses = captured.run(problem.block())
    assert captured.path.startswith(f"step by step: {reason}")
    assert ";" not in captured.path
    assert torch.equal(losses, EagerSteps(plain.step, plain.draw).run(plain.block()))
    assert torch.equal(captured.run(problem.block()), EagerSteps(plain.step, plain.draw).run(plain.block()))
    for one, other in zip(problem.state(), plain.state(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_capturing_puts_the_state_back() -> None:
    problem, plain = Descent("cuda"), Descent("cuda")
    captured = CapturedSteps(problem.step, problem.draw, problem.state, 3).run(problem.block())
    eager = EagerSteps(plain.step, plain.draw).run(plain.block())
    torch.testing.assert_close(captured, eager, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(problem.parameter, plain.parameter, rtol=1e-6, atol=1e-6)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_capture_that_reads_the_device_is_refused_and_steps_go_on() -> None:
    problem, plain = Descent("cuda"), Descent("cuda")

    def step(indices: Tensor, noise: Noise) -> Tensor:
        return problem.step(indices, noise) + noise["target"].sum().item() * 0

    captured = CapturedSteps(step, problem.draw, problem.state, 3)
    with pytest.warns(UserWarning, match="capture as a CUDA graph was refused"):
        losses = captured.run(problem.block())
    eager = EagerSteps(plain.step, plain.draw).run(plain.block())
    torch.testing.assert_close(losses, eager, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(problem.parameter, plain.parameter, rtol=1e-6, atol=1e-6)
    problem.parameter.detach().sum().item()
