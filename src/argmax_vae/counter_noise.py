"""Noise without a state: number i of a call is a function of seed, epoch, purpose, step and call alone.

It is Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), in tensor operations. A step
that is compiled or captured as a graph draws its own numbers with it, without a generator and without the host.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from argmax_vae.randomness import PURPOSES, GeneratorStreams, Streams, chosen_noise

ROUNDS = 10
MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)

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
    """The noise source of one step and purpose: keys are (seed, epoch), counters (step, element, call, purpose).

    An element is four numbers that follow each other. Calls are counted from 0.
    """

    def __init__(self, keys: Int64[Tensor, "2 seeds 1"], step: Int64[Tensor, ""], purpose: str) -> None:
        self.keys, self.step = keys, step
        self.purpose = PURPOSES.index(purpose)
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
        # The element is no factor of the first products: Triton could compute them from an index in 32 bits.
        elements = torch.arange(-(-size // 4), device=self.keys.device)
        words = philox((self.step, elements, self.calls, self.purpose), (self.keys[0], self.keys[1]))
        self.calls += 1
        noise = (torch.stack([torch.as_tensor(word) for word in words], -1).flatten(1)[:, :size] >> 8) * 2.0**-24
        noise = noise.reshape(seeds, *inner)
        return noise if samples is None else noise.movedim(1, 0)


class CounterStreams:
    """Noise from counters for the steps of a run, which may draw it inside: all that changes lies on the device.

    `step`: a count of steps that its owner advances after every one, up to 2³².
    """

    inside = True

    def __init__(self, seeds: Sequence[int], step: Int64[Tensor, ""]) -> None:
        self.step = step
        self.keys = torch.tensor([list(seeds), [0] * len(seeds)], device=step.device).unsqueeze(-1)

    def restart(self, epoch: int) -> None:
        self.keys[1] = epoch

    def of_step(self, purpose: str) -> CounterNoise:
        return CounterNoise(self.keys, self.step, purpose)


def streams_of(requested: str, purposes: Sequence[str], seeds: Sequence[int], step: Int64[Tensor, ""]) -> Streams:
    """The noise of a run's steps as `runtime.noise` asks for it; `step` as in CounterStreams, on the run's device."""
    if chosen_noise(requested, step.device.type) == "counter":
        return CounterStreams(seeds, step)
    return GeneratorStreams(purposes, seeds, step.device)
