"""Local expectation gradients (Titsias and Lázaro-Gredilla 2015): unbiased, from the candidate losses that direct uses.

Given the other coordinates, the expectation over coordinate i is a sum of k terms:

    ∇_{φ_i} E_q[θ(z)] = E_{z_−i}[Σ_j θ_i(j) ∇_{φ_i} q_i(j)],  Σ_j θ_i(j) ∇ q_i(j) = q_i ⊙ (θ_i − Σ_l q_i(l) θ_i(l)).

Exact for n = 1. Cost: 1 + n(k − 1) decoder evaluations per image and sample, those of direct.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from argmax_vae.estimators.base import Estimate, Estimator, EstimatorConfig, with_gradient
from argmax_vae.latents import gumbel_from_uniform, sample_codes
from argmax_vae.randomness import NoiseSource
from argmax_vae.reconstruction import CodeLoss


@dataclass
class LocalExpectationConfig(EstimatorConfig):
    """`samples`: codes per image, averaged."""

    name: str = "local_expectation"
    samples: int = 1

    def __post_init__(self) -> None:
        self.require_at_least("samples", 1)


class LocalExpectation(Estimator):
    """q_i(j)(θ_i(j) − Σ_l q_i(l) θ_i(l))."""

    config_class = LocalExpectationConfig

    def noise(self, shape: tuple[int, ...], source: NoiseSource) -> dict[str, Tensor]:
        return {"uniform": source.uniform(shape, samples=self.config.samples)}

    def forward(
        self,
        logits: Float[Tensor, "*leading n k"],
        loss: CodeLoss,
        noise: dict[str, Tensor],
        step: Int[Tensor, ""],
    ) -> Estimate:
        losses, candidates = loss.with_candidates(sample_codes(logits, gumbel_from_uniform(noise["uniform"])))
        with torch.no_grad():
            probabilities = logits.softmax(-1)
            centred = candidates - candidates[..., :1]
            expectation = (probabilities * centred).sum(-1, keepdim=True)
            gradient = (probabilities * (centred - expectation)).mean(0)
        mean_loss = losses.mean(0)
        return Estimate(objective=with_gradient(mean_loss, logits, gradient), loss=mean_loss.detach())
