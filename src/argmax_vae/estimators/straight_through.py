"""Straight-through (Bengio et al. 2013): the decoder sees a hard sample, its slope there goes through the softmax.

∇_φ ≈ (∂softmax(φ)/∂φ)ᵀ ∇_z θ(z),  z ~ softmax(φ).

Biased unless θ is linear in each coordinate's code. Cost: one decoder evaluation per image and sample.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from argmax_vae.estimators.base import Estimate, Estimator, EstimatorConfig
from argmax_vae.latents import gumbel_from_uniform, sample_codes
from argmax_vae.randomness import NoiseSource
from argmax_vae.reconstruction import CodeLoss


@dataclass
class StraightThroughConfig(EstimatorConfig):
    """`samples`: codes per image, averaged."""

    name: str = "straight_through"
    samples: int = 1

    def __post_init__(self) -> None:
        self.require_at_least("samples", 1)


class StraightThrough(Estimator):
    """The slope at the hard code, through the Jacobian of the softmax."""

    config_class = StraightThroughConfig

    def noise(self, shape: tuple[int, ...], source: NoiseSource) -> dict[str, Tensor]:
        return {"uniform": source.uniform(shape, samples=self.config.samples)}

    def forward(
        self,
        logits: Float[Tensor, "*leading n k"],
        loss: CodeLoss,
        noise: dict[str, Tensor],
        step: Int[Tensor, ""],
    ) -> Estimate:
        probabilities = logits.softmax(-1)
        hard = sample_codes(logits, gumbel_from_uniform(noise["uniform"]))
        losses = loss(hard + (probabilities - probabilities.detach())).mean(0)
        return Estimate(objective=losses, loss=losses.detach())
