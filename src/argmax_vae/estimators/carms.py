"""CARMS (Dimitriev and Zhou 2021): leave-one-out REINFORCE from M codes that repel each other, for any k.

A variable is broken into k − 1 sticks, its rarest value first: stick j is taken with probability π_j = σ(α_j), and the
value is that of the first stick taken. For each stick M uniform numbers u_m = (1 − d_m)^{M − 1} decide, where
d ~ Dirichlet(1, …, 1). Two of them are both at most π_j with probability Φ_j = max(0, 2 π_j^{1/(M − 1)} − 1)^{M − 1},
which is at most π_j². The ratio of the independent to the joint probability of two values depends on the rarer one
alone, and corrects for the coupling:

    r_j = π_j (1 − π_j)/(π_j − Φ_j) · Π_{l<j} (1 − π_l)²/(1 − 2π_l + Φ_l) ≤ 2,
    ∇_{φ_i} E_q[θ] = E[1/(2M(M − 1)) Σ_{m≠m'} (θ(z_m) − θ(z_m')) (z_{m,i} − z_{m',i}) r_i(z_{m,i}, z_{m',i})].

Unbiased. With r = 1 and independent codes this is leave-one-out; with k = 2 it is ARMS (Dimitriev and Zhou 2021), with
M = 2 the importance-weighted estimator of Dong, Mnih and Tucker (2021), who order the sticks in this way, and with both
DisARM. CARMS's own coupling has one such u_m for a variable, and an inverse distribution function, values shuffled.
Cost: M decoder evaluations per image.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from argmax_vae.estimators.base import Codes, FromLosses, Logits, Losses, Noise, SampledConfig, Scheduled
from argmax_vae.latents import SMALLEST_UNIFORM, Sticks
from argmax_vae.randomness import NoiseSource


@dataclass
class CarmsConfig(SampledConfig):
    """`samples`: M, at least 2."""

    name: str = "carms"
    samples: int = 4

    def __post_init__(self) -> None:
        self.require_at_least("samples", 2)

    def describe_schedule(self) -> str:
        return f"M = {self.samples}"


class Carms(FromLosses):
    """(θ(z_m) − θ(z_m')) (z_m − z_m') r, averaged over pairs."""

    config_class = CarmsConfig

    def noise(self, shape: tuple[int, ...], source: NoiseSource) -> Noise:
        return {"uniform": source.uniform((*shape[:-1], shape[-1] - 1), samples=self.config.samples)}

    def codes(self, logits: Logits, noise: Noise) -> Codes:
        """M codes of q that repel each other."""
        exponential = -noise["uniform"].clamp_min(SMALLEST_UNIFORM).log()
        total = exponential.sum(0)
        log_uniform = (len(exponential) - 1) * ((total - exponential) / total).log()
        sticks = Sticks(logits)
        return sticks.codes(log_uniform < torch.nn.functional.logsigmoid(sticks.log_odds))

    def gradient(self, logits: Logits, codes: Codes, losses: Losses, noise: Noise, scheduled: Scheduled) -> Logits:
        if logits.shape[-1] == 1:
            return torch.zeros_like(logits)
        sticks, number = Sticks(logits), len(codes)
        taken = sticks.taken(codes)
        rarer = torch.minimum(taken.unsqueeze(0), taken.unsqueeze(1))
        ratios = ratio(sticks.log_odds, number)
        ratios = torch.take_along_dim(ratios[None, None], rarer.clamp_max(ratios.shape[-1] - 1).unsqueeze(-1), -1)
        weights = (ratios.squeeze(-1) * (losses.unsqueeze(1) - losses.unsqueeze(0)).unsqueeze(-1)).sum(1)
        return (weights.unsqueeze(-1) * codes).sum(0) / (number * (number - 1))


def ratio(log_odds: Float[Tensor, "*leading sticks"], samples: int) -> Float[Tensor, "*leading sticks"]:
    """r_j of two different values, the rarer of which is stick j's."""
    probability = log_odds.sigmoid()
    both = (2 * probability ** (1 / (samples - 1)) - 1).clamp_min(0) ** (samples - 1)
    one = (1 - probability) / (1 - both / probability.clamp_min(torch.finfo(probability.dtype).tiny))
    neither = (1 - probability) ** 2 / (1 - 2 * probability + both)
    before = torch.nn.functional.pad(neither[..., :-1], (1, 0), value=1.0).cumprod(-1)
    return one * before
