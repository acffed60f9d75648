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
