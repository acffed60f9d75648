"""The discrete variational auto-encoder's configuration and its networks, for every seed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor, nn

from argmax_vae.errors import LARGEST_SIZE, require, require_one_of, require_sizes
from argmax_vae.models.layers import SeedMLP
from argmax_vae.models.likelihoods import LIKELIHOODS
from argmax_vae.randomness import generator_for


@dataclass
class ModelConfig:
    """`latents`: "nxk", n variables with k values each, such as 20x10; `hidden`: layer sizes between pixels and n·k."""

    name: str = "linear"
    latents: str = "20x10"
    hidden: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        valid = re.fullmatch(r"(0|[1-9][0-9]*)x(0|[1-9][0-9]*)", self.latents) is not None
        require(valid, "model.latents", self.latents, "n x k, such as 20x10")
        short = len(self.latents) <= 2 * len(str(LARGEST_SIZE)) + 1 and self.n * self.k <= LARGEST_SIZE
        require(short, "model.latents", self.latents, f"n x k with n times k at most {LARGEST_SIZE}")
        require(self.n >= 1, "model.latents", self.latents, "n x k with n at least 1")
        require(self.k >= 2, "model.latents", self.latents, "n x k with k at least 2")
        plain_name = re.fullmatch(r"[A-Za-z0-9_]{1,100}", self.name) is not None
        require(plain_name, "model.name", self.name, "at most 100 letters, digits and underscores")
        require_sizes("model.hidden", self.hidden)

    @property
    def n(self) -> int:
        return int(self.latents.split("x")[0])

    @property
    def k(self) -> int:
        return int(self.latents.split("x")[1])


@dataclass
class DeepConfig(ModelConfig):
    """Networks with several hidden layers; `likelihood`: bernoulli, or squared_error with a tanh output."""

    name: str = "deep"
    latents: str = "20x3"
    hidden: list[int] = field(default_factory=lambda: [400, 200])
    likelihood: str = "squared_error"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("model.likelihood", self.likelihood, LIKELIHOODS)


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
