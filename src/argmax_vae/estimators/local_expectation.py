"""Local expectation gradients (Titsias and Lázaro-Gredilla 2015): unbiased, from the candidate losses that direct uses.

Given the other coordinates, the expectation over coordinate i is a sum of k terms:

    ∇_{φ_i} E_q[θ(z)] = E_{z_−i}[Σ_j θ_i(j) ∇_{φ_i} q_i(j)],  Σ_j θ_i(j) ∇ q_i(j) = q_i ⊙ (θ_i − Σ_l q_i(l) θ_i(l)).

Exact for n = 1. Cost: 1 + n(k − 1) decoder evaluations per image and sample, those of direct.
"""

from dataclasses import dataclass

from argmax_vae.estimators.base import Codes, FromLosses, Logits, Noise, SampledConfig, Scheduled


@dataclass
class LocalExpectationConfig(SampledConfig):
    """`samples`: codes per image, averaged."""

    name: str = "local_expectation"


class LocalExpectation(FromLosses):
    """q_i(j)(θ_i(j) − Σ_l q_i(l) θ_i(l))."""

    config_class = LocalExpectationConfig
    asks_for_candidates = True
    asks_for_codes_alone = False

    def gradient(self, logits: Logits, codes: Codes, candidates: Codes, noise: Noise, scheduled: Scheduled) -> Logits:
        probabilities = logits.softmax(-1)
        centred = candidates - candidates[..., :1]
        expectation = (probabilities * centred).sum(-1, keepdim=True)
        return (probabilities * (centred - expectation)).mean(0)
