"""Noise without a state: number i of a call is a function of seed, epoch, purpose, step and call alone.

It is Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), in tensor operations. A step
that is compiled or captured as a graph draws its own numbers with it, without a generator and without the host.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from argmax_vae.randomness import PURPOSES

ROUNDS = 10
MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
PURPOSE_BITS = 8

Word = Tensor | int
"""32 bits, as non-negative int64 numbers."""


def product(word: Word, multiplier: int) -> tuple[Word, Word]:
    """The upper and the lower 32 bits of a product of two words.

    word · (multiplier − 2³²) fits into int64; the whole product does not, and signed overflow is undefined in C++.
    """
    less = word * (multiplier - 2**32)
    return (less >> 32) + word, less & MASK


def philox(counter: tuple[Word, Word, Word, Word], key: tuple[Word, Word]) -> tuple[Word, Word, Word, Word]:
    """Four random words, the Philox4x32-10 of a counter and a key; tensors are broadcast."""
    first, second, third, fourth = counter
    left, right = key
    for turn in range(ROUNDS):
        if turn:
            left, right = (left + KEY_STEPS[0]) & MASK, (right + KEY_STEPS[1]) & MASK
        upper, lower = product(first, MULTIPLIERS[0])
        other_upper, other_lower = product(third, MULTIPLIERS[1])
        first, second = other_upper ^ second ^ left, other_lower
        third, fourth = upper ^ fourth ^ right, lower
    return first, second, third, fourth


class CounterNoise:
    """The noise source of one step: its counters are (step, element, call), its keys those of the seeds.

    An element is four numbers that follow each other. Calls are counted from 0.
    """

    def __init__(self, keys: Int64[Tensor, "2 seeds 1"], step: Int64[Tensor, ""]) -> None:
        self.keys, self.step = keys, step
        self.calls = 0

    def uniform(self, shape: Sequence[int], samples: int | None = None) -> Float[Tensor, "..."]:
        """Uniform numbers on [0, 1), multiples of 2⁻²⁴. `shape` starts with the seed axis.

        Raises ValueError when the seed axis has another length than the list of seeds.
        """
        seeds, *rest = shape
        if seeds != self.keys.shape[1]:
            raise ValueError(f"shape {tuple(shape)} has {seeds} seeds, this source has {self.keys.shape[1]}")
        inner = rest if samples is None else [samples, *rest]
        size = math.prod(inner)
        # The element is no factor of the first products: Triton would compute them from an index in 32 bits.
        elements = torch.arange(-(-size // 4), device=self.keys.device)
        words = philox((self.step, elements, self.calls, 0), (self.keys[0], self.keys[1]))
        self.calls += 1
        noise = (torch.stack([torch.as_tensor(word) for word in words], -1).flatten(1)[:, :size] >> 8) * 2.0**-24
        noise = noise.reshape(seeds, *inner)
        return noise if samples is None else noise.movedim(1, 0)


class CounterStream:
    """Where the steps of a run get their noise: keys of (seed, epoch, purpose) in a buffer on the device.

    `step`: a count of steps on the device that its owner advances after each of at most 2³².
    """

    def __init__(self, seeds: Sequence[int], step: Int64[Tensor, ""]) -> None:
        self.seeds, self.step = tuple(seeds), step
        self.keys = torch.zeros(2, len(self.seeds), 1, dtype=torch.int64, device=step.device)

    def restart(self, epoch: int, purpose: str) -> "CounterStream":
        """Write the keys of this epoch and purpose, in place; returns itself. Keys of different triples differ.

        Raises ValueError for an epoch from 2²⁴ on.
        """
        if epoch >= 2 ** (32 - PURPOSE_BITS):
            raise ValueError(f"epoch {epoch} is beyond what a key holds")
        right = (epoch << PURPOSE_BITS) + PURPOSES.index(purpose)
        self.keys.copy_(torch.tensor([list(self.seeds), [right] * len(self.seeds)]).unsqueeze(-1))
        return self

    def of_step(self) -> CounterNoise:
        """The source of the numbers of the present step."""
        return CounterNoise(self.keys, self.step)
