"""Gumbel-Softmax, also called Concrete (Jang et al. 2016; Maddison et al. 2016).

The code is relaxed to y = softmax((φ + γ)/τ), and the loss of y is differentiated through the softmax:
∇_φ θ(y). It is unbiased for the relaxed objective E[θ(y)], and biased for E[θ(z)]; τ trades bias for variance.
With `straight_through` the decoder sees the hard code z = argmax(φ + γ), and the gradient with respect to z is used
as that with respect to y. Soft codes enter the weights of an importance-weighted bound linearly, Σ_i y_i·log q_i.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from argmax_vae.estimators.base import (
    CodeLoss,
    Estimate,
    Estimator,
    Logits,
    Losses,
    Noise,
    SampledConfig,
    Step,
    decoded_as,
    importance_weighted_bound,
)
from argmax_vae.estimators.schedules import Constant, Schedule
from argmax_vae.latents import exp_concrete_sample, gumbel_from_uniform, one_hot_argmax


@dataclass
class GumbelSoftmaxConfig(SampledConfig):
    """`temperature`: schedule of τ; `straight_through`: decode hard codes."""

    name: str = "gumbel_softmax"
    temperature: Schedule = field(default_factory=Constant)
    straight_through: bool = False


class GumbelSoftmax(Estimator):
    """The gradient of the loss of relaxed codes."""

    config_class = GumbelSoftmaxConfig
    has_relaxed_codes = True
    has_importance_weighted = True

    def forward(self, logits: Logits, loss: CodeLoss, noise: Noise, step: Step) -> Estimate:
        return self.estimate(logits, loss, noise, step, lambda losses: losses.mean(0))

    def importance_weighted(self, logits: Logits, negative_log_weight: CodeLoss, noise: Noise, step: Step) -> Estimate:
        return self.estimate(logits, negative_log_weight, noise, step, importance_weighted_bound)

    def estimate(
        self, logits: Logits, loss: CodeLoss, noise: Noise, step: Step, joined: Callable[[Losses], Tensor]
    ) -> Estimate:
        """The estimate of what `joined` makes of the losses of all samples."""
        temperature = self.config.temperature(step)
        log_codes = exp_concrete_sample(logits, gumbel_from_uniform(noise["uniform"]), temperature)
        codes = log_codes.exp()
        if self.config.straight_through:
            codes = decoded_as(one_hot_argmax(codes.detach()), codes)
        losses = joined(loss(codes))
        return Estimate(
            objective=losses,
            loss=losses.detach(),
            relaxed_log_codes=log_codes,
            temperature=temperature,
            metrics={"temperature": temperature},
        )
