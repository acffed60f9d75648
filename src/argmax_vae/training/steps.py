"""Optimisation steps over a block of index batches: one after the other, or replayed from a captured CUDA graph."""

import logging
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from argmax_vae.models.matmul import compiler_options

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
    """Silence what `ADVICE` lists, and on a machine without CUDA that there is none; no other warning."""
    without_cuda = logging.getLogger("torch.utils.cpp_extension")
    before = without_cuda.level
    if not torch.cuda.is_available():
        without_cuda.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for beginning in ADVICE:
                warnings.filterwarnings("ignore", beginning)
            yield
    finally:
        without_cuda.setLevel(before)


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

    Index batches and losses of up to `capacity` steps lie on the device, where the graph counts its steps: a replay is
    all that a step asks of the host, unless `draw` gives noise. That is copied into fixed buffers; it comes from the
    same generator calls as in `EagerSteps`, so both train on the same numbers. Capturing needs warm-up steps, which
    change parameters: `state` returns the tensors to put back afterwards. When the capture is refused, steps go on one
    after the other, after a warning; `path` says so.
    """

    warm_up_steps = 3

    def __init__(self, step: Step, draw: Callable[[], Noise], state: Callable[[], list[Tensor]], capacity: int) -> None:
        self.step, self.draw, self.state, self.capacity = step, draw, state, capacity
        self.path = "captured as a CUDA graph"
        self.take: Callable[[int, Noise], None] | None = None

    def run(self, block: Int64[Tensor, "steps seeds batch"]) -> Float[Tensor, "steps seeds"]:
        """The loss of every step and seed, in nats per image."""
        return torch.cat([self.run_within_capacity(part) for part in block.split(self.capacity)])

    def run_within_capacity(self, block: Int64[Tensor, "steps seeds batch"]) -> Float[Tensor, "steps seeds"]:
        for place in range(len(block)):
            noise = self.draw()
            if self.take is None:
                self.take = self.captured(block, noise)
            if place == 0:
                self.block[: len(block)] = block
                self.place.zero_()
            self.take(place, noise)
        return self.losses[: len(block)].clone()

    def captured(self, block: Int64[Tensor, "steps seeds batch"], noise: Noise) -> Callable[[int, Noise], None]:
        """A step as a replay of its graph, or one by one when its capture is refused; the state is as before."""
        self.block = block.new_zeros((self.capacity, *block.shape[1:]))
        self.block[: len(block)] = block
        self.place = block.new_zeros(1)
        self.noise = {name: values.clone() for name, values in noise.items()}
        before = [tensor.detach().clone() for tensor in self.state()]
        stream = torch.cuda.current_stream()
        side = torch.cuda.Stream()
        side.wait_stream(stream)
        with torch.cuda.stream(side):
            for _ in range(self.warm_up_steps):
                loss = self.step(self.indices(), self.noise)
        stream.wait_stream(side)
        self.losses = loss.new_zeros((self.capacity, *loss.shape))
        self.restore(before)
        self.graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self.graph):
                loss = self.step(self.indices(), self.noise)
                self.losses.index_copy_(0, self.place, loss.detach().unsqueeze(0))
                self.place += 1
        except Exception as error:
            reason = reason_of(error.__context__ or error)
        else:
            return self.replay
        torch.cuda.set_stream(stream)
        self.restore(before)
        del self.graph, self.noise
        warnings.warn(f"capture as a CUDA graph was refused, the steps run one by one, slower: {reason}", stacklevel=2)
        self.path = f"step by step: {in_path(reason)}"
        return self.one

    def indices(self) -> Int64[Tensor, "seeds batch"]:
        """The index batch at `place`, of one layout in warm-up and capture: the capture compiles nothing anew."""
        return self.block.index_select(0, self.place).squeeze(0)

    def restore(self, before: list[Tensor]) -> None:
        """Put the state back; what the optimiser has made since then starts at zero."""
        after = self.state()
        with torch.no_grad():
            for tensor, value in zip(after, before + [torch.zeros_like(t) for t in after[len(before) :]], strict=True):
                tensor.copy_(value)

    def replay(self, place: int, noise: Noise) -> None:
        for name, buffer in self.noise.items():
            buffer.copy_(noise[name])
        self.graph.replay()

    def one(self, place: int, noise: Noise) -> None:
        self.losses[place] = self.step(self.block[place], noise).detach()
