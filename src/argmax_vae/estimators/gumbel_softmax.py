"""Gumbel-Softmax, also called Concrete (Jang et al. 2016; Maddison et al. 2016).

The code is relaxed to y = softmax((φ + γ)/τ), and the loss of y is differentiated through the softmax:
∇_φ θ(y). It is unbiased for the relaxed objective E[θ(y)], and biased for E[θ(z)]; τ trades bias for variance.
With `straight_through` the decoder sees the hard code z = argmax(φ + γ), and the gradient with respect to z is used
as that with respect to y.
"""

from dataclasses import dataclass, field

from argmax_vae.estimators.base import CodeLoss, Estimate, Estimator, Logits, Noise, SampledConfig, Step, decoded_as
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

    def forward(self, logits: Logits, loss: CodeLoss, noise: Noise, step: Step) -> Estimate:
        temperature = self.config.temperature(step)
        log_codes = exp_concrete_sample(logits, gumbel_from_uniform(noise["uniform"]), temperature)
        codes = log_codes.exp()
        if self.config.straight_through:
            codes = decoded_as(one_hot_argmax(codes.detach()), codes)
        losses = loss(codes).mean(0)
        return Estimate(
            objective=losses,
            loss=losses.detach(),
            relaxed_log_codes=log_codes,
            temperature=temperature,
            metrics={"temperature": temperature},
        )
