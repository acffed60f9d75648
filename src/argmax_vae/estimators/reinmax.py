"""ReinMax (Liu et al. 2023): straight-through of second order.

With π = softmax(φ), a hard sample D ~ π and π_D = (D + softmax(φ/τ))/2,

    ∇_φ ≈ (2 J(π_D) − J(π)/2)ᵀ ∇_z θ(D),  J(p) = diag(p) − p pᵀ,

which is Heun's method where straight-through is Euler's: for n = 1 and τ = 1 it is unbiased when θ is quadratic.
Cost: one decoder evaluation per image and sample.
"""

from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from argmax_vae.estimators.base import Estimate, Estimator, EstimatorConfig
from argmax_vae.latents import gumbel_from_uniform, sample_codes
from argmax_vae.randomness import NoiseSource
from argmax_vae.reconstruction import CodeLoss
from argmax_vae.schedules import Constant, Schedule


def one() -> Schedule:
    return Constant(value=1.0)


@dataclass
class ReinMaxConfig(EstimatorConfig):
    """`temperature`: schedule of τ, 1 in theory; `samples`: codes per image, averaged."""

    name: str = "reinmax"
    temperature: Schedule = field(default_factory=one)
    samples: int = 1

    def __post_init__(self) -> None:
        self.require_at_least("samples", 1)

    def describe_schedule(self) -> str:
        return f"τ = {self.temperature.describe()}"


class ReinMax(Estimator):
    """The slope at the hard code, through 2 J(π_D) − J(π)/2."""

    config_class = ReinMaxConfig

    def noise(self, shape: tuple[int, ...], source: NoiseSource) -> dict[str, Tensor]:
        return {"uniform": source.uniform(shape, samples=self.config.samples)}

    def forward(
        self,
        logits: Float[Tensor, "*leading n k"],
        loss: CodeLoss,
        noise: dict[str, Tensor],
        step: Int[Tensor, ""],
    ) -> Estimate:
        temperature = self.config.temperature(step)
        hard = sample_codes(logits, gumbel_from_uniform(noise["uniform"]))
        middle = (hard + (logits.detach() / temperature).softmax(-1)) / 2
        through_middle = softmax_at(middle, logits)
        relaxed = 2 * through_middle - logits.softmax(-1) / 2
        losses = loss(hard + (relaxed - relaxed.detach())).mean(0)
        return Estimate(objective=losses, loss=losses.detach(), metrics={"temperature": temperature})


def softmax_at(
    probabilities: Float[Tensor, "samples *leading n k"], logits: Float[Tensor, "*leading n k"]
) -> Float[Tensor, "samples *leading n k"]:
    """`probabilities` unchanged, with the softmax's Jacobian there, diag(p) − p pᵀ, as derivative for the logits."""
    change = logits - logits.detach()
    return probabilities + probabilities * (change - (probabilities * change).sum(-1, keepdim=True))
