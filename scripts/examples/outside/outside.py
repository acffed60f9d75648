"""An estimator, a data set and networks from outside; `pyproject.toml` beside this file makes them options."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from argmax_vae import Dataset, EachSeed, FromLosses, Images, ModelConfig, Networks, SampledConfig


@dataclass
class RankedConfig(SampledConfig):
    """`samples`: codes per image."""

    name: str = "ranked"
    samples: int = 4


class Ranked(FromLosses):
    """REINFORCE with the ranks of M losses in place of the losses, −1 for the lowest, 1 for the highest; biased."""

    config_class = RankedConfig

    def gradient(self, logits: Tensor, codes: Tensor, losses: Tensor, noise: dict, scheduled: dict) -> Tensor:
        ranks = losses.argsort(0).argsort(0) * 2 / max(1, len(losses) - 1) - 1
        return (ranks[..., None, None] * (codes - logits.softmax(-1))).mean(0)


def bars(directory: Path) -> Dataset:
    """Bars (Földiák 1990): each row and each column of 8 × 8 pixels is white with probability 1/8."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.rand(3000, 8, generator=generator) < 1 / 8 for _ in range(2))
    pixels = 255 * (rows.unsqueeze(2) | columns.unsqueeze(1)).flatten(1).to(torch.uint8)
    splits = (Images(part, None) for part in pixels.split([2000, 500, 500]))
    return Dataset("bars", (1, 8, 8), *splits, binary=True)


@dataclass
class ConvolutionalConfig(ModelConfig):
    """Two layers each way; `channels`: of the one between."""

    name: str = "convolutional"
    channels: int = 8

    def networks(self, shape: tuple[int, int, int], seeds: list[int]) -> Networks:
        inner = (self.channels, shape[1] // 2, shape[2] // 2)

        def encoder() -> nn.Module:
            layer = nn.Conv2d(shape[0], self.channels, 3, stride=2, padding=1)
            last = nn.Linear(math.prod(inner), self.n * self.k)
            return nn.Sequential(nn.Unflatten(-1, shape), layer, nn.ReLU(), nn.Flatten(), last)

        def decoder() -> nn.Module:
            first = nn.Linear(self.n * self.k, math.prod(inner))
            layer = nn.ConvTranspose2d(self.channels, shape[0], 4, stride=2, padding=1)
            return nn.Sequential(first, nn.ReLU(), nn.Unflatten(-1, inner), layer, nn.Flatten())

        return Networks(self.n, self.k, EachSeed(encoder, seeds), EachSeed(decoder, seeds, part=1))
