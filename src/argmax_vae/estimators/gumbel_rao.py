"""Gumbel-Rao (Paulus et al. 2020): straight-through Gumbel-Softmax, averaged over the noise given the hard sample.

∇_φ ≈ (1/R) Σ_r (∂softmax((φ + γ_r)/τ)/∂φ)ᵀ ∇_z θ(z),  γ_r ~ p(γ | z = argmax(φ + γ)),

with γ_r held fixed in the derivative. The bias is that of straight-through Gumbel-Softmax, the variance is at most as
large, and the decoder is evaluated once per image whatever R is.
"""

from dataclasses import dataclass, field

from argmax_vae.estimators.base import Codes, EstimatorConfig, Logits, Noise, Pathwise, Scheduled, decoded_as
from argmax_vae.estimators.schedules import Constant, Schedule
from argmax_vae.latents import conditional_gumbel_scores, gumbel_from_uniform, sample_codes
from argmax_vae.randomness import NoiseSource


@dataclass
class GumbelRaoConfig(EstimatorConfig):
    """`temperature`: schedule of τ; `inner_samples`: R, noise samples given each code."""

    name: str = "gumbel_rao"
    temperature: Schedule = field(default_factory=Constant)
    inner_samples: int = 10

    def __post_init__(self) -> None:
        self.require_at_least("inner_samples", 1)

    def describe_schedule(self) -> str:
        return f"{super().describe_schedule()}, R = {self.inner_samples}"


class GumbelRao(Pathwise):
    """The slope at the hard code, through the mean Jacobian of relaxed codes that round to it."""

    config_class = GumbelRaoConfig
    has_importance_weighted = False

    def noise(self, shape: tuple[int, ...], source: NoiseSource) -> Noise:
        return {"uniform": source.uniform(shape), "inner": source.uniform(shape, samples=self.config.inner_samples)}

    def codes(self, logits: Logits, noise: Noise, scheduled: Scheduled) -> Codes:
        hard = sample_codes(logits, gumbel_from_uniform(noise["uniform"]))
        scores = conditional_gumbel_scores(logits.detach(), hard, noise["inner"])
        relaxed = ((scores + (logits - logits.detach())) / scheduled["temperature"]).softmax(-1).mean(0)
        return decoded_as(hard, relaxed).unsqueeze(0)
