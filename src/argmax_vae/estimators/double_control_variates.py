"""Double control variates (Titsias and Shi 2022): leave-one-out REINFORCE, and what slopes of the loss tell of it.

With μ = softmax(φ), codes z_1 … z_M ~ q and the slope g_m = ∂θ/∂z at z_m: the linear term of a Taylor expansion of θ
around μ has expectation zero. The mean of the other codes' slopes stands in for the slope at μ,

    b_m = ḡ_{−m}ᵀ (z_m − μ),  ḡ_{−m} = 1/(M − 1) Σ_{l≠m} g_l,  r_m = θ(z_m) − α b_m,
    ∇_φ E_q[θ] = E[1/M Σ_m (r_m − 1/(M − 1) Σ_{l≠m} r_l) (z_m − μ) + α J ḡ],
    J ḡ = ∇_φ ḡᵀμ = μ_i ⊙ (ḡ_i − μ_iᵀ ḡ_i) for variable i,  ḡ = 1/M Σ_m g_m.

b_m is the control variate of the code's own loss, and J ḡ gives back its expectation, since E[b_m (z_m − μ)] is J E[ḡ].
b_l is the control variate of the baseline; it needs nothing given back. Unbiased for every α, which follows the
gradient of the estimate's mean square; leave-one-out with α = 0. With α = 1 there is no variance where θ is linear.
The source has binary variables, and starts with α = 0; nothing in it asks for k = 2.
Cost: M decoder evaluations per image, and their derivatives in the codes, which the decoder's gradient comes with.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from argmax_vae.errors import require_finite
from argmax_vae.estimators.base import (
    CodeLoss,
    Codes,
    Estimate,
    Estimator,
    Logits,
    Losses,
    Noise,
    SampledConfig,
    Step,
    losses_and_slopes,
    with_gradient,
)
from argmax_vae.latents import gumbel_from_uniform, sample_codes


@dataclass
class DoubleControlVariatesConfig(SampledConfig):
    """`samples`: M, at least 2; `initial_alpha`: where α starts."""

    name: str = "double_control_variates"
    samples: int = 4
    initial_alpha: float = 1.0

    def __post_init__(self) -> None:
        self.require_at_least("samples", 2)
        require_finite("estimator.initial_alpha", self.initial_alpha)

    def describe_schedule(self) -> str:
        return f"M = {self.samples}, α learned"


class DoubleControlVariates(Estimator):
    """(r_m − the others' mean of r)(z_m − softmax(φ)), averaged over samples, + α J ḡ."""

    config_class = DoubleControlVariatesConfig

    def prepare(self, n: int, k: int, seeds: Sequence[int] | None = None) -> "DoubleControlVariates":
        shape = () if seeds is None else (len(seeds), 1)
        self.alpha = nn.Parameter(torch.full(shape, self.config.initial_alpha))
        return self

    def forward(self, logits: Logits, loss: CodeLoss, noise: Noise, step: Step) -> Estimate:
        frozen = logits.detach()
        codes = sample_codes(frozen, gumbel_from_uniform(noise["uniform"]))
        losses, slopes = losses_and_slopes(loss, codes)
        with torch.no_grad():
            plain, change = self.parts(frozen, codes, losses.detach(), slopes)
            gradient = plain + self.alpha.to(logits.dtype)[..., None, None] * change
            slope_of_alpha = 2 * (gradient * change).sum((-2, -1))
        value = losses.mean(0)
        objective = with_gradient(value, logits, gradient) + (self.alpha - self.alpha.detach()) * slope_of_alpha
        alpha = self.alpha.detach()
        metrics = {"alpha": alpha.squeeze(-1) if alpha.ndim else alpha}
        return Estimate(objective=objective, loss=value.detach(), metrics=metrics)

    def parts(self, logits: Logits, codes: Codes, losses: Losses, slopes: Codes) -> tuple[Logits, Logits]:
        """The leave-one-out gradient, and what is added to it α times."""
        probabilities = logits.softmax(-1)
        scores = codes - probabilities
        total = slopes.sum(0)
        others = (total - slopes) / (len(codes) - 1)
        expansions = (others * scores).sum((-2, -1))
        mean = total / len(codes)
        returned = probabilities * (mean - (probabilities * mean).sum(-1, keepdim=True))
        return leave_one_out(losses, scores), returned - leave_one_out(expansions, scores)


def leave_one_out(values: Losses, scores: Codes) -> Logits:
    """The mean over samples of a value less the others' mean, times the score."""
    return ((values - values.mean(0))[..., None, None] * scores).sum(0) / (len(values) - 1)
