"""Decoupled straight-through (Shah et al. 2024): one temperature for the code, another one for its derivative.

    ∇_φ ≈ (∂softmax(φ/τ)/∂φ)ᵀ ∇_z θ(z),  z = argmax(φ + τ_f γ), which is a sample of softmax(φ/τ_f):

τ_f decides how random the code is, τ over how many values its gradient spreads. `surrogate=softmax` is written above;
`surrogate=gumbel_softmax` keeps the noise of the code in its derivative, that of softmax((φ + τ_f γ)/τ). With τ_f = 1
the latter is straight-through Gumbel-Softmax at τ, and the former with τ = 1, too, is straight-through: these are the
defaults. With another τ_f the code is no sample of q, and training sees another expected loss than evaluation.

Biased. Cost: one decoder evaluation per image and sample.
"""

from dataclasses import dataclass, field

from argmax_vae.errors import require_positive
from argmax_vae.estimators.base import Codes, Logits, Noise, Pathwise, SampledConfig, Scheduled, decoded_as
from argmax_vae.estimators.reinmax import constant_one
from argmax_vae.estimators.schedules import Schedule
from argmax_vae.latents import gumbel_from_uniform, sample_codes

SURROGATES = ("softmax", "gumbel_softmax")


@dataclass
class DecoupledStraightThroughConfig(SampledConfig):
    """`temperature`: schedule of τ; `forward_temperature`: τ_f; `surrogate`: one of SURROGATES."""

    name: str = "decoupled_straight_through"
    temperature: Schedule = field(default_factory=constant_one)
    forward_temperature: float = 1.0
    surrogate: str = "softmax"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("estimator.forward_temperature", self.forward_temperature)
        self.require_choice("surrogate", SURROGATES)

    def describe_schedule(self) -> str:
        return f"{super().describe_schedule()}, τ_f = {self.forward_temperature:g}"


class DecoupledStraightThrough(Pathwise):
    """A code at one temperature, its slope through a softmax at another one."""

    config_class = DecoupledStraightThroughConfig

    def codes(self, logits: Logits, noise: Noise, scheduled: Scheduled) -> Codes:
        perturbation = self.config.forward_temperature * gumbel_from_uniform(noise["uniform"])
        scores = logits if self.config.surrogate == "softmax" else logits + perturbation
        return decoded_as(sample_codes(logits, perturbation), (scores / scheduled["temperature"]).softmax(-1))
