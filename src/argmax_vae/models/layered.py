"""Several layers of discrete variables: q(z₁|x) q(z₂|z₁) … above the image, p(z_L) … p(z₁|z₂) p(x|z₁) back to it."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from argmax_vae.errors import UsageError, require, require_sizes
from argmax_vae.latents import gumbel_from_uniform, one_hot_argmax
from argmax_vae.models.discrete import ModelConfig, Networks
from argmax_vae.models.layers import SeedMLP
from argmax_vae.randomness import NoiseSource, generator_for


@dataclass
class LayeredConfig(ModelConfig):
    """`latents`: of the first layer, next to the image; `further`: "nxk" of each layer above it; `hidden`: layer sizes
    between pixels and first codes; `further_hidden`: between the codes of a layer and those of the next. A prior that
    is learned is that of the last layer.
    """

    name: str = "layered"
    latents: str = "200x2"
    further: list[str] = field(default_factory=lambda: ["200x2"])
    further_hidden: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= len(self.further) <= 3, "model.further", self.further, "a list of one to three n x k")
        require_sizes("model.further_hidden", self.further_hidden)
        for latents in self.further:
            try:
                ModelConfig(latents=latents)
            except UsageError:
                require(False, "model.further", self.further, "a list of n x k, such as [200x2]")

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(n, k) of every layer, from the image up."""
        layers = (ModelConfig(latents=latents) for latents in (self.latents, *self.further))
        return [(layer.n, layer.k) for layer in layers]

    def networks(self, shape: tuple[int, int, int], seeds: Sequence[int]) -> "LayeredNetworks":
        return LayeredNetworks(math.prod(shape), self.sizes, self.hidden, self.further_hidden, seeds)


class LayeredNetworks(Networks):
    """`encoder` and `decoder` join the image and the first layer; `upward[l]` gives the logits of q(z_{l+2}|z_{l+1}),
    `downward[l]` those of p(z_{l+1}|z_{l+2}). Weights of seed s are drawn from the stream of s, in this order.
    """

    def __init__(
        self,
        pixels: int,
        sizes: Sequence[tuple[int, int]],
        hidden: Sequence[int],
        further_hidden: Sequence[int],
        seeds: Sequence[int],
    ) -> None:
        generators = [generator_for(seed, 0, "weights") for seed in seeds]
        (n, k), *_ = sizes
        encoder = SeedMLP([pixels, *hidden, n * k], generators)
        decoder = SeedMLP([n * k, *reversed(hidden), pixels], generators)
        super().__init__(n, k, encoder, decoder)
        self.sizes = list(sizes)
        self.upward, self.downward = nn.ModuleList(), nn.ModuleList()
        for (n, k), (above, values) in itertools.pairwise(sizes):
            self.upward.append(SeedMLP([n * k, *further_hidden, above * values], generators))
            self.downward.append(SeedMLP([above * values, *reversed(further_hidden), n * k], generators))

    def learn_prior(self, seeds: int) -> "LayeredNetworks":
        self.prior_logits = nn.Parameter(torch.zeros(seeds, *self.sizes[-1]))
        return self

    def up(self, layer: int, codes: Float[Tensor, "seeds rows n k"]) -> Float[Tensor, "seeds rows above values"]:
        """Logits of the layer above, layers counted from 0, given the codes of this one."""
        return self.upward[layer](codes.flatten(-2)).unflatten(-1, self.sizes[layer + 1])

    def down(self, layer: int, codes: Float[Tensor, "seeds rows above values"]) -> Float[Tensor, "seeds rows n k"]:
        """log p of the codes of a layer given those of the one above it."""
        return self.downward[layer](codes.flatten(-2)).unflatten(-1, self.sizes[layer]).log_softmax(-1)

    def prior_codes(self, number: int, noise: NoiseSource) -> Float[Tensor, "seeds number n k"]:
        """Codes of the first layer, drawn from the last one down; all seeds have the same noise."""
        first = next(self.parameters())
        seeds, device = first.shape[0], first.device
        for layer in reversed(range(len(self.sizes))):
            gumbel = gumbel_from_uniform(noise.uniform((number, *self.sizes[layer]))).to(device)
            if layer == len(self.sizes) - 1:
                top = gumbel if self.log_prior is None else self.log_prior + gumbel
                codes = one_hot_argmax(top.expand(seeds, -1, -1, -1))
            else:
                codes = one_hot_argmax(self.down(layer, codes) + gumbel)
        return codes
