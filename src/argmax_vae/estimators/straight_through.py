"""Straight-through (Bengio et al. 2013): the decoder sees a hard sample, its slope there goes through the softmax.

∇_φ ≈ (∂softmax(φ)/∂φ)ᵀ ∇_z θ(z),  z ~ softmax(φ).

Biased unless θ is linear in each coordinate's code. Cost: one decoder evaluation per image and sample.
"""

from dataclasses import dataclass

from argmax_vae.estimators.base import Codes, Logits, Noise, Pathwise, SampledConfig, Scheduled, decoded_as
from argmax_vae.latents import gumbel_from_uniform, sample_codes


@dataclass
class StraightThroughConfig(SampledConfig):
    """`samples`: codes per image, averaged."""

    name: str = "straight_through"


class StraightThrough(Pathwise):
    """The slope at the hard code, through the Jacobian of the softmax."""

    config_class = StraightThroughConfig

    def codes(self, logits: Logits, noise: Noise, scheduled: Scheduled) -> Codes:
        hard = sample_codes(logits, gumbel_from_uniform(noise["uniform"]))
        return decoded_as(hard, logits.softmax(-1))
