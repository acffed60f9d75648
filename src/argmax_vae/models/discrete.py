"""The discrete variational auto-encoder's configuration and its networks, for every seed."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from argmax_vae.errors import LARGEST_SIZE, require, require_one_of, require_sizes
from argmax_vae.latents import gumbel_from_uniform, one_hot_argmax
from argmax_vae.models.layers import SeedMLP
from argmax_vae.models.likelihoods import LIKELIHOODS
from argmax_vae.randomness import NoiseSource, generator_for

PRIORS = ("uniform", "learned")


@dataclass
class ModelConfig:
    """`latents`: "nxk", n variables with k values each, such as 20x10; `hidden`: layer sizes between pixels and n·k;
    `prior`: uniform, or learned, a product of categorical distributions.
    """

    name: str = "linear"
    latents: str = "20x10"
    hidden: list[int] = field(default_factory=list)
    prior: str = "uniform"

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
        require_one_of("model.prior", self.prior, PRIORS)

    @property
    def n(self) -> int:
        return int(self.latents.split("x")[0])

    @property
    def k(self) -> int:
        return int(self.latents.split("x")[1])

    def networks(self, shape: tuple[int, int, int], seeds: Sequence[int]) -> "Networks":
        """Encoders and decoders of all seeds for images of this shape, (channels, height, width).

        A model of another package writes this alone, from `Networks` and, where one network knows one seed, `EachSeed`.
        """
        return Perceptrons(math.prod(shape), self.n, self.k, self.hidden, seeds)


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

    def networks(self, shape: tuple[int, int, int], seeds: Sequence[int]) -> "Networks":
        return Perceptrons(math.prod(shape), self.n, self.k, self.hidden, seeds, self.likelihood)


class Networks(nn.Module):
    """Encoder and decoder of a discrete variational auto-encoder, for every seed.

    `encoder` maps images (seeds, batch, pixels) to logits (seeds, batch, n·k); `decoder` maps flat codes
    (seeds, rows, n·k) to Bernoulli logits (seeds, rows, pixels), or to what `likelihood` (of
    likelihoods.LIKELIHOODS) says. Both have parameters with a seed axis in
    front, and no buffers: the best networks of a seed are kept by those. `prior_logits` (seeds, n, k) are those of a
    learned prior, which starts uniform; there are none before `learn_prior`.
    """

    def __init__(self, n: int, k: int, encoder: nn.Module, decoder: nn.Module, likelihood: str = "bernoulli") -> None:
        super().__init__()
        self.n, self.k, self.likelihood = n, k, likelihood
        self.encoder, self.decoder = encoder, decoder
        self.prior_logits: nn.Parameter | None = None

    def learn_prior(self, seeds: int) -> "Networks":
        """Give the networks of so many seeds a prior to learn; returns them."""
        self.prior_logits = nn.Parameter(torch.zeros(seeds, self.n, self.k))
        return self

    @property
    def log_prior(self) -> Float[Tensor, "seeds 1 n k"] | None:
        """log p(z_i = j) in nats, for all images of a seed; None for the uniform prior."""
        return None if self.prior_logits is None else self.prior_logits.log_softmax(-1).unsqueeze(1)

    def prior_codes(self, number: int, noise: NoiseSource) -> Float[Tensor, "any_seeds number n k"]:
        """Codes drawn from the prior, by the same noise for all seeds."""
        device = next(self.parameters()).device
        gumbel = gumbel_from_uniform(noise.uniform((number, self.n, self.k))).to(device)
        return one_hot_argmax(gumbel.unsqueeze(0) if self.log_prior is None else self.log_prior + gumbel)

    def encode(self, images: Float[Tensor, "seeds batch pixels"]) -> Float[Tensor, "seeds batch n k"]:
        """Logits of images with values in [0, 1], which the squared error scales to [−1, 1]."""
        inputs = 2 * images - 1 if self.likelihood == "squared_error" else images
        return self.encoder(inputs).unflatten(-1, (self.n, self.k))

    def decode(self, codes: Float[Tensor, "seeds rows n k"]) -> Float[Tensor, "seeds rows pixels"]:
        return self.decoder(codes.flatten(-2))


class Perceptrons(Networks):
    """Networks of linear layers with ReLU between: pixels-hidden-n·k, and n·k-hidden-pixels with `hidden` reversed.

    Encoder and decoder of seed s are drawn one after the other from the stream of seed s.
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
        generators = [generator_for(seed, 0, "weights") for seed in seeds]
        encoder = SeedMLP([pixels, *hidden, n * k], generators)
        decoder = SeedMLP([n * k, *reversed(hidden), pixels], generators)
        super().__init__(n, k, encoder, decoder, likelihood)


class EachSeed(nn.Module):
    """A network of one seed for every seed: what is at position s goes through a network with the parameters of s.

    `make` gives a new network, with parameters and without buffers. It is called under the stream of each seed alone;
    networks of one model that are made as different `part`s have different streams. Parameters are kept with a seed
    axis in front.
    """

    def __init__(self, make: Callable[[], nn.Module], seeds: Sequence[int], part: int = 0) -> None:
        super().__init__()
        made = []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(generator_for(seed, part, "weights").initial_seed())
                made.append(make())
        self.one_seed = (made[0],)
        self.names = [name for name, _ in made[0].named_parameters()]
        stacked = (torch.stack([module.get_parameter(name).detach() for module in made]) for name in self.names)
        self.parameters_of_seeds = nn.ParameterList(stacked)

    def forward(self, inputs: Float[Tensor, "seeds rows inputs"]) -> Float[Tensor, "seeds rows outputs"]:
        outputs = []
        for seed, rows in enumerate(inputs):
            chosen = {name: values[seed] for name, values in zip(self.names, self.parameters_of_seeds, strict=True)}
            outputs.append(functional_call(self.one_seed[0], chosen, (rows,)))
        return torch.stack(outputs)
