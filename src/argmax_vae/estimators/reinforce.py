"""REINFORCE (Williams 1992), the score-function estimator, with three baselines.

∇_φ E_q[θ(z)] = E_q[(θ(z) − b) ∇_φ log q(z)],  ∇_φ log q(z) = z − softmax(φ),

averaged over M samples, for any b that does not depend on z: 0 (`none`), a mean over past steps (`moving_average`), or
the mean loss of the other M − 1 samples (`leave_one_out`; Kool et al. 2019).

Of the importance-weighted bound L = −log (1/M) Σ_m w_m, w = p(x, z)/q(z|x), the gradient is

    ∇_φ E[L] = E[Σ_m (L − b_m) ∇ log q(z_m) + w̃_m ∇ log q(z_m)],  w̃_m = w_m / Σ_l w_l,

and leave one out is VIMCO (Mnih and Rezende 2016): b_m is L with log w_m replaced by the mean of the other log w.
Unbiased. Cost: M decoder evaluations per image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from argmax_vae.errors import UsageError, require_fraction
from argmax_vae.estimators.base import (
    CodeLoss,
    Codes,
    Estimate,
    FromLosses,
    Logits,
    Losses,
    Noise,
    SampledConfig,
    Scheduled,
    Step,
    importance_weighted_bound,
    with_gradient,
)

BASELINES = ("leave_one_out", "moving_average", "none")


@dataclass
class ReinforceConfig(SampledConfig):
    """`samples`: M; `baseline`: one of BASELINES; `decay`: of the moving average, per step."""

    name: str = "reinforce"
    samples: int = 4
    baseline: str = "leave_one_out"
    decay: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_choice("baseline", BASELINES)
        if self.baseline == "leave_one_out" and self.samples < 2:
            raise UsageError(
                f"estimator.samples={self.samples} must be at least 2 for estimator.baseline=leave_one_out"
            )
        require_fraction("estimator.decay", self.decay)

    def describe_schedule(self) -> str:
        return f"M = {self.samples}, {self.baseline.replace('_', ' ')}"


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
        return torch.zeros_like(losses)

    def importance_weighted(self, logits: Logits, negative_log_weight: CodeLoss, noise: Noise, step: Step) -> Estimate:
        codes = self.codes(logits.detach(), noise)
        losses = negative_log_weight(codes)
        bound = importance_weighted_bound(losses)
        with torch.no_grad():
            signal = bound - self.importance_weighted_baseline(losses)
            gradient = (signal[..., None, None] * (codes - logits.softmax(-1))).sum(0)
        return Estimate(objective=with_gradient(bound, logits, gradient), loss=bound.detach())

    def importance_weighted_baseline(self, losses: Losses) -> Losses:
        """b_m for every sample, from −log w_m."""
        if self.config.baseline != "leave_one_out":
            return self.baseline(losses)
        others = self.baseline(losses)
        samples = len(losses)
        replaced = torch.eye(samples, dtype=torch.bool, device=losses.device).view(
            samples, samples, *[1] * (losses.ndim - 1)
        )
        return importance_weighted_bound(torch.where(replaced, others, losses.unsqueeze(1)))

    def observe(self, seen: Float[Tensor, "*leading"]) -> None:
        if self.config.baseline != "moving_average":
            return
        mean = seen.mean() if self.average.ndim == 0 else seen.mean(-1, keepdim=True)
        self.average.lerp_(mean.to(self.average.dtype), 1 - self.config.decay)
        self.weight.lerp_(torch.ones_like(self.weight), 1 - self.config.decay)
