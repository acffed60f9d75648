"""Direct optimization through arg max (the paper's Theorem 1 and section 5.2).

With z = argmax(φ + γ) and z_{±ε} = argmax(φ + γ ± εθ),

    ∇_φ E[θ(z)] = lim_{ε→0} (z_{+ε} − z)/ε = lim_{ε→0} (z − z_{−ε})/ε = lim_{ε→0} (z_{+ε} − z_{−ε})/2ε,

in expectation over the Gumbel noise γ. `away` (towards higher loss) is the theorem as printed, `toward` is what the
paper's code does; both have a bias of order ε, `symmetric` one of order ε². All three cost the same, since θ is
evaluated once. For n > 1, θ is replaced coordinate by coordinate by the candidate losses θ_i(j) (section 5.2), which
leaves the limit unchanged.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from argmax_vae.estimators.base import Estimate, Estimator, EstimatorConfig, with_gradient
from argmax_vae.latents import gumbel_from_uniform, one_hot_argmax, sample_codes
from argmax_vae.randomness import NoiseSource
from argmax_vae.reconstruction import CodeLoss
from argmax_vae.schedules import Exponential, Schedule

DIRECTIONS = ("toward", "away", "symmetric")


@dataclass
class DirectConfig(EstimatorConfig):
    """`epsilon`: schedule of ε; `direction`: one of DIRECTIONS; `samples`: noise samples per image, averaged."""

    name: str = "direct"
    epsilon: Schedule = field(default_factory=Exponential)
    direction: str = "toward"
    samples: int = 1

    def __post_init__(self) -> None:
        self.require_choice("direction", DIRECTIONS)
        self.require_at_least("samples", 1)

    def describe_schedule(self) -> str:
        return f"ε = {self.epsilon.describe()}"


class Direct(Estimator):
    """(z − z_{−ε})/ε and its two siblings."""

    config_class = DirectConfig

    def noise(self, shape: tuple[int, ...], source: NoiseSource) -> dict[str, Tensor]:
        return {"uniform": source.uniform(shape, samples=self.config.samples)}

    def forward(
        self,
        logits: Float[Tensor, "*leading n k"],
        loss: CodeLoss,
        noise: dict[str, Tensor],
        step: Int[Tensor, ""],
    ) -> Estimate:
        epsilon = self.config.epsilon(step)
        gumbel = gumbel_from_uniform(noise["uniform"])
        codes = sample_codes(logits, gumbel)
        losses, candidates = loss.with_candidates(codes)
        with torch.no_grad():
            gradient = self.difference(logits + gumbel, candidates, codes, epsilon).mean(0)
        mean_loss = losses.mean(0)
        return Estimate(
            objective=with_gradient(mean_loss, logits, gradient),
            loss=mean_loss.detach(),
            metrics={"epsilon": epsilon},
        )

    def difference(
        self,
        scores: Float[Tensor, "samples *leading n k"],
        candidates: Float[Tensor, "samples *leading n k"],
        codes: Float[Tensor, "samples *leading n k"],
        epsilon: Float[Tensor, ""],
    ) -> Float[Tensor, "samples *leading n k"]:
        """The finite difference of two arg max codes, on the side that `direction` names."""
        if self.config.direction == "toward":
            return (codes - one_hot_argmax(scores - epsilon * candidates)) / epsilon
        higher = one_hot_argmax(scores + epsilon * candidates)
        if self.config.direction == "away":
            return (higher - codes) / epsilon
        return (higher - one_hot_argmax(scores - epsilon * candidates)) / (2 * epsilon)
