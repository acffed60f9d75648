"""Augment-REINFORCE-merge (Yin and Zhou 2019), for binary latents.

With one logit a = φ_1 − φ_0 per variable, u ~ U(0, 1)ⁿ and the antithetic pair b = [u < σ(a)], b̃ = [u > σ(−a)],

    ∇_a E_q[θ(b)] = E_u[(θ(b̃) − θ(b))(u − 1/2)].

Unbiased. The gradient for (φ_0, φ_1) is (−∇_a, ∇_a). Cost: two decoder evaluations per image.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from argmax_vae.estimators.base import Codes, EstimatorConfig, FromLosses, Logits, Losses, Noise, Scheduled
from argmax_vae.latents import binary_codes, binary_logits
from argmax_vae.randomness import NoiseSource


@dataclass
class ArmConfig(EstimatorConfig):
    """ARM has no choices."""

    name: str = "arm"

    def validate_latents(self, n: int, k: int) -> None:
        self.require_binary(k)


class Arm(FromLosses):
    """(θ(b̃) − θ(b))(u − 1/2)."""

    config_class = ArmConfig

    def noise(self, shape: tuple[int, ...], source: NoiseSource) -> Noise:
        return {"uniform": source.uniform(shape[:-1])}

    def codes(self, logits: Logits, noise: Noise) -> Codes:
        """The antithetic pair (b, b̃)."""
        logit, uniform = binary_logits(logits), noise["uniform"]
        pair = torch.stack([uniform < torch.sigmoid(logit), uniform > torch.sigmoid(-logit)])
        return binary_codes(pair.to(logits.dtype))

    def gradient(self, logits: Logits, codes: Codes, losses: Losses, noise: Noise, scheduled: Scheduled) -> Logits:
        pair, difference = codes[..., 1], (losses[1] - losses[0]).unsqueeze(-1)
        slope = difference * self.weight(pair, binary_logits(logits), noise["uniform"])
        return torch.stack([-slope, slope], -1)

    def weight(
        self,
        pair: Float[Tensor, "2 *leading n"],
        logit: Float[Tensor, "*leading n"],
        uniform: Float[Tensor, "*leading n"],
    ) -> Float[Tensor, "*leading n"]:
        """What the difference θ(b̃) − θ(b) of losses is multiplied by to estimate ∇_a."""
        return uniform - 0.5
