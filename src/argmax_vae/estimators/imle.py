"""Implicit maximum likelihood (I-MLE; Niepert, Minervini and Franceschi 2021) and its adaptive form (AIMLE; 2023).

With z = argmax(φ + γ) and the slope g = ∂θ/∂z of the loss at that code,

    ∇_φ E[θ(z)] ≈ (z − argmax(φ + γ − λg))/λ.

It is `direct` with slopes in place of candidate losses, and λ is ε: two arg max codes under the same noise, one of them
of a target distribution with lower loss. Where θ is linear in each coordinate's code the two are the same; elsewhere
I-MLE is biased as ε → 0, too. `away` and `symmetric` (AIMLE) are as in `direct`.

With `step=constant` λ follows the schedule of ε. With `step=adaptive` every image and sample has its own,

    λ = α ‖φ‖/‖g‖,

and α grows or shrinks by `rate` after every step, to keep a moving average of the nonzeros of the difference of codes
at `target` per image and sample; a coordinate that changes has two. Every seed has its own α.

The first paper leaves out 1/λ, which an optimiser like Adam undoes for a loss alone, but not beside a KL term. Its
sum-of-gamma noise is for codes with κ ones that are constrained together; for one-hot codes, κ = 1, it is Gumbel noise.
Cost: one decoder evaluation per image and sample, and its derivative.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from argmax_vae.errors import require_fraction, require_positive
from argmax_vae.estimators.base import CodeLoss, Codes, Estimate, Logits, Noise, Step, losses_and_slopes, with_gradient
from argmax_vae.estimators.direct import Direct, DirectConfig
from argmax_vae.latents import without_excluded

STEPS = ("constant", "adaptive")


@dataclass
class ImleConfig(DirectConfig):
    """As direct, ε being λ; `step`: one of STEPS; `initial_alpha`, `target`, `rate`, `decay`: of the adaptive one."""

    name: str = "imle"
    step: str = "constant"
    initial_alpha: float = 1.0
    target: float = 1.0
    rate: float = 1e-3
    decay: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_choice("step", STEPS)
        for name in ("initial_alpha", "target", "rate"):
            require_positive(f"estimator.{name}", getattr(self, name))
        require_fraction("estimator.decay", self.decay)

    def schedules_in_use(self) -> tuple[str, ...]:
        return super().schedules_in_use() if self.step == "constant" else ()

    def describe_schedule(self) -> str:
        return super().describe_schedule() if self.step == "constant" else f"λ adaptive, target {self.target:g}"


class Imle(Direct):
    """(z − z_{−λ})/λ, the perturbation being the slope of the loss."""

    config_class = ImleConfig
    asks_for_codes_alone = True
    alpha: Tensor
    nonzeros: Tensor

    def prepare(self, n: int, k: int, seeds: Sequence[int] | None = None) -> "Imle":
        if self.config.step == "adaptive":
            shape = () if seeds is None else (len(seeds), 1)
            self.register_buffer("alpha", torch.full(shape, self.config.initial_alpha))
            self.register_buffer("nonzeros", torch.full(shape, self.config.target))
        return self

    def forward(self, logits: Logits, loss: CodeLoss, noise: Noise, step: Step) -> Estimate:
        frozen = logits.detach()
        codes = self.codes(frozen, noise)
        losses, slopes = losses_and_slopes(loss, codes)
        with torch.no_grad():
            adaptive = self.config.step == "adaptive"
            scheduled = {"epsilon": self.step_sizes(frozen, slopes)} if adaptive else self.scheduled(step)
            differences = self.differences(frozen, codes, slopes, noise, scheduled)
            nonzeros = (differences != 0).sum((-2, -1)).to(losses.dtype).mean(0)
        objective = with_gradient(losses.mean(0), logits, differences.mean(0))
        metrics = {"alpha": self.alpha.squeeze(-1).clone()} if adaptive else scheduled
        return Estimate(objective=objective, loss=losses.mean(0).detach(), metrics=metrics, observed=nonzeros)

    def step_sizes(self, logits: Logits, slopes: Codes) -> Float[Tensor, "samples *leading 1 1"]:
        """λ of every image and sample: a tiny one without logits or α, the largest number without slopes."""
        sizes = torch.linalg.vector_norm(without_excluded(logits), dim=(-2, -1), keepdim=True)
        norms = torch.linalg.vector_norm(slopes, dim=(-2, -1), keepdim=True)
        ratio = self.alpha.to(logits.dtype)[..., None, None] * sizes / norms
        return torch.nan_to_num(ratio).clamp_min(torch.finfo(logits.dtype).tiny)

    @property
    def remembers(self) -> bool:
        return self.config.step == "adaptive"

    def observe(self, seen: Float[Tensor, "*leading"]) -> None:
        if self.config.step != "adaptive":
            return
        mean = seen.mean() if self.alpha.ndim == 0 else seen.mean(-1, keepdim=True)
        self.nonzeros.lerp_(mean.to(self.nonzeros.dtype), 1 - self.config.decay)
        change = torch.where(self.nonzeros < self.config.target, self.config.rate, -self.config.rate)
        self.alpha.add_(change).clamp_min_(0)
