"""Streams belong to (seed, epoch, purpose); slices of the seed axis belong to their seeds."""

import itertools

import pytest
import torch

from argmax_vae.randomness import PURPOSES, PlainNoise, SeedNoise, generator_for, stream_seed


def test_streams_are_reproducible_and_different() -> None:
    keys = list(itertools.product((0, 1, 7, 10_000), (0, 1, 299), PURPOSES))
    states = [stream_seed(*key) for key in keys]
    assert states == [stream_seed(*key) for key in keys]
    assert len(set(states)) == len(keys)
    assert all(0 <= state < 2**32 for state in states)


def test_generator_starts_at_its_stream() -> None:
    first = torch.rand(5, generator=generator_for(3, 2, "noise"))
    assert torch.equal(first, torch.rand(5, generator=generator_for(3, 2, "noise")))
    for other in ((4, 2, "noise"), (3, 1, "noise"), (3, 2, "order")):
        assert not torch.equal(first, torch.rand(5, generator=generator_for(*other)))


def test_unknown_purpose() -> None:
    with pytest.raises(ValueError, match="not in"):
        stream_seed(0, 0, "nonsense")


@pytest.mark.parametrize("samples", [None, 1, 3])
def test_slice_equals_the_lone_seed(samples: int | None) -> None:
    seeds = [5, 0, 17]
    together = SeedNoise(seeds, "cpu").restart(4, "noise")
    alone = [SeedNoise([seed], "cpu").restart(4, "noise") for seed in seeds]
    axis = 0 if samples is None else 1
    for _ in range(2):
        noise = together.uniform((3, 6, 2), samples)
        assert noise.shape == ((3, 6, 2) if samples is None else (samples, 3, 6, 2))
        for index, lone in enumerate(alone):
            assert torch.equal(noise.select(axis, index), lone.uniform((1, 6, 2), samples).squeeze(axis))


def test_restart_repeats_an_epoch() -> None:
    noise = SeedNoise([1, 2], "cpu")
    first = noise.restart(3, "noise").uniform((2, 4))
    second = noise.uniform((2, 4))
    assert not torch.equal(first, second)
    assert not torch.equal(first, noise.restart(4, "noise").uniform((2, 4)))
    assert torch.equal(first, noise.restart(3, "noise").uniform((2, 4)))
    assert torch.equal(second, noise.uniform((2, 4)))


@pytest.mark.parametrize("seeds", [1, 3])
def test_wrong_seed_axis(seeds: int) -> None:
    with pytest.raises(ValueError, match=f"{seeds} seeds, this source has 2"):
        SeedNoise([0, 1], "cpu").uniform((seeds, 4))


@pytest.mark.parametrize("samples", [None, 3])
def test_plain_noise(samples: int | None) -> None:
    first, second = (
        PlainNoise(torch.Generator().manual_seed(1), torch.float64).uniform((4, 2), samples) for _ in range(2)
    )
    assert first.shape == ((4, 2) if samples is None else (3, 4, 2))
    assert first.dtype == torch.float64
    assert torch.equal(first, second)
    assert ((first >= 0) & (first < 1)).all()
