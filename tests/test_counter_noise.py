"""Noise from counters: the published generator, even and independent numbers, keys and counters that are kept apart."""

import itertools

import pytest
import torch
from torch import Tensor

from argmax_vae.counter_noise import MASK, CounterNoise, CounterStreams, philox
from argmax_vae.randomness import PURPOSES, NoiseSource, chosen_noise
from chance import FALSE_ALARM, counts_p_value

PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0)
KNOWN_ANSWERS = {
    (0,) * 6: (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    (MASK,) * 6: (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    PI: (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
}
"""Of the file kat_vectors of Random123, the authors' library: counter and key, then words."""


def source(seeds: list[int], epoch: int = 0, purpose: str = "noise", step: int = 0) -> CounterNoise:
    streams = CounterStreams(seeds, torch.tensor(step))
    streams.restart(epoch)
    return streams.of_step(purpose)


@pytest.mark.parametrize("given", KNOWN_ANSWERS, ids=["zeros", "ones", "digits of π"])
def test_known_answers(given: tuple[int, ...]) -> None:
    """With words in tensors, and with the middle of the counter in plain numbers."""
    words = [torch.tensor([[word]]) for word in given]
    for second, third in ((words[1], words[2]), (given[1], given[2])):
        found = philox((words[0], second, third, words[3]), (words[4], words[5]))
        assert tuple(int(word) for word in found) == KNOWN_ANSWERS[given]


def test_numbers_are_words_of_their_counters() -> None:
    """Key (seed, epoch), counter (step, element, call, purpose); the upper 24 bits of every word, words in order."""
    noise = source([4, 9], epoch=3, purpose="dropout", step=7)
    assert isinstance(noise, NoiseSource)
    noise.uniform((2, 1))
    drawn = noise.uniform((2, 2, 3), samples=5)
    assert drawn.shape == (5, 2, 2, 3)
    assert drawn.dtype == torch.float32
    for index, seed in enumerate((4, 9)):
        flat = drawn[:, index].flatten()
        assert len(flat) == 30
        for element in range(8):
            words = philox((torch.tensor(7), element, 1, PURPOSES.index("dropout")), (seed, 3))
            expected = [int(word) // 256 / 2**24 for word in words][: 30 - 4 * element]
            assert flat[4 * element : 4 * element + 4].tolist() == expected


def of_many_counters(number: int) -> Tensor:
    """Numbers (number, …) with few elements to a counter: of 4 seeds, 2 epochs, 2 purposes, 4 steps, 3 calls."""
    drawn = []
    for epoch, purpose, step in itertools.product((0, 299), ("noise", "gaussian"), (0, 1, 2, 77)):
        noise = source([0, 1, 2, 31], epoch, purpose, step)
        drawn += [noise.uniform((4, number)) for _ in range(3)]
    return torch.stack(drawn, 1).flatten()


@pytest.mark.parametrize("elements", [8, 4096])
def test_numbers_are_uniform(elements: int) -> None:
    """Each of three parts of 8 bits of the 24, by chi-square at FALSE_ALARM/3; with little and much to a counter."""
    whole = (of_many_counters(elements) * 2**24).long()
    for shift in (0, 8, 16):
        counts = torch.bincount((whole >> shift) & 255, minlength=256).double()
        assert counts_p_value(counts, torch.full((256,), 1 / 256)) > FALSE_ALARM / 3


NEIGHBOURS = {
    "seeds": ({"seeds": [5]}, {"seeds": [6]}),
    "epochs": ({"epoch": 5}, {"epoch": 6}),
    "purposes": ({"purpose": PURPOSES[2]}, {"purpose": PURPOSES[3]}),
    "steps": ({"step": 5}, {"step": 6}),
    "seed and step": ({"seeds": [5], "step": 6}, {"seeds": [6], "step": 5}),
}


@pytest.mark.parametrize("kind", [*NEIGHBOURS, "calls", "elements"])
def test_neighbours_are_independent(kind: str) -> None:
    """Pairs of numbers fill the unit square evenly, by chi-square over 16 × 16 fields at FALSE_ALARM."""
    number = 100_000
    if kind in NEIGHBOURS:
        first, second = (source(**{"seeds": [0], **choices}).uniform((1, number)) for choices in NEIGHBOURS[kind])
    else:
        noise = source([0])
        first, second = noise.uniform((1, number)), noise.uniform((1, number))
        if kind == "elements":
            first, second = first[:, :-1], first[:, 1:]
    fields = (first * 16).long() * 16 + (second * 16).long()
    counts = torch.bincount(fields.flatten(), minlength=256).double()
    assert counts_p_value(counts, torch.full((256,), 1 / 256)) > FALSE_ALARM


@pytest.mark.parametrize("samples", [None, 3])
def test_a_slice_is_the_lone_seed(samples: int | None) -> None:
    seeds = [5, 0, 17]
    together = source(seeds, 4)
    alone = [source([seed], 4) for seed in seeds]
    for _ in range(2):
        noise = together.uniform((3, 6, 2), samples)
        for index, lone in enumerate(alone):
            expected = lone.uniform((1, 6, 2), samples)
            assert torch.equal(noise.narrow(0 if samples is None else 1, index, 1), expected)


def test_keys_and_step_are_read_where_they_lie() -> None:
    """A graph that was captured once sees the keys of later epochs and the count of later steps."""
    step = torch.tensor(0)
    streams = CounterStreams([1, 2], step)
    noise = streams.of_step("noise")

    def drawn() -> Tensor:
        noise.calls = 0
        return noise.uniform((2, 4))

    first = drawn()
    step += 1
    second = drawn()
    streams.restart(1)
    third = drawn()
    assert len(torch.stack([first, second, third]).unique()) == 24
    step -= 1
    streams.restart(0)
    assert torch.equal(first, drawn())


def test_what_a_source_cannot_do() -> None:
    with pytest.raises(ValueError, match="3 seeds, this source has 2"):
        source([0, 1]).uniform((3, 4))
    with pytest.raises(ValueError, match="not in"):
        source([0], purpose="nonsense")


def test_counters_are_the_default_on_cuda_alone() -> None:
    for requested, device, chosen in (
        ("auto", "cpu", "generator"),
        ("auto", "cuda", "counter"),
        ("generator", "cuda", "generator"),
        ("counter", "cpu", "counter"),
    ):
        assert chosen_noise(requested, device) == chosen
