"""DisARM for any k, by stick breaking (Dong, Mnih and Tucker 2021, "Coupled gradient estimators").

A variable is broken into k − 1 binary ones, its rarest value first: stick j is taken with probability π_j = σ(α_j), and
the value is that of the first stick taken. An antithetic pair of uniform numbers for each stick gives two codes z, z̃.
DisARM for each stick, averaged over the sticks that neither code reached, gives

    ∇_{α_j} E_q[θ] = E[½ (θ(z) − θ(z̃)) w_j],
    w_j = (b_j − b̃_j) max(π_j, 1 − π_j) where both codes reached stick j, b_j − π_j where z alone did, π_j − b̃_j where
    z̃ alone did, and 0 elsewhere; b_j: z took stick j.

The chain rule through α_j = φ_j − log Σ_{l>j} e^{φ_l} gives ∇_φ. Unbiased; with k = 2 it is DisARM.
Cost: two decoder evaluations per image.
"""

from dataclasses import dataclass

import torch

from argmax_vae.estimators.base import Codes, EstimatorConfig, FromLosses, Logits, Losses, Noise, Scheduled
from argmax_vae.latents import Sticks
from argmax_vae.randomness import NoiseSource


@dataclass
class DisArmCategoricalConfig(EstimatorConfig):
    """It has no choices."""

    name: str = "disarm_categorical"


class DisArmCategorical(FromLosses):
    """½ (θ(z) − θ(z̃)) w for every stick."""

    config_class = DisArmCategoricalConfig

    def noise(self, shape: tuple[int, ...], source: NoiseSource) -> Noise:
        return {"uniform": source.uniform((*shape[:-1], shape[-1] - 1))}

    def codes(self, logits: Logits, noise: Noise) -> Codes:
        """The antithetic pair (z, z̃)."""
        sticks, uniform = Sticks(logits), noise["uniform"]
        pair = [uniform < sticks.log_odds.sigmoid(), uniform > (-sticks.log_odds).sigmoid()]
        return sticks.codes(torch.stack(pair))

    def gradient(self, logits: Logits, codes: Codes, losses: Losses, noise: Noise, scheduled: Scheduled) -> Logits:
        sticks = Sticks(logits)
        probability = sticks.log_odds.sigmoid()
        place = sticks.taken(codes).unsqueeze(-1)
        stick = torch.arange(probability.shape[-1], device=logits.device)
        reached, took = place >= stick, (place == stick).to(logits.dtype)
        alone = torch.where(reached[0], took[0] - probability, 0) - torch.where(reached[1], took[1] - probability, 0)
        both = (took[0] - took[1]) * torch.maximum(probability, 1 - probability)
        weight = torch.where(reached.all(0), both, alone)
        return sticks.to_logits((losses[0] - losses[1])[..., None, None] / 2 * weight)
