"""Bias, spread and squared error of gradients, from their running sums."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


class Moments:
    """Running moments of errors g − e of S seeds: (seeds, coordinates) each, in float64.

    `exact_error` is the standard error of e as a fraction of its norm.
    """

    def __init__(
        self, exact: Float[Tensor, "seeds coordinates"], exact_error: Float[Tensor, "seeds"] | float = 0.0
    ) -> None:
        self.exact = exact.double()
        self.exact_error = torch.as_tensor(exact_error, device=exact.device).expand(len(exact))
        self.first = torch.zeros_like(self.exact)
        self.second = torch.zeros_like(self.exact)
        self.cosine = self.exact.new_zeros(len(exact))
        self.number = 0

    def add(self, gradient: Float[Tensor, "seeds coordinates"]) -> None:
        gradient = gradient.double()
        error = gradient - self.exact
        self.first += error
        self.second += error.square()
        self.cosine += torch.nan_to_num(torch.cosine_similarity(gradient, self.exact, dim=-1, eps=0.0))
        self.number += 1

    def relative_error(self) -> Float[Tensor, "seeds"]:
        """Standard error of the mean of what was added, as a fraction of that mean's norm, where `exact` is zero."""
        mean = self.first / self.number
        variance = (self.second / self.number - mean.square()).clamp_min(0).sum(-1)
        return (variance / self.number / mean.square().sum(-1)).sqrt()

    def results(self) -> dict[str, Float[Tensor, "seeds"]]:
        """The quantities of the module's docstring, for each seed."""
        mean = self.first / self.number
        variance = (self.second / self.number - mean.square()).clamp_min(0) * (self.number / (self.number - 1))
        deviation, size = variance.sqrt().mean(-1), self.exact.square().sum(-1)
        total = variance.sum(-1)
        return {
            "gradient_norm": size.sqrt(),
            "bias": mean.abs().mean(-1),
            "bias_noise": math.sqrt(2 / (math.pi * self.number)) * deviation,
            "standard_deviation": deviation,
            "squared_bias": (mean.square().sum(-1) - total / self.number) / size - self.exact_error.square(),
            "variance": total / size,
            "mean_squared_error": self.second.sum(-1) / self.number / size,
            "cosine": self.cosine / self.number,
        }
