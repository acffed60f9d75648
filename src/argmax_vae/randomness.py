"""Random numbers that belong to a seed: what seed s draws never depends on which seeds run beside it.

Every stream is restarted from (seed, epoch, purpose) at the start of an epoch, so a run that resumes at an epoch
boundary draws what an uninterrupted run draws, and a checkpoint needs no generator state.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

PURPOSES = (
    "weights",
    "order",
    "noise",
    "binarization",
    "validation",
    "test",
    "final",
    "report",
    "estimator",
    "reference",
    "adaptation",
    "labels",
    "supervision",
    "gaussian",
    "dropout",
    "passes",
)
NOISES = ("auto", "generator", "counter")
"""Where a run's steps may get their noise from."""


def chosen_noise(requested: str, device: str) -> str:
    """`generator` or `counter`; `auto` is counter on CUDA, where steps then draw without the host, else generator."""
    if requested == "auto":
        return "counter" if device == "cuda" else "generator"
    return requested


def stream_seed(seed: int, epoch: int, purpose: str) -> int:
    """32-bit state of the stream of one seed, epoch and purpose (numpy's `SeedSequence` does the mixing)."""
    entropy = [seed, epoch, PURPOSES.index(purpose)]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint32)[0])


def generator_for(seed: int, epoch: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator at the start of the stream of one seed, epoch and purpose."""
    return torch.Generator(device).manual_seed(stream_seed(seed, epoch, purpose))


@runtime_checkable
class NoiseSource(Protocol):
    """Where an estimator gets its randomness from."""

    def uniform(self, shape: Sequence[int], samples: int | None = None) -> Tensor:
        """Uniform numbers on [0, 1), of `shape`, or `(samples, *shape)` when `samples` is given."""
        ...


class PlainNoise:
    """A noise source over one generator, for estimators used without a seed axis."""

    def __init__(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> None:
        self.generator = generator
        self.dtype = dtype

    def uniform(self, shape: Sequence[int], samples: int | None = None) -> Tensor:
        size = tuple(shape) if samples is None else (samples, *shape)
        return torch.rand(size, generator=self.generator, device=self.generator.device, dtype=self.dtype)


class SeedNoise:
    """A noise source with one generator per seed, filling slice s of the seed axis from the generator of seed s."""

    def __init__(self, seeds: Sequence[int], device: torch.device | str) -> None:
        self.seeds = tuple(seeds)
        self.generators = [torch.Generator(device) for _ in self.seeds]

    def restart(self, epoch: int, purpose: str) -> "SeedNoise":
        """Put every generator at the start of its stream for this epoch and purpose; returns itself."""
        for seed, generator in zip(self.seeds, self.generators, strict=True):
            generator.manual_seed(stream_seed(seed, epoch, purpose))
        return self

    def uniform(self, shape: Sequence[int], samples: int | None = None) -> Tensor:
        """Uniform numbers on [0, 1). `shape` starts with the seed axis.

        Raises ValueError when the seed axis has another length than the list of seeds.
        """
        seeds, *rest = shape
        if seeds != len(self.generators):
            raise ValueError(f"shape {tuple(shape)} has {seeds} seeds, this source has {len(self.generators)}")
        inner = rest if samples is None else [samples, *rest]
        noise = torch.empty((seeds, *inner), device=self.generators[0].device)
        for target, generator in zip(noise, self.generators, strict=True):
            torch.rand(target.shape, generator=generator, out=target)
        return noise if samples is None else noise.movedim(1, 0)


@runtime_checkable
class Streams(Protocol):
    """The noise of a run's steps. `inside`: a step may draw it in its graph, since none of it changes on the host."""

    inside: bool

    def restart(self, epoch: int) -> None:
        """Put the streams of every seed and purpose at their start for this epoch."""
        ...

    def of_step(self, purpose: str) -> NoiseSource:
        """Where the present step draws its numbers for a purpose."""
        ...


class GeneratorStreams:
    """Noise from generators, one for each seed and purpose, which run on the host."""

    inside = False

    def __init__(self, purposes: Sequence[str], seeds: Sequence[int], device: torch.device | str) -> None:
        self.sources = {purpose: SeedNoise(seeds, device) for purpose in purposes}

    def restart(self, epoch: int) -> None:
        for purpose, source in self.sources.items():
            source.restart(epoch, purpose)

    def of_step(self, purpose: str) -> SeedNoise:
        return self.sources[purpose]
