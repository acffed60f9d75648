"""REINFORCE (Williams 1992), the score-function estimator, with a choice of baselines.

∇_φ E_q[θ(z)] = E_q[(θ(z) − b) ∇_φ log q(z)],  ∇_φ log q(z) = z − softmax(φ),

averaged over M samples, for any b that does not depend on z: 0 (`none`), a mean over past steps (`moving_average`), or
the mean loss of the other M − 1 samples (`leave_one_out`; Kool et al. 2019).

Of the importance-weighted bound L = −log (1/M) Σ_m w_m, w = p(x, z)/q(z|x), the gradient is

    ∇_φ E[L] = E[Σ_m (L − b_m) ∇ log q(z_m) + w̃_m ∇ log q(z_m)],  w̃_m = w_m / Σ_l w_l,

and leave one out is VIMCO (Mnih and Rezende 2016): b_m is L with log w_m replaced by the mean of the other log w.
`ovis` (Liévin et al. 2020) is for that bound alone: b_m stands for L + w̃_m. With S auxiliary samples it is the mean of
L + w̃_m with w_m replaced by the weight of each (Equation 12). Without, it is the limit for one dominant weight,
b_m = −log (1/M) Σ_{l≠m} w_l (Equation 17 at γ = 0; any other γ is biased), so that L − b_m = log(1 − w̃_m).
Unbiased. Cost: M + S decoder evaluations per image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from argmax_vae.errors import UsageError, require, require_fraction
from argmax_vae.estimators.base import (
    Codes,
    Estimate,
    FromLosses,
    Logits,
    Losses,
    NegativeLogWeight,
    Noise,
    SampledConfig,
    Scheduled,
    Step,
    importance_weighted_bound,
    with_gradient,
)
from argmax_vae.randomness import NoiseSource

BASELINES = ("leave_one_out", "moving_average", "none", "ovis")


@dataclass
class ReinforceConfig(SampledConfig):
    """`samples`: M; `baseline`: one of BASELINES; `decay`: of the moving average, per step; `auxiliary`: S, of ovis."""

    name: str = "reinforce"
    samples: int = 4
    baseline: str = "leave_one_out"
    decay: float = 0.99
    auxiliary: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_choice("baseline", BASELINES)
        if self.baseline in ("leave_one_out", "ovis") and self.samples < 2:
            raise UsageError(
                f"estimator.samples={self.samples} must be at least 2 for estimator.baseline={self.baseline}"
            )
        require_fraction("estimator.decay", self.decay)
        self.require_at_least("auxiliary", 0)
        only = self.baseline == "ovis" or self.auxiliary == 0
        require(only, "estimator.auxiliary", self.auxiliary, f"0 for estimator.baseline={self.baseline}")

    def describe_schedule(self) -> str:
        words = "OVIS" if self.baseline == "ovis" else self.baseline.replace("_", " ")
        return f"M = {self.samples}, {words}" + (f", S = {self.auxiliary}" if self.auxiliary else "")

    def importance_weighted_alone(self) -> str:
        return "baseline=ovis" if self.baseline == "ovis" else ""


class Reinforce(FromLosses):
    """(θ(z) − b)(z − softmax(φ)), averaged over samples."""

    config_class = ReinforceConfig
    has_importance_weighted = True
    average: Tensor
    weight: Tensor

    def prepare(self, n: int, k: int, seeds: Sequence[int] | None = None) -> "Reinforce":
        if self.config.baseline != "moving_average":
            return self
        shape = () if seeds is None else (len(seeds), 1)
        self.register_buffer("average", torch.zeros(shape))
        self.register_buffer("weight", torch.zeros(shape))
        return self

    def gradient(self, logits: Logits, codes: Codes, losses: Losses, noise: Noise, scheduled: Scheduled) -> Logits:
        score = codes - logits.softmax(-1)
        return ((losses - self.baseline(losses))[..., None, None] * score).mean(0)

    @property
    def remembers(self) -> bool:
        return self.config.baseline == "moving_average"

    def baseline(self, losses: Losses) -> Losses:
        """b for every sample; the moving average is of the steps before this one, corrected for its start at zero."""
        if self.config.baseline == "leave_one_out":
            return (losses.sum(0) - losses) / (len(losses) - 1)
        if self.config.baseline == "moving_average":
            corrected = self.average / self.weight.clamp_min(torch.finfo(torch.float32).tiny)
            return corrected.to(losses.dtype).expand_as(losses)
        if self.config.baseline == "ovis":
            raise UsageError("estimator.baseline=ovis is for the importance-weighted bound alone")
        return torch.zeros_like(losses)

    def noise(self, shape: tuple[int, ...], source: NoiseSource) -> dict[str, Tensor]:
        return {"uniform": source.uniform(shape, samples=self.config.samples + self.config.auxiliary)}

    def importance_weighted(
        self, logits: Logits, negative_log_weight: NegativeLogWeight, noise: Noise, step: Step
    ) -> Estimate:
        codes, auxiliary = self.codes(logits.detach(), noise).tensor_split([self.config.samples])
        losses = negative_log_weight(codes)
        bound = importance_weighted_bound(losses)
        with torch.no_grad():
            further = negative_log_weight(auxiliary) if self.config.auxiliary else losses[:0]
            signal = bound - self.importance_weighted_baseline(losses, further)
            gradient = (signal[..., None, None] * (codes - logits.softmax(-1))).sum(0)
        return Estimate(objective=with_gradient(bound, logits, gradient), loss=bound.detach())

    def importance_weighted_baseline(self, losses: Losses, auxiliary: Float[Tensor, "auxiliary *leading"]) -> Losses:
        """b_m for every sample, from −log w_m, and those of the auxiliary samples."""
        if self.config.baseline == "leave_one_out":
            return importance_weighted_bound(with_one_replaced(losses, self.baseline(losses)))
        if self.config.baseline != "ovis":
            return self.baseline(losses)
        samples = len(losses)
        others = (-with_one_replaced(losses, torch.full_like(losses, math.inf))).logsumexp(0)
        if not self.config.auxiliary:
            return math.log(samples) - others
        added = -auxiliary.unsqueeze(1)
        total = torch.logaddexp(others, added)
        return (math.log(samples) - total + (added - total).exp()).mean(0)

    def observe(self, seen: Float[Tensor, "*leading"]) -> None:
        if self.config.baseline != "moving_average":
            return
        mean = seen.mean() if self.average.ndim == 0 else seen.mean(-1, keepdim=True)
        self.average.lerp_(mean.to(self.average.dtype), 1 - self.config.decay)
        self.weight.lerp_(torch.ones_like(self.weight), 1 - self.config.decay)


def with_one_replaced(losses: Losses, others: Losses) -> Float[Tensor, "samples samples *leading"]:
    """For each sample m, along the second axis, the losses of all, but for that of m itself the one in `others`."""
    samples = len(losses)
    replaced = torch.eye(samples, dtype=torch.bool, device=losses.device)
    replaced = replaced.view(samples, samples, *[1] * (losses.ndim - 1))
    return torch.where(replaced, others, losses.unsqueeze(1))
