"""Grids of images: samples from the prior, and test images above their reconstructions."""

from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from argmax_vae.data.binarization import prepare_for_evaluation
from argmax_vae.data.images import Dataset
from argmax_vae.latents import normal_from_uniform, one_hot_argmax
from argmax_vae.models.likelihoods import LIKELIHOODS
from argmax_vae.models.mixture import GaussianMixtureNetworks
from argmax_vae.randomness import PlainNoise, generator_for
from argmax_vae.runs.trackers import Pictures
from argmax_vae.training.mixture_vae import MixtureVAE
from argmax_vae.training.vae import DiscreteVAE


def grid(images: Float[Tensor, "rows columns pixels"], shape: tuple[int, int, int]) -> np.ndarray:
    """One picture of images, values in [0, 1], with a grey line of one pixel around each.

    Its shape is (rows·(height + 1) + 1, columns·(width + 1) + 1), with a last axis of three colours if there are any.
    """
    channels, height, width = shape
    rows, columns, _ = images.shape
    framed = torch.nn.functional.pad(images.reshape(rows, columns, channels, height, width), (0, 1, 0, 1), value=0.5)
    joined = framed.permute(2, 0, 3, 1, 4).reshape(channels, rows * (height + 1), columns * (width + 1))
    picture = torch.nn.functional.pad(joined, (1, 0, 1, 0), value=0.5)
    return (picture[0] if channels == 1 else picture.movedim(0, -1)).cpu().numpy()


def spread(module: DiscreteVAE, number: int) -> Float[Tensor, "number pixels"]:
    """Test images at equal distances in the split, as the encoder sees them in evaluation."""
    chosen = torch.linspace(0, len(module.test_pixels) - 1, number).long()
    return prepare_for_evaluation(module.test_pixels[chosen.to(module.test_pixels.device)], module.binarization)


def class_conditional(
    networks: GaussianMixtureNetworks,
    seed: int,
    position: int,
    rows: int,
    centres: Float[Tensor, "k c"] | None = None,
) -> Float[Tensor, "rows k pixels"]:
    """Mean images of every component (columns) with the same Gaussian codes (rows), by the networks at a position.

    The codes are from N(0, 1), or from it around the `centres` of the components.
    """
    k, c, seeds = networks.k, networks.gaussian, networks.rows.weight.shape[0]
    device = networks.rows.weight.device
    uniform = PlainNoise(generator_for(seed, 0, "report")).uniform((rows, 1, 1, c))
    gaussian = normal_from_uniform(uniform).to(device).expand(rows, k, k, c)
    gaussian = (gaussian if centres is None else gaussian + centres).flatten(0, 1)
    codes = torch.eye(k, device=device).expand(rows, k, k).flatten(0, 1).unsqueeze(-2)
    outputs = networks.decode(codes.expand(seeds, *codes.shape), gaussian.expand(seeds, *gaussian.shape))
    return LIKELIHOODS[networks.likelihood].mean(outputs[position]).unflatten(0, (rows, k))


@torch.no_grad()
def pictures_of_mixture(module: MixtureVAE, dataset: Dataset, columns: int = 10, rows: int = 10) -> Pictures:
    """Class-conditional mean images (the paper's Figure 7), and test images above their reconstructions."""
    networks = cast(GaussianMixtureNetworks, module.best)
    samples = class_conditional(networks, module.seeds[0], 0, rows)
    images = spread(module, columns)
    logits, mean, _ = networks.encode(images.expand(len(module.seeds), -1, -1))
    reconstructions = LIKELIHOODS[networks.likelihood].mean(networks.decode(one_hot_argmax(logits), mean)[0])
    return Pictures(grid(samples, dataset.shape), grid(torch.stack([images, reconstructions]), dataset.shape))


@torch.no_grad()
def pictures_of(module: DiscreteVAE, dataset: Dataset, columns: int = 10) -> Pictures:
    """Mean images of random codes, and of the codes of test images spread over the split; best networks, first seed.

    The random codes of a mixture have one Gaussian code in a row and one component in a column.
    """
    if isinstance(module, MixtureVAE):
        return pictures_of_mixture(module, dataset, columns)
    networks = module.best
    seeds = len(module.seeds)
    noise = PlainNoise(generator_for(module.seeds[0], 0, "report"))
    codes = networks.prior_codes(5 * columns, noise)
    mean = LIKELIHOODS[networks.likelihood].mean
    samples = mean(networks.decode(codes.expand(seeds, -1, -1, -1))[0])
    images = spread(module, columns)
    logits = networks.encode(images.expand(seeds, -1, -1))
    reconstructions = mean(networks.decode(one_hot_argmax(logits))[0])
    return Pictures(
        grid(samples.unflatten(0, (5, columns)), dataset.shape),
        grid(torch.stack([images, reconstructions]), dataset.shape),
    )


def stored_pictures(directory: Path) -> Pictures | None:
    """The pictures in a run's directory, if both are there."""
    try:
        samples, reconstructions = (
            np.asarray(Image.open(directory / f"{name}.png")) / 255 for name in ("samples", "reconstructions")
        )
    except OSError:
        return None
    return Pictures(samples, reconstructions)
