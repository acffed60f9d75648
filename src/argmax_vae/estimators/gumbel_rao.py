"""Gumbel-Rao (Paulus et al. 2020): straight-through Gumbel-Softmax, averaged over the noise given the hard sample.

∇_φ ≈ (1/R) Σ_r (∂softmax((φ + γ_r)/τ)/∂φ)ᵀ ∇_z θ(z),  γ_r ~ p(γ | z = argmax(φ + γ)),

with γ_r held fixed in the derivative. The bias is that of straight-through Gumbel-Softmax, the variance is at most as
large, and the decoder is evaluated once per image whatever R is.
"""

from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from argmax_vae.estimators.base import Estimate, Estimator, EstimatorConfig
from argmax_vae.latents import conditional_gumbel_scores, gumbel_from_uniform, sample_codes
from argmax_vae.randomness import NoiseSource
from argmax_vae.reconstruction import CodeLoss
from argmax_vae.schedules import Exponential, Schedule


@dataclass
class GumbelRaoConfig(EstimatorConfig):
    """`temperature`: schedule of τ; `inner_samples`: R, noise samples given each code."""

    name: str = "gumbel_rao"
    temperature: Schedule = field(default_factory=Exponential)
    inner_samples: int = 10

    def __post_init__(self) -> None:
        self.require_at_least("inner_samples", 1)

    def describe_schedule(self) -> str:
        return f"τ = {self.temperature.describe()}, R = {self.inner_samples}"


class GumbelRao(Estimator):
    """The slope at the hard code, through the mean Jacobian of relaxed codes that round to it."""

    config_class = GumbelRaoConfig

    def noise(self, shape: tuple[int, ...], source: NoiseSource) -> dict[str, Tensor]:
        return {"uniform": source.uniform(shape), "inner": source.uniform(shape, samples=self.config.inner_samples)}

    def forward(
        self,
        logits: Float[Tensor, "*leading n k"],
        loss: CodeLoss,
        noise: dict[str, Tensor],
        step: Int[Tensor, ""],
    ) -> Estimate:
        temperature = self.config.temperature(step)
        hard = sample_codes(logits, gumbel_from_uniform(noise["uniform"]))
        scores = conditional_gumbel_scores(logits.detach(), hard, noise["inner"])
        relaxed = ((scores + (logits - logits.detach())) / temperature).softmax(-1).mean(0)
        losses = loss(hard + (relaxed - relaxed.detach()))
        return Estimate(objective=losses, loss=losses.detach(), metrics={"temperature": temperature})
