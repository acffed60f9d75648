"""Grids of images: samples from the prior, and test images above their reconstructions."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from argmax_vae.data.datasets import Dataset
from argmax_vae.latents import gumbel_from_uniform, one_hot_argmax
from argmax_vae.modules import DiscreteVAE
from argmax_vae.randomness import PlainNoise, generator_for
from argmax_vae.tracking import Pictures


def grid(images: Float[Tensor, "rows columns pixels"], shape: tuple[int, int, int]) -> np.ndarray:
    """One picture of grey images, values in [0, 1], with a grey line of one pixel around each.

    Its shape is (rows·(height + 1) + 1, columns·(width + 1) + 1).
    """
    _, height, width = shape
    rows, columns, _ = images.shape
    framed = torch.nn.functional.pad(images.reshape(rows, columns, height, width), (0, 1, 0, 1), value=0.5)
    joined = framed.permute(0, 2, 1, 3).reshape(rows * (height + 1), columns * (width + 1))
    return torch.nn.functional.pad(joined, (1, 0, 1, 0), value=0.5).cpu().numpy()


@torch.no_grad()
def pictures_of(module: DiscreteVAE, dataset: Dataset, columns: int = 10) -> Pictures:
    """Mean images of random codes, and of the codes of test images spread over the split; best networks, first seed."""
    networks, device = module.best, module.test_pixels.device
    n, k, seeds = networks.n, networks.k, len(module.seeds)
    noise = PlainNoise(generator_for(module.seeds[0], 0, "report"))
    codes = one_hot_argmax(gumbel_from_uniform(noise.uniform((5 * columns, n, k)))).to(device)
    samples = networks.decode(codes.expand(seeds, -1, -1, -1))[0].sigmoid()
    chosen = torch.linspace(0, len(module.test_pixels) - 1, columns).long()
    images = module.test_pixels[chosen.to(device)].float() / 255
    logits = networks.encode(images.expand(seeds, -1, -1))
    reconstructions = networks.decode(one_hot_argmax(logits))[0].sigmoid()
    return Pictures(
        grid(samples.unflatten(0, (5, columns)), dataset.shape),
        grid(torch.stack([images, reconstructions]), dataset.shape),
    )
