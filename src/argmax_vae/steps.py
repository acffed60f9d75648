"""Optimisation steps over a block of index batches: one after the other, or replayed from a captured CUDA graph."""

import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from argmax_vae.products import compiler_options

Noise = dict[str, Tensor]
Step = Callable[[Int64[Tensor, "seeds batch"], Noise], Tensor]

ADVICE = (
    r"`torch\.jit\.script_method` is ",
    r"TensorFloat32 tensor cores for float32 matrix multiplication available but not enabled",
    r"\s*Online softmax is disabled on the fly",
)
"""How the warnings begin that torch.compile gives about itself, and that nobody can act upon."""


@contextmanager
def without_advice() -> Iterator[None]:
    """Silence what `ADVICE` lists, and no other warning."""
    with warnings.catch_warnings():
        for beginning in ADVICE:
            warnings.filterwarnings("ignore", beginning)
        yield


def reason_of(error: BaseException) -> str:
    """One line about an error: its kind and its first line, those of a compiler's own error if it was wrapped."""
    error = getattr(error, "inner_exception", error)
    lines = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *lines[:1]])


def in_path(reason: str) -> str:
    """A reason as a part of `path`, whose parts are separated by semicolons."""
    return textwrap.shorten(reason.replace(";", ","), 100, placeholder=" …")


class CompiledOrEager:
    """Terms that torch.compile runs where that works, and that otherwise run eagerly, after a warning.

    `terms` returns what is differentiated, then anything. `path` says how it runs, and why if eagerly after all.
    Compiled functions of earlier runs in the same process are forgotten first.
    """

    def __init__(self, terms: Callable[..., tuple[Any, ...]], compiled: bool = True) -> None:
        self.terms = self.run = terms
        self.path = "eager"
        self.tried = not compiled
        if compiled:
            torch.compiler.reset()
            self.run = torch.compile(terms, dynamic=False, fullgraph=True, options=compiler_options())
            self.path = "compiled"

    def expect_new_shapes(self) -> None:
        """The next call compiles anew, and may fail again."""
        self.tried = self.run is self.terms

    def differentiate(self, optimizer: torch.optim.Optimizer, *arguments: Any) -> tuple[Any, ...]:
        """Put the gradients on the optimiser's parameters; returns what `terms` gives besides.

        Compilation of the backward pass may fail, too: a step that cannot be compiled is done again from the start.
        """
        if not self.tried:
            self.tried = True
            try:
                with without_advice():
                    return self.once(optimizer, *arguments)
            except Exception as error:
                reason = reason_of(error)
            warnings.warn(f"torch.compile failed, the steps run eagerly, which is slower: {reason}", stacklevel=2)
            self.run, self.path = self.terms, f"eager: {in_path(reason)}"
        return self.once(optimizer, *arguments)

    def once(self, optimizer: torch.optim.Optimizer, *arguments: Any) -> tuple[Any, ...]:
        optimizer.zero_grad(set_to_none=True)
        objective, *others = self.run(*arguments)
        objective.backward()
        return tuple(others)


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
    put back afterwards. When the capture is refused, steps go on one after the other, after a warning; `path` says so.
    """

    warm_up_steps = 3

    def __init__(self, step: Step, draw: Callable[[], Noise], state: Callable[[], list[Tensor]]) -> None:
        self.step, self.draw, self.state = step, draw, state
        self.path = "captured as a CUDA graph"
        self.take: Step | None = None

    def run(self, block: Int64[Tensor, "steps seeds batch"]) -> Float[Tensor, "steps seeds"]:
        """The loss of every step and seed, in nats per image."""
        losses = []
        for indices in block:
            noise = self.draw()
            if self.take is None:
                self.take = self.captured(indices, noise)
            losses.append(self.take(indices, noise))
        return torch.stack(losses)

    def captured(self, indices: Int64[Tensor, "seeds batch"], noise: Noise) -> Step:
        """The step as a graph to replay, or the step itself when its capture is refused; the state is as before."""
        self.indices = indices.clone()
        self.noise = {name: values.clone() for name, values in noise.items()}
        before = [tensor.detach().clone() for tensor in self.state()]
        stream = torch.cuda.current_stream()
        side = torch.cuda.Stream()
        side.wait_stream(stream)
        with torch.cuda.stream(side):
            for _ in range(self.warm_up_steps):
                self.step(self.indices, self.noise)
        stream.wait_stream(side)
        self.restore(before)
        self.graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self.graph):
                self.loss = self.step(self.indices, self.noise)
        except Exception as error:
            reason = reason_of(error.__context__ or error)
        else:
            return self.replay
        torch.cuda.set_stream(stream)
        self.restore(before)
        del self.graph, self.indices, self.noise
        warnings.warn(f"capture as a CUDA graph was refused, the steps run one by one, slower: {reason}", stacklevel=2)
        self.path = f"step by step: {in_path(reason)}"
        return self.step

    def restore(self, before: list[Tensor]) -> None:
        """Put the state back; what the optimiser has made since then starts at zero."""
        after = self.state()
        with torch.no_grad():
            for tensor, value in zip(after, before + [torch.zeros_like(t) for t in after[len(before) :]], strict=True):
                tensor.copy_(value)

    def replay(self, indices: Int64[Tensor, "seeds batch"], noise: Noise) -> Float[Tensor, "seeds"]:
        self.indices.copy_(indices)
        for name, buffer in self.noise.items():
            buffer.copy_(noise[name])
        self.graph.replay()
        return self.loss.clone()
