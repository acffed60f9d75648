"""ZGR (Shekhovtsov 2023): Gumbel-Rao at temperature zero, in closed form.

With π = softmax(φ), a hard sample D ~ π and v = ∇_z θ(D), Gumbel-Rao with infinitely many noise samples has the limit

    ∇_φ ≈ lim_{τ→0} E[(∂softmax((φ + γ)/τ)/∂φ)ᵀ v | D] = Jᵀv,  J = (diag(π) + D Dᵀ − D πᵀ − π Dᵀ)/2,

half of straight-through, diag(π) − π πᵀ, and half of DARN, (D − π)(D − π)ᵀ (Gregor et al. 2014):

    ∇_φ ≈ ((∂π/∂φ)ᵀ v + (D − π)(D − π)ᵀ v)/2.

There is no temperature and no noise but that of D. The Jacobian is that of ReinMax (Liu et al. 2023) at τ = 1, found
independently: for n = 1 it is unbiased when θ is quadratic.
Cost: one decoder evaluation per image and sample.
"""

from dataclasses import dataclass

from argmax_vae.estimators.base import Codes, Logits, Noise, Pathwise, SampledConfig, Scheduled, decoded_as
from argmax_vae.latents import gumbel_from_uniform, sample_codes


@dataclass
class ZgrConfig(SampledConfig):
    """`samples`: codes per image, averaged."""

    name: str = "zgr"


class Zgr(Pathwise):
    """The slope at the hard code, half through the softmax, half through the score of the code."""

    config_class = ZgrConfig

    def codes(self, logits: Logits, noise: Noise, scheduled: Scheduled) -> Codes:
        hard = sample_codes(logits, gumbel_from_uniform(noise["uniform"]))
        log_probabilities = logits.log_softmax(-1)
        probabilities = log_probabilities.exp()
        of_code = (log_probabilities * hard).sum(-1, keepdim=True)
        return decoded_as(hard, (probabilities + (hard - probabilities.detach()) * of_code) / 2)
