"""Gapped straight-through (GST; Fan, Chi, Rudnicky and Ramadge 2022): Gumbel-Softmax without its noise.

With a hard sample D ~ softmax(φ), the logits are moved by what a perturbation has to do to choose D,

    ∇_φ ≈ (∂softmax((φ + m)/τ)/∂φ)ᵀ ∇_z θ(D),
    m = (max φ − φ_D) for the value of D,  m_j = −max(0, φ_j + gap − max φ) for the others,

held fixed in the derivative: D's score becomes the largest, all others lie below it by the gap at least. In place of
random Gumbel scores that round to D these are always the same, hence less variance. The gap is `gap_size`, or with
`gap=expected` that of Gumbel scores on average, between the largest and the second, given the code D with q(D) = p:

    E[gap | D] = −log(1 − p)/p.

Biased. Cost: one decoder evaluation per image and sample.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from argmax_vae.errors import require_positive
from argmax_vae.estimators.base import Codes, Logits, Noise, Pathwise, SampledConfig, Scheduled, decoded_as
from argmax_vae.estimators.reinmax import constant_one
from argmax_vae.estimators.schedules import Schedule
from argmax_vae.latents import gumbel_from_uniform, sample_codes

GAPS = ("constant", "expected")


@dataclass
class GappedStraightThroughConfig(SampledConfig):
    """`temperature`: schedule of τ; `gap`: one of GAPS; `gap_size`: the constant one, in nats."""

    name: str = "gapped_straight_through"
    temperature: Schedule = field(default_factory=constant_one)
    gap: str = "constant"
    gap_size: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_choice("gap", GAPS)
        require_positive("estimator.gap_size", self.gap_size)

    def describe_schedule(self) -> str:
        gap = f"{self.gap_size:g}" if self.gap == "constant" else self.gap
        return f"{super().describe_schedule()}, gap {gap}"


class GappedStraightThrough(Pathwise):
    """The slope at the hard code, through the softmax of logits that choose it."""

    config_class = GappedStraightThroughConfig

    def codes(self, logits: Logits, noise: Noise, scheduled: Scheduled) -> Codes:
        hard = sample_codes(logits, gumbel_from_uniform(noise["uniform"]))
        relaxed = ((logits + self.movement(logits.detach(), hard)) / scheduled["temperature"]).softmax(-1)
        return decoded_as(hard, relaxed)

    def movement(self, logits: Logits, hard: Codes) -> Codes:
        """m for every sample."""
        below = logits - logits.amax(-1, keepdim=True)
        gap = self.config.gap_size if self.config.gap == "constant" else expected_gap(logits, hard)
        return torch.where(hard > 0, -below, -(below + gap).clamp_min(0))


def expected_gap(logits: Logits, hard: Codes) -> Float[Tensor, "samples *leading n 1"]:
    """E[gap | D] = −log(1 − p)/p, in nats, p = q(D): near 1 for small p, without bound as p nears 1."""
    log_probabilities = logits.log_softmax(-1)
    probability = (log_probabilities * hard).sum(-1, keepdim=True).exp().clamp_min(torch.finfo(logits.dtype).tiny)
    log_of_others = torch.where(hard > 0, -torch.inf, log_probabilities).logsumexp(-1, keepdim=True)
    return -torch.where(probability < 0.5, torch.log1p(-probability), log_of_others) / probability
