"""Binarization against the arithmetic it stands for, on all 256 intensities."""

import pytest
import torch

from argmax_vae.data.binarization import BINARIZATIONS, fixed_sample, prepare, rows_at, threshold
from argmax_vae.errors import UsageError

EVERY_VALUE = torch.arange(256, dtype=torch.uint8)


def test_threshold_rounds_the_intensity() -> None:
    assert torch.equal(threshold(EVERY_VALUE), torch.round(EVERY_VALUE.double() / 255).float())
    assert threshold(EVERY_VALUE).dtype == torch.float32


def test_rows_of_many_batches() -> None:
    pixels, indices = EVERY_VALUE.reshape(32, 8), torch.tensor([[3, 31], [0, 3], [7, 7]])
    assert torch.equal(rows_at(pixels, indices), pixels[indices])


def test_none_is_the_intensity() -> None:
    intensity = prepare(EVERY_VALUE, "none", None)
    assert torch.equal(intensity, torch.linspace(0, 1, 256, dtype=torch.float64).float())


def test_dynamic_compares_with_the_noise_of_the_caller() -> None:
    pixels = torch.tensor([0, 51, 51, 102, 255], dtype=torch.uint8)
    uniform = torch.tensor([0.0, 0.19, 0.21, 0.39, 1 - 2**-24])
    assert prepare(pixels, "dynamic", uniform).tolist() == [0.0, 1.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("binarization", BINARIZATIONS)
def test_shape_type_and_binary_pixels_are_kept(binarization: str) -> None:
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(2, (3, 4, 5), generator=generator)
    uniform = torch.rand(3, 4, 5, generator=generator)
    prepared = prepare((bits * 255).to(torch.uint8), binarization, uniform)
    assert prepared.dtype == torch.float32
    assert torch.equal(prepared, bits.float())


def test_dynamic_without_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="noise"):
        prepare(EVERY_VALUE, "dynamic", None)


def test_unknown_binarization_names_the_allowed_ones() -> None:
    with pytest.raises(UsageError) as caught:
        prepare(EVERY_VALUE, "treshold", None)
    assert all(part in str(caught.value) for part in ("'treshold'", *BINARIZATIONS))


def test_fixed_sample_depends_on_pixels_and_seed_alone() -> None:
    pixels = EVERY_VALUE.repeat(10, 1)
    state = torch.get_rng_state()
    first = fixed_sample(pixels, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    assert torch.equal(fixed_sample(pixels, seed=5), first)
    assert not torch.equal(fixed_sample(pixels, seed=6), first)
    assert first.dtype == torch.uint8
    assert set(first.unique().tolist()) == {0, 255}


def test_fixed_sample_has_the_intensity_as_mean() -> None:
    draws = 20_000
    frequency = (fixed_sample(EVERY_VALUE.repeat(draws, 1), seed=1) / 255).double().mean(dim=0)
    intensity = EVERY_VALUE.double() / 255
    deviation = (intensity * (1 - intensity) / draws).sqrt()
    assert ((frequency - intensity).abs() <= 5 * deviation).all()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fixed_sample_is_the_same_on_every_device() -> None:
    pixels = EVERY_VALUE.repeat(10, 1)
    assert torch.equal(fixed_sample(pixels.cuda(), seed=5).cpu(), fixed_sample(pixels, seed=5))
