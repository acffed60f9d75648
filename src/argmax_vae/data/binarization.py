"""From stored pixels (uint8, 0 to 255) to what a model sees (float32, 0 to 1).

- ``threshold``: 1 where the intensity is at least one half, as in the published code of "Direct Optimization
  through arg max for Discrete Variational Auto-Encoder", which rounds the intensity.
- ``dynamic``: every visit of an image draws each pixel anew from a Bernoulli distribution whose mean is the
  intensity (Salakhutdinov & Murray, "On the Quantitative Analysis of Deep Belief Networks", 2008).
  Validation and test images are drawn once, by ``fixed_sample``.
- ``none``: the intensity itself.

Pixels that are already 0 or 255 give the same result under all three.
"""

import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from argmax_vae.errors import UsageError

BINARIZATIONS = ("threshold", "dynamic", "none")


def threshold(pixels: UInt8[Tensor, "*batch pixels"]) -> Float32[Tensor, "*batch pixels"]:
    """Return 1 where ``pixels / 255 >= 0.5``, that is from 128 on, and 0 elsewhere."""
    return (pixels >> 7).to(torch.float32)


def rows_at(pixels: UInt8[Tensor, "images pixels"], indices: Int64[Tensor, "*batch"]) -> UInt8[Tensor, "*batch pixels"]:
    """`pixels[indices]`, copied row by row."""
    return pixels.index_select(0, indices.flatten()).unflatten(0, indices.shape)


def prepare(
    pixels: UInt8[Tensor, "*batch pixels"],
    binarization: str,
    uniform: Float[Tensor, "*batch pixels"] | None = None,
) -> Float32[Tensor, "*batch pixels"]:
    """Turn stored pixels into a model's input by one of ``BINARIZATIONS``.

    ``uniform`` is noise from [0, 1) on the device of ``pixels``; only ``dynamic`` reads it. The caller draws
    it, so that one generator per seed decides all randomness of a run.

    Raises ``ValueError`` when ``dynamic`` is given no noise, ``UsageError`` when ``binarization`` is unknown.
    """
    if binarization == "threshold":
        return threshold(pixels)
    intensity = pixels.to(torch.float32) / 255
    if binarization == "none":
        return intensity
    if binarization == "dynamic":
        if uniform is None:
            raise ValueError("dynamic binarization needs uniform noise of the shape of the pixels")
        return (uniform < intensity).to(torch.float32)
    raise UsageError(f"unknown binarization {binarization!r}; allowed: {', '.join(BINARIZATIONS)}")


def prepare_for_evaluation(
    pixels: UInt8[Tensor, "*batch pixels"], binarization: str
) -> Float32[Tensor, "*batch pixels"]:
    """As `prepare`, but pixels that are sampled in training are rounded instead, so that bounds are of fixed images."""
    return prepare(pixels, "threshold" if binarization == "dynamic" else binarization)


def fixed_sample(pixels: UInt8[Tensor, "*batch pixels"], seed: int) -> UInt8[Tensor, "*batch pixels"]:
    """Draw one Bernoulli sample, 0 or 255, of every pixel: a function of ``pixels`` and ``seed`` alone.

    The noise is drawn on the CPU, so the sample is the same on every device, and from a generator of its own,
    so the call neither reads nor advances any other random state.
    """
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(pixels.shape, dtype=torch.float32, generator=generator).to(pixels.device)
    return prepare(pixels, "dynamic", uniform).to(torch.uint8) * 255
