"""Convolutional encoder and decoder of a mixture of Gaussians, for S seeds at once."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from argmax_vae.errors import require, require_one_of, require_sizes
from argmax_vae.models.layers import SeedLinear, SeedMLP
from argmax_vae.models.likelihoods import LIKELIHOODS
from argmax_vae.models.mixture import GaussianMixtureConfig, GaussianMixtureNetworks
from argmax_vae.randomness import generator_for


@dataclass
class AttributeConfig(GaussianMixtureConfig):
    """A mixture with the layers of `convolutions.ConvolutionalMixtureNetworks`: the combination of m attributes is one
    variable with k = 2ᵐ values. `channels`: of the convolutions; `likelihood`: bernoulli, or squared_error with tanh.
    """

    name: str = "attributes"
    latents: str = "1x8"
    gaussian: int = 64
    row: int = 128
    component_hidden: list[int] = field(default_factory=lambda: [128])
    dropout: float = 0.0
    gaussian_kl: str = "candidate"
    channels: list[int] = field(default_factory=lambda: [32, 64, 128, 256])
    likelihood: str = "squared_error"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.hidden == [], "model.hidden", self.hidden, "[] with model=attributes; set model.channels")
        require_sizes("model.channels", self.channels, at_least_one=True)
        require_one_of("model.likelihood", self.likelihood, LIKELIHOODS)


KERNEL, STRIDE, PADDING = 4, 2, 1
"""Every layer halves, or doubles, height and width."""


class SeedConvolution(nn.Module):
    """S convolutions side by side that halve height and width, or, if `transposed`, double them.

    Seeds are groups of channels: inputs are (rows, seeds·inputs, height, width). Weights are those of torch.nn.Conv2d,
    (seeds, outputs, inputs, 4, 4), or of torch.nn.ConvTranspose2d, (seeds, inputs, outputs, 4, 4), and start uniform on
    ±1/√(number of inputs that an output sees). With `rounded` the factors are bfloat16, with
    `channels_last` images lie in memory as (rows, height, width, channels).
    """

    rounded = False
    channels_last = False

    def __init__(
        self, inputs: int, outputs: int, generators: Sequence[torch.Generator], transposed: bool = False
    ) -> None:
        super().__init__()
        self.transposed = transposed
        seen = inputs * (KERNEL // STRIDE) ** 2 if transposed else inputs * KERNEL**2
        limit = 1 / math.sqrt(seen)
        shape = (inputs, outputs, KERNEL, KERNEL) if transposed else (outputs, inputs, KERNEL, KERNEL)
        weights = [torch.rand(shape, generator=g).mul_(2).sub_(1) for g in generators]
        biases = [torch.rand(outputs, generator=g).mul_(2).sub_(1) for g in generators]
        self.weight = nn.Parameter(torch.stack(weights) * limit)
        self.bias = nn.Parameter(torch.stack(biases) * limit)

    def forward(
        self, inputs: Float[Tensor, "rows seeds_in high wide"]
    ) -> Float[Tensor, "rows seeds_out high_2 wide_2"]:
        convolve = F.conv_transpose2d if self.transposed else F.conv2d
        weight, bias = self.weight.flatten(0, 1), self.bias.flatten().view(-1, 1, 1)
        if self.rounded:
            inputs, weight = inputs.bfloat16(), weight.bfloat16()
        if self.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            weight = weight.contiguous(memory_format=torch.channels_last)
        outputs = convolve(inputs, weight, None, STRIDE, PADDING, groups=self.weight.shape[0])
        return outputs.to(bias.dtype) + bias


def fold(
    images: Float[Tensor, "seeds rows pixels"], shape: tuple[int, int, int]
) -> Float[Tensor, "rows seeds_channels high wide"]:
    """Flat images with their seeds as groups of channels."""
    return images.unflatten(-1, shape).transpose(0, 1).flatten(1, 2)


def unfold(images: Float[Tensor, "rows seeds_channels high wide"], seeds: int) -> Float[Tensor, "seeds rows pixels"]:
    """The inverse of `fold`."""
    return images.unflatten(1, (seeds, -1)).transpose(0, 1).flatten(2)


class ConvolutionalMixtureNetworks(GaussianMixtureNetworks):
    """Convolutional encoder and decoder of the mixture of k Gaussians of dimension c (the paper's Figure 4).

    Convolutions with `channels` halve height and width one after the other; the discrete head and the rows of the
    components are layers on all that is left. From each row, layers that the components share (`component_hidden`,
    then 2c) make its Gaussian: "the last two layers of the continuous latent model … are linear layers that share
    parameters". The decoder, a linear layer on diag(z)·z_c and transposed convolutions, mirrors the encoder.

    Raises ValueError when height or width cannot be halved once for each of `channels`.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        k: int,
        gaussian: int,
        channels: Sequence[int],
        row: int,
        component_hidden: Sequence[int],
        dropout: float,
        likelihood: str,
        seeds: Sequence[int],
        component_bias: bool = False,
    ) -> None:
        super().__init__(k, gaussian, dropout, component_bias)
        factor = STRIDE ** len(channels)
        if shape[1] % factor or shape[2] % factor:
            raise ValueError(f"{len(channels)} layers cannot halve images of {shape[1]} × {shape[2]}")
        self.likelihood, self.shape = likelihood, shape
        self.inner = (channels[-1], shape[1] // factor, shape[2] // factor)
        features = math.prod(self.inner)
        generators = [generator_for(seed, 0, "weights") for seed in seeds]
        sizes = [shape[0], *channels]
        self.encoder = nn.ModuleList(SeedConvolution(a, b, generators) for a, b in itertools.pairwise(sizes))
        self.discrete = SeedLinear(features, k, generators)
        self.rows = SeedLinear(features, row * k, generators)
        self.component = SeedMLP([row, *component_hidden, 2 * gaussian], generators)
        self.first = SeedLinear(k * self.width, features, generators)
        self.decoder = nn.ModuleList(
            SeedConvolution(a, b, generators, transposed=True) for a, b in itertools.pairwise(reversed(sizes))
        )

    def features(self, images: Float[Tensor, "seeds batch pixels"]) -> Float[Tensor, "seeds batch features"]:
        scaled = 2 * images - 1 if self.likelihood == "squared_error" else images
        values = fold(scaled, self.shape)
        for layer in self.encoder:
            values = torch.relu(layer(values))
        return unfold(values, images.shape[0])

    def decoder_first(self) -> SeedLinear:
        return self.first

    def decoder_rest(self, values: Float[Tensor, "seeds rows units"]) -> Float[Tensor, "seeds rows pixels"]:
        images = fold(values, self.inner)
        for layer in self.decoder:
            images = layer(torch.relu(images))
        return unfold(images, values.shape[0])
