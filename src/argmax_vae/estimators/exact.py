"""The exact gradient of E_q[θ(z)] = Σ_z q(z) θ(z) by enumeration of all kⁿ codes: no noise, no bias.

Its cost limits it to small latent spaces. The kⁿ codes are the same for every image, so they are decoded once.
"""

import math
from dataclasses import dataclass

import torch

from argmax_vae.errors import UsageError
from argmax_vae.estimators.base import CodeLoss, Estimate, Estimator, EstimatorConfig, Logits, Noise, Step
from argmax_vae.latents import all_codes
from argmax_vae.randomness import NoiseSource


@dataclass
class ExactConfig(EstimatorConfig):
    """`limit`: the largest number of codes kⁿ that may be enumerated."""

    name: str = "exact"
    limit: int = 4096

    def __post_init__(self) -> None:
        self.require_at_least("limit", 2)

    def validate_latents(self, n: int, k: int) -> None:
        if n * math.log(k) > math.log(self.limit) + 1 or k**n > self.limit:
            raise UsageError(
                f"estimator=exact enumerates k^n codes: {k}^{n} is beyond estimator.limit={self.limit}; "
                "choose smaller model.latents or another estimator"
            )


class Exact(Estimator):
    """Σ_z q(z) θ(z) and its derivative."""

    config_class = ExactConfig
    asks_for_codes_alone = False

    def noise(self, shape: tuple[int, ...], source: NoiseSource) -> Noise:
        return {}

    def forward(self, logits: Logits, loss: CodeLoss, noise: Noise, step: Step) -> Estimate:
        n, k = logits.shape[-2:]
        codes = all_codes(n, k, logits.device).to(logits.dtype)
        log_probabilities = torch.einsum("...ij,cij->...c", logits.log_softmax(-1), codes)
        expectation = (log_probabilities.exp() * loss.shared(codes)).sum(-1)
        return Estimate(objective=expectation, loss=expectation.detach())
