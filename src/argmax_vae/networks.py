"""Encoders and decoders of S independent models at once: the only layers that know the seed axis."""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from argmax_vae.products import seed_product
from argmax_vae.randomness import generator_for


class SeedLinear(nn.Module):
    """S linear layers side by side: out[s] = in[s] · weight[s] + bias[s].

    Weights are (seeds, inputs, outputs) and start as `torch.nn.Linear` starts: uniform on ±1/√inputs.
    """

    def __init__(self, inputs: int, outputs: int, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        limit = 1 / math.sqrt(inputs)
        weights = [torch.rand(outputs, inputs, generator=g).mul_(2).sub_(1).T for g in generators]
        biases = [torch.rand(1, outputs, generator=g).mul_(2).sub_(1) for g in generators]
        self.weight = nn.Parameter((torch.stack(weights) * limit).contiguous())
        self.bias = nn.Parameter(torch.stack(biases) * limit)

    def forward(self, inputs: Float[Tensor, "seeds rows inputs"]) -> Float[Tensor, "seeds rows outputs"]:
        return seed_product(inputs, self.weight) + self.bias


class SeedMLP(nn.Module):
    """Linear layers of the given sizes with ReLU between them, one network per seed.

    The weights of seed s come from a generator seeded by s alone.
    """

    def __init__(self, sizes: Sequence[int], generators: Sequence[torch.Generator]) -> None:
        super().__init__()
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
            outputs = layer(torch.relu(outputs))
        return outputs


class Networks(nn.Module):
    """Encoder and decoder of a discrete variational auto-encoder, for every seed.

    The encoder maps images (seeds, batch, pixels) to logits (seeds, batch, n, k); the decoder maps codes to Bernoulli
    logits (seeds, batch, pixels). `hidden` are the sizes between, as in 784-hidden-n·k and n·k-hidden-784 (decoder
    sizes reversed). Encoder and decoder of seed s are drawn one after the other from the stream of seed s.
    """

    def __init__(self, pixels: int, n: int, k: int, hidden: Sequence[int], seeds: Sequence[int]) -> None:
        super().__init__()
        self.n, self.k = n, k
        generators = [generator_for(seed, 0, "weights") for seed in seeds]
        self.encoder = SeedMLP([pixels, *hidden, n * k], generators)
        self.decoder = SeedMLP([n * k, *reversed(hidden), pixels], generators)

    def encode(self, images: Float[Tensor, "seeds batch pixels"]) -> Float[Tensor, "seeds batch n k"]:
        return self.encoder(images).unflatten(-1, (self.n, self.k))

    def decode(self, codes: Float[Tensor, "seeds rows n k"]) -> Float[Tensor, "seeds rows pixels"]:
        return self.decoder(codes.flatten(-2))
