"""Optimisation steps over a block of index batches: one after the other, or replayed from a captured CUDA graph."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from argmax_vae.products import compiler_options

Noise = dict[str, Tensor]
Step = Callable[[Int64[Tensor, "seeds batch"], Noise], Tensor]


class CompiledOrEager:
    """A function that torch.compile runs where that works, and that otherwise runs eagerly, after a warning.

    `path` says which. Compiled functions of earlier runs in the same process are forgotten first.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        torch.compiler.reset()
        self.function = function
        self.run: Callable[..., Any] = torch.compile(
            function, dynamic=False, fullgraph=True, options=compiler_options()
        )
        self.path = "compiled"
        self.tried = False

    def expect_new_shapes(self) -> None:
        """The next call compiles anew, and may fail again."""
        self.tried = self.path == "eager"

    def __call__(self, *arguments: Any) -> Any:
        if self.tried:
            return self.run(*arguments)
        self.tried = True
        try:
            return self.run(*arguments)
        except RuntimeError as error:
            reason = (str(error).strip().splitlines() or ["no reason given"])[0]
            warnings.warn(f"torch.compile failed, the step runs eagerly: {reason}", stacklevel=2)
            self.run, self.path = self.function, "eager"
            return self.run(*arguments)


class EagerSteps:
    """Runs `step(indices, noise)` for every batch of a block; `draw` gives the noise of one step."""

    path = "step by step"

    def __init__(self, step: Step, draw: Callable[[], Noise]) -> None:
        self.step, self.draw = step, draw

    def run(self, block: Int64[Tensor, "steps seeds batch"]) -> Float[Tensor, "steps seeds"]:
        """The loss of every step and seed, in nats per image."""
        return torch.stack([self.step(indices, self.draw()) for indices in block])


class CapturedSteps:
    """Captures the whole step (gather, forward, backward, Adam) as a CUDA graph once and replays it.

    Noise is drawn outside the graph into fixed buffers by the same generator calls as in `EagerSteps`, so both paths
    train on the same numbers. Capturing needs warm-up steps, which change parameters: `state` returns the tensors to
    put back afterwards.
    """

    path = "captured as a CUDA graph"
    warm_up_steps = 3

    def __init__(self, step: Step, draw: Callable[[], Noise], state: Callable[[], list[Tensor]]) -> None:
        self.step, self.draw, self.state = step, draw, state
        self.graph: torch.cuda.CUDAGraph | None = None

    def run(self, block: Int64[Tensor, "steps seeds batch"]) -> Float[Tensor, "steps seeds"]:
        """The loss of every step and seed, in nats per image."""
        losses = []
        for indices in block:
            noise = self.draw()
            if self.graph is None:
                self.capture(indices, noise)
            self.indices.copy_(indices)
            for name, buffer in self.noise.items():
                buffer.copy_(noise[name])
            assert self.graph is not None
            self.graph.replay()
            losses.append(self.loss.clone())
        return torch.stack(losses)

    def capture(self, indices: Int64[Tensor, "seeds batch"], noise: Noise) -> None:
        self.indices = indices.clone()
        self.noise = {name: values.clone() for name, values in noise.items()}
        before = [tensor.detach().clone() for tensor in self.state()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(self.warm_up_steps):
                self.step(self.indices, self.noise)
        torch.cuda.current_stream().wait_stream(stream)
        after = self.state()
        with torch.no_grad():
            for tensor, value in zip(after, before + [torch.zeros_like(t) for t in after[len(before) :]], strict=True):
                tensor.copy_(value)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.loss = self.step(self.indices, self.noise)
        self.graph = graph
