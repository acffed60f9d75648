"""Gumbel-Softmax, also called Concrete (Jang et al. 2016; Maddison et al. 2016).

The code is relaxed to y = softmax((φ + γ)/τ), and the loss of y is differentiated through the softmax:
∇_φ θ(y). It is unbiased for the relaxed objective E[θ(y)], and biased for E[θ(z)]; τ trades bias for variance.
With `straight_through` the decoder sees the hard code z = argmax(φ + γ), and the gradient with respect to z is used
as that with respect to y.
"""

from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from argmax_vae.estimators.base import Estimate, Estimator, EstimatorConfig
from argmax_vae.latents import exp_concrete_sample, gumbel_from_uniform, one_hot_argmax
from argmax_vae.randomness import NoiseSource
from argmax_vae.reconstruction import CodeLoss
from argmax_vae.schedules import Exponential, Schedule


@dataclass
class GumbelSoftmaxConfig(EstimatorConfig):
    """`temperature`: schedule of τ; `straight_through`: decode hard codes; `samples`: noise samples per image."""

    name: str = "gumbel_softmax"
    temperature: Schedule = field(default_factory=Exponential)
    straight_through: bool = False
    samples: int = 1

    def __post_init__(self) -> None:
        self.require_at_least("samples", 1)

    def describe_schedule(self) -> str:
        return f"τ = {self.temperature.describe()}"


class GumbelSoftmax(Estimator):
    """The gradient of the loss of relaxed codes."""

    config_class = GumbelSoftmaxConfig
    has_relaxed_codes = True

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
        log_codes = exp_concrete_sample(logits, gumbel_from_uniform(noise["uniform"]), temperature)
        codes = log_codes.exp()
        if self.config.straight_through:
            codes = one_hot_argmax(codes.detach()) + (codes - codes.detach())
        losses = loss(codes).mean(0)
        return Estimate(
            objective=losses,
            loss=losses.detach(),
            relaxed_log_codes=log_codes,
            temperature=temperature,
            metrics={"temperature": temperature},
        )
