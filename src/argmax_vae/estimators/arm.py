"""Augment-REINFORCE-merge (Yin and Zhou 2019), for binary latents.

With one logit a = φ_1 − φ_0 per variable, u ~ U(0, 1)ⁿ and the antithetic pair b = [u < σ(a)], b̃ = [u > σ(−a)],

    ∇_a E_q[θ(b)] = E_u[(θ(b̃) − θ(b))(u − 1/2)].

Unbiased. The gradient for (φ_0, φ_1) is (−∇_a, ∇_a). Cost: two decoder evaluations per image.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from argmax_vae.estimators.base import Estimate, Estimator, EstimatorConfig, with_gradient
from argmax_vae.latents import binary_codes, binary_logits
from argmax_vae.randomness import NoiseSource
from argmax_vae.reconstruction import CodeLoss


@dataclass
class ArmConfig(EstimatorConfig):
    """ARM has no choices."""

    name: str = "arm"

    def validate_latents(self, n: int, k: int) -> None:
        self.require_binary(k)


class Arm(Estimator):
    """(θ(b̃) − θ(b))(u − 1/2)."""

    config_class = ArmConfig

    def noise(self, shape: tuple[int, ...], source: NoiseSource) -> dict[str, Tensor]:
        return {"uniform": source.uniform(shape[:-1])}

    def forward(
        self,
        logits: Float[Tensor, "*leading n 2"],
        loss: CodeLoss,
        noise: dict[str, Tensor],
        step: Int[Tensor, ""],
    ) -> Estimate:
        logit, uniform = binary_logits(logits.detach()), noise["uniform"]
        pair = torch.stack([uniform < torch.sigmoid(logit), uniform > torch.sigmoid(-logit)]).to(logits.dtype)
        losses = loss(binary_codes(pair))
        with torch.no_grad():
            gradient = self.gradient(losses[1] - losses[0], pair, logit, uniform)
        mean_loss = losses.mean(0)
        return Estimate(
            objective=with_gradient(mean_loss, logits, torch.stack([-gradient, gradient], -1)),
            loss=mean_loss.detach(),
        )

    def gradient(
        self,
        difference: Float[Tensor, "*leading"],
        pair: Float[Tensor, "2 *leading n"],
        logit: Float[Tensor, "*leading n"],
        uniform: Float[Tensor, "*leading n"],
    ) -> Float[Tensor, "*leading n"]:
        """The estimate of ∇_a from the difference of losses θ(b̃) − θ(b)."""
        return difference.unsqueeze(-1) * (uniform - 0.5)
