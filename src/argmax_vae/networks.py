"""Encoders and decoders of S independent models at once: the only layers that know the seed axis."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from argmax_vae.products import seed_product
from argmax_vae.randomness import generator_for

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "leaky_relu": F.leaky_relu}
NEGATIVE_SLOPE = 0.01
PRECISIONS = ("float32", "tf32", "bfloat16")


class SeedLinear(nn.Module):
    """S linear layers side by side: out[s] = in[s] · weight[s] + bias[s].

    Weights are (seeds, inputs, outputs) and start as `torch.nn.Linear` starts: uniform on ±1/√inputs. With `rounded`
    both factors and the result of a product are bfloat16 on a GPU; on a CPU `products_in` decides.
    """

    rounded = False

    def __init__(self, inputs: int, outputs: int, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        limit = 1 / math.sqrt(inputs)
        weights = [torch.rand(outputs, inputs, generator=g).mul_(2).sub_(1).T for g in generators]
        biases = [torch.rand(1, outputs, generator=g).mul_(2).sub_(1) for g in generators]
        self.weight = nn.Parameter((torch.stack(weights) * limit).contiguous())
        self.bias = nn.Parameter(torch.stack(biases) * limit)

    def forward(self, inputs: Float[Tensor, "seeds rows inputs"]) -> Float[Tensor, "seeds rows outputs"]:
        return self.product(inputs, self.weight) + self.bias

    def product(
        self, left: Float[Tensor, "products rows inner"], right: Float[Tensor, "products inner columns"]
    ) -> Float[Tensor, "products rows columns"]:
        """Products of matrices, in the precision of this layer."""
        if self.rounded and left.device.type != "cpu":
            return torch.bmm(left.bfloat16(), right.bfloat16()).to(self.bias.dtype)
        return seed_product(left, right)


def set_precision(networks: nn.Module, precision: str) -> None:
    """Let all layers that can multiply in the given precision (of PRECISIONS) do so."""
    set_in_layers(networks, "rounded", precision == "bfloat16")


@contextmanager
def products_in(precision: str, device: torch.device) -> Iterator[None]:
    """Inside, factors of float32 products are rounded as they are multiplied, to 10 bits by CUDA in `tf32`.

    In `bfloat16` a CPU rounds them to 7 bits if it can multiply such numbers, and not at all if it cannot; sums stay
    float32. On CUDA the layers themselves round. Of PyTorch's two ways to ask for that, this is the one after which
    `torch.compile` still knows the precision.
    """
    wanted = {("tf32", "cuda"): "high", ("bfloat16", "cpu"): "medium"}.get((precision, device.type))
    if wanted is None:
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(wanted)
    torch.backends.cudnn.allow_tf32 = wanted == "high"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def set_in_layers(networks: nn.Module, name: str, value: bool) -> None:
    """Set an attribute of all layers that have it."""
    for module in networks.modules():
        if hasattr(module, name):
            setattr(module, name, value)


def activation_function(name: str, negative_slope: float = NEGATIVE_SLOPE) -> Callable[[Tensor], Tensor]:
    """The function that ACTIVATIONS names; `negative_slope` is that of leaky_relu."""
    return partial(F.leaky_relu, negative_slope=negative_slope) if name == "leaky_relu" else ACTIVATIONS[name]


class SeedMLP(nn.Module):
    """Linear layers of the given sizes with an activation (of ACTIVATIONS) between them, one network per seed.

    `negative_slope` is that of leaky_relu. The weights of seed s come from a generator seeded by s alone.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        generators: Sequence[torch.Generator],
        activation: str = "relu",
        negative_slope: float = NEGATIVE_SLOPE,
    ) -> None:
        super().__init__()
        self.activation = activation_function(activation, negative_slope)
        self.layers = nn.ModuleList(
            SeedLinear(inputs, outputs, generators) for inputs, outputs in itertools.pairwise(sizes)
        )

    @property
    def is_linear(self) -> bool:
        """True when there is one layer only, which allows losses by row differences."""
        return len(self.layers) == 1

    def forward(self, inputs: Float[Tensor, "seeds rows inputs"]) -> Float[Tensor, "seeds rows outputs"]:
        first, *others = self.layers
        outputs = first(inputs)
        for layer in others:
            outputs = layer(self.activation(outputs))
        return outputs


class Networks(nn.Module):
    """Encoder and decoder of a discrete variational auto-encoder, for every seed.

    The encoder maps images (seeds, batch, pixels) to logits (seeds, batch, n, k); the decoder maps codes to Bernoulli
    logits (seeds, batch, pixels), or to what `likelihood` (of reconstruction.LIKELIHOODS) says. `hidden` are the sizes
    between, as in 784-hidden-n·k and n·k-hidden-784 (decoder sizes reversed). Encoder and decoder of seed s are drawn
    one after the other from the stream of seed s.
    """

    def __init__(
        self,
        pixels: int,
        n: int,
        k: int,
        hidden: Sequence[int],
        seeds: Sequence[int],
        likelihood: str = "bernoulli",
    ) -> None:
        super().__init__()
        self.n, self.k, self.likelihood = n, k, likelihood
        generators = [generator_for(seed, 0, "weights") for seed in seeds]
        self.encoder = SeedMLP([pixels, *hidden, n * k], generators)
        self.decoder = SeedMLP([n * k, *reversed(hidden), pixels], generators)

    def encode(self, images: Float[Tensor, "seeds batch pixels"]) -> Float[Tensor, "seeds batch n k"]:
        """Logits of images with values in [0, 1], which the squared error scales to [−1, 1]."""
        inputs = 2 * images - 1 if self.likelihood == "squared_error" else images
        return self.encoder(inputs).unflatten(-1, (self.n, self.k))

    def decode(self, codes: Float[Tensor, "seeds rows n k"]) -> Float[Tensor, "seeds rows pixels"]:
        return self.decoder(codes.flatten(-2))


class GaussianMixtureNetworks(nn.Module):
    """What encoders and decoders of mixtures of k Gaussians of dimension c have in common, for every seed.

    The features of an image feed the discrete head (`discrete`: k logits) and the continuous head: `rows` makes a row
    of numbers for each of the k components, and from each row one network that all of them share (`component`, with
    dropout before its last layer) makes the mean and the logarithm of the variance of its Gaussian. The decoder is fed
    the matrix diag(z)·z_c, row after row (the paper's section 6.1). Subclasses make these modules.
    """

    discrete: nn.Module
    rows: SeedLinear
    component: SeedMLP
    likelihood = "bernoulli"

    def __init__(self, k: int, gaussian: int, dropout: float) -> None:
        super().__init__()
        self.n, self.k, self.gaussian, self.dropout = 1, k, gaussian, dropout

    def features(self, images: Float[Tensor, "seeds batch pixels"]) -> Float[Tensor, "seeds batch features"]:
        """What both heads see of the images, whose values are in [0, 1]."""
        raise NotImplementedError

    def decoder_first(self) -> SeedLinear:
        """The decoder's first layer, on k·c inputs."""
        raise NotImplementedError

    def decoder_rest(self, values: Float[Tensor, "seeds rows units"]) -> Float[Tensor, "seeds rows pixels"]:
        """The decoder's outputs, given those of its first layer."""
        raise NotImplementedError

    def encode(
        self,
        images: Float[Tensor, "seeds batch pixels"],
        dropout: Float[Tensor, "seeds batch k width"] | None = None,
    ) -> tuple[
        Float[Tensor, "seeds batch 1 k"],
        Float[Tensor, "seeds batch k c"],
        Float[Tensor, "seeds batch k c"],
    ]:
        """Logits of the component, and means and logarithms of the variances of all components.

        `dropout` are uniform numbers that decide which of the last hidden units of each row are dropped; None in
        evaluation, where none are.
        """
        common = self.features(images)
        rows = self.rows(common).unflatten(-1, (self.k, -1))
        values = rows.flatten(1, 2)
        first, *others = self.component.layers
        values = first(values)
        for layer in others[:-1]:
            values = layer(self.component.activation(values))
        if others:
            values = self.component.activation(values)
            if dropout is not None:
                values = values * (dropout.flatten(1, 2) >= self.dropout) / (1 - self.dropout)
            values = others[-1](values)
        mean, log_variance = values.unflatten(1, rows.shape[1:3]).chunk(2, -1)
        return self.discrete(common).unsqueeze(-2), mean, log_variance

    def decode(
        self, codes: Float[Tensor, "seeds rows 1 k"], gaussian: Float[Tensor, "seeds rows k c"]
    ) -> Float[Tensor, "seeds rows pixels"]:
        """Decoder outputs of diag(z)·z_c."""
        return self.decoder_rest(self.decoder_first()((codes.movedim(-1, -2) * gaussian).flatten(-2)))

    def decode_components(self, gaussian: Float[Tensor, "seeds batch k c"]) -> Float[Tensor, "seeds k batch pixels"]:
        """Decoder outputs of every component: its first layer sees one block of k·c inputs, the rest is dense."""
        first, (seeds, _, k, c) = self.decoder_first(), gaussian.shape
        blocks = first.weight.unflatten(1, (k, c)).flatten(0, 1)
        values = first.product(gaussian.movedim(2, 1).flatten(0, 1), blocks).unflatten(0, (seeds, k))
        return self.decoder_rest((values + first.bias.unsqueeze(1)).flatten(1, 2)).unflatten(1, (k, -1))


class MixtureNetworks(GaussianMixtureNetworks):
    """Fully connected encoder and decoder of the mixture of k Gaussians of dimension c (the paper's section 6.1).

    A trunk pixels-`hidden` feeds the discrete head (`discrete_hidden`, then k logits) and the continuous head: rows of
    `row` numbers, and the shared network `component_hidden`, then 2c. The decoder is k·c-`decoder_hidden`-pixels.
    `negative_slope` is that of leaky_relu in trunk and discrete head, `component_negative_slope` in the shared network.
    """

    def __init__(
        self,
        pixels: int,
        k: int,
        gaussian: int,
        hidden: Sequence[int],
        discrete_hidden: Sequence[int],
        row: int,
        component_hidden: Sequence[int],
        decoder_hidden: Sequence[int],
        activation: str,
        decoder_activation: str,
        dropout: float,
        seeds: Sequence[int],
        negative_slope: float = NEGATIVE_SLOPE,
        component_negative_slope: float = NEGATIVE_SLOPE,
    ) -> None:
        super().__init__(k, gaussian, dropout)
        generators = [generator_for(seed, 0, "weights") for seed in seeds]
        self.trunk = SeedMLP([pixels, *hidden], generators, activation, negative_slope)
        self.discrete = SeedMLP([hidden[-1], *discrete_hidden, k], generators, activation, negative_slope)
        self.rows = SeedLinear(hidden[-1], row * k, generators)
        component = [row, *component_hidden, 2 * gaussian]
        self.component = SeedMLP(component, generators, activation, component_negative_slope)
        self.decoder = SeedMLP([k * gaussian, *decoder_hidden, pixels], generators, decoder_activation)

    def features(self, images: Float[Tensor, "seeds batch pixels"]) -> Float[Tensor, "seeds batch features"]:
        return self.trunk(images)

    def decoder_first(self) -> SeedLinear:
        return cast(SeedLinear, self.decoder.layers[0])

    def decoder_rest(self, values: Float[Tensor, "seeds rows units"]) -> Float[Tensor, "seeds rows pixels"]:
        for layer in self.decoder.layers[1:]:
            values = layer(self.decoder.activation(values))
        return values
