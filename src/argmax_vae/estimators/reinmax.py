"""ReinMax (Liu et al. 2023): straight-through of second order.

With π = softmax(φ), a hard sample D ~ π and π_D = (D + softmax(φ/τ))/2,

    ∇_φ ≈ (2 J(π_D) − J(π)/2)ᵀ ∇_z θ(D),  J(p) = diag(p) − p pᵀ,

which is Heun's method where straight-through is Euler's: for n = 1 and τ = 1 it is unbiased when θ is quadratic.
At τ = 1 it is ZGR (Shekhovtsov 2023).
Cost: one decoder evaluation per image and sample.
"""

from dataclasses import dataclass, field

from argmax_vae.estimators.base import Codes, Logits, Noise, Pathwise, SampledConfig, Scheduled, decoded_as
from argmax_vae.estimators.schedules import Constant, Schedule
from argmax_vae.latents import gumbel_from_uniform, sample_codes


def constant_one() -> Schedule:
    return Constant(value=1.0)


@dataclass
class ReinMaxConfig(SampledConfig):
    """`temperature`: schedule of τ, 1 in theory; `samples`: codes per image, averaged."""

    name: str = "reinmax"
    temperature: Schedule = field(default_factory=constant_one)


class ReinMax(Pathwise):
    """The slope at the hard code, through 2 J(π_D) − J(π)/2."""

    config_class = ReinMaxConfig

    def codes(self, logits: Logits, noise: Noise, scheduled: Scheduled) -> Codes:
        hard = sample_codes(logits, gumbel_from_uniform(noise["uniform"]))
        middle = (hard + (logits.detach() / scheduled["temperature"]).softmax(-1)) / 2
        return decoded_as(hard, 2 * softmax_at(middle, logits) - logits.softmax(-1) / 2)


def softmax_at(probabilities: Codes, logits: Logits) -> Codes:
    """`probabilities` unchanged, with the softmax's Jacobian there, diag(p) − p pᵀ, as derivative for the logits."""
    change = logits - logits.detach()
    return probabilities + probabilities * (change - (probabilities * change).sum(-1, keepdim=True))
