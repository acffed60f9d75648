"""REINFORCE (Williams 1992), the score-function estimator, with three baselines.

∇_φ E_q[θ(z)] = E_q[(θ(z) − b) ∇_φ log q(z)],  ∇_φ log q(z) = z − softmax(φ),

averaged over M samples, for any b that does not depend on z: 0 (`none`), a mean over past steps (`moving_average`), or
the mean loss of the other M − 1 samples (`leave_one_out`; Kool et al. 2019; for the mean of M losses it is also what
VIMCO's baseline of Mnih and Rezende 2016 becomes). Unbiased. Cost: M decoder evaluations per image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from argmax_vae.errors import UsageError, require_fraction
from argmax_vae.estimators.base import Codes, FromLosses, Logits, Losses, Noise, SampledConfig, Scheduled

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

    def baseline(self, losses: Losses) -> Losses:
        """b for every sample; the moving average is of the steps before this one, corrected for its start at zero."""
        if self.config.baseline == "leave_one_out":
            return (losses.sum(0) - losses) / (len(losses) - 1)
        if self.config.baseline == "moving_average":
            corrected = self.average / self.weight.clamp_min(torch.finfo(torch.float32).tiny)
            return corrected.to(losses.dtype).expand_as(losses)
        return torch.zeros_like(losses)

    def observe(self, seen: Float[Tensor, "*leading"]) -> None:
        if self.config.baseline != "moving_average":
            return
        mean = seen.mean() if self.average.ndim == 0 else seen.mean(-1, keepdim=True)
        self.average.lerp_(mean.to(self.average.dtype), 1 - self.config.decay)
        self.weight.lerp_(torch.ones_like(self.weight), 1 - self.config.decay)
