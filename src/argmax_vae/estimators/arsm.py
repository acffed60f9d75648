"""ARSM (Yin, Yue and Zhou 2019): augment-REINFORCE-swap-merge, which is ARM for any k.

With π_i ~ Dirichlet(1, …, 1) for every variable, the code is z_i = argmin_c (log π_ic − φ_ic). In z^{c⇌j} the
entries c and j of π_i have changed places, for all variables at once; such a code is a sample of q like z = z^{j⇌j}.
A reference value j gives every value c its slope,

    ∇_{φ_ic} E_q[θ] = E[(θ(z^{c⇌j}) − 1/k Σ_m θ(z^{m⇌j})) (1 − k π_ij)].

`reference=all` averages over the k references, whose codes are partly the same; with `one` (ARS) each image has its own
random j. Unbiased. With k = 2 both are ARM. Cost: k(k − 1)/2 + 1 decoder evaluations per image, or k with one
reference; codes that happen to be equal are decoded again. All are decoded at once, so that memory grows with k².
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from argmax_vae.estimators.base import Codes, EstimatorConfig, FromLosses, Logits, Losses, Noise, Scheduled
from argmax_vae.latents import gumbel_from_uniform, sample_codes
from argmax_vae.randomness import NoiseSource

REFERENCES = ("all", "one")


@dataclass
class ArsmConfig(EstimatorConfig):
    """`reference`: one of REFERENCES."""

    name: str = "arsm"
    reference: str = "all"

    def __post_init__(self) -> None:
        self.require_choice("reference", REFERENCES)

    def describe_schedule(self) -> str:
        return "" if self.reference == "all" else "one reference"


class Arsm(FromLosses):
    """(θ(z^{c⇌j}) − mean over c)(1 − k π_j), averaged over references j."""

    config_class = ArsmConfig

    def noise(self, shape: tuple[int, ...], source: NoiseSource) -> Noise:
        noise = {"uniform": source.uniform(shape)}
        if self.config.reference == "one":
            noise["reference"] = source.uniform((*shape[:-2], 1, 1))
        return noise

    def codes(self, logits: Logits, noise: Noise) -> Codes:
        """The codes of all swaps: with −log π up to a constant as Gumbel noise, z is a Gumbel-max sample."""
        values = torch.arange(logits.shape[-1], device=logits.device)
        axes = (-1, *[1] * logits.ndim)
        if self.config.reference == "one":
            first, second = values.view(axes), reference(noise, len(values))
        else:
            first, second = (place.view(axes) for place in swaps(len(values), logits.device))
        swapped = torch.where(values == first, second, torch.where(values == second, first, values))
        gumbel = gumbel_from_uniform(noise["uniform"])
        swapped = swapped.expand(-1, *gumbel.shape)
        return sample_codes(logits, torch.take_along_dim(gumbel.unsqueeze(0), swapped, -1))

    def gradient(self, logits: Logits, codes: Codes, losses: Losses, noise: Noise, scheduled: Scheduled) -> Logits:
        k = logits.shape[-1]
        weights = 1 - k * (-gumbel_from_uniform(noise["uniform"])).softmax(-1)
        if self.config.reference == "one":
            own = torch.take_along_dim(weights, reference(noise, k), -1)
            return own * (losses - losses.mean(0)).movedim(0, -1).unsqueeze(-2)
        of_pairs = losses[code_of_swap(k, logits.device)]
        return torch.einsum("cj...,...nj->...nc", of_pairs - of_pairs.mean(0), weights) / k


def swaps(k: int, device: torch.device) -> tuple[Int[Tensor, "swaps"], Int[Tensor, "swaps"]]:
    """The values that change places in each code: none in the first, then every pair."""
    first, second = torch.triu_indices(k, k, 1, device=device)
    none = torch.zeros(1, dtype=torch.int64, device=device)
    return torch.cat([none, first]), torch.cat([none, second])


def code_of_swap(k: int, device: torch.device) -> Int[Tensor, "k k"]:
    """Which of the codes of `swaps` has each two values in each other's place."""
    values = torch.arange(k, device=device)
    first, second = torch.minimum(values[:, None], values), torch.maximum(values[:, None], values)
    return torch.where(first == second, 0, first * (2 * k - first - 1) // 2 + second - first)


def reference(noise: Noise, k: int) -> Int[Tensor, "*leading 1 1"]:
    """The reference value j of each image."""
    return (noise["reference"] * k).long().clamp_max(k - 1)
