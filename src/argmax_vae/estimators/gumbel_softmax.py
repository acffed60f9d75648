"""Gumbel-Softmax, also called Concrete (Jang et al. 2016; Maddison et al. 2016).

The code is relaxed to y = softmax((φ + γ)/τ), and the loss of y is differentiated through the softmax:
∇_φ θ(y). It is unbiased for the relaxed objective E[θ(y)], and biased for E[θ(z)]; τ trades bias for variance.
With `straight_through` the decoder sees the hard code z = argmax(φ + γ), and the gradient with respect to z is used
as that with respect to y.

Soft codes enter the weights of an importance-weighted bound linearly, Σ_i y_i·log q_i. With `doubly_reparameterized`
the weights are those of the relaxed model, w = p(x|y) p(y)/q(y) with Concrete densities, and the gradient has no score:

    ∇_φ E[−log (1/M) Σ_m w_m] = −E[Σ_m w̃_m² (∂ log w_m/∂y_m) ∂y_m/∂φ],  w̃_m = w_m / Σ_l w_l

(Tucker et al. 2018, DReG, Equation 8). It is unbiased for the relaxed bound, which bounds no likelihood of hard codes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from argmax_vae.errors import UsageError
from argmax_vae.estimators.base import (
    CodeLoss,
    Estimate,
    Estimator,
    Logits,
    Losses,
    NegativeLogWeight,
    Noise,
    SampledConfig,
    Step,
    decoded_as,
    importance_weighted_bound,
    losses_and_slopes,
    with_gradient,
)
from argmax_vae.estimators.schedules import Constant, Schedule
from argmax_vae.latents import exp_concrete_sample, gumbel_from_uniform, one_hot_argmax


@dataclass
class GumbelSoftmaxConfig(SampledConfig):
    """`temperature`: schedule of τ; `straight_through`: decode hard codes; `doubly_reparameterized`: DReG."""

    name: str = "gumbel_softmax"
    temperature: Schedule = field(default_factory=Constant)
    straight_through: bool = False
    doubly_reparameterized: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.straight_through and self.doubly_reparameterized:
            raise UsageError(
                "estimator.doubly_reparameterized=true needs relaxed codes: estimator.straight_through=false"
            )

    def describe_schedule(self) -> str:
        return super().describe_schedule() + (f", M = {self.samples}, DReG" if self.doubly_reparameterized else "")

    def importance_weighted_alone(self) -> str:
        return "doubly_reparameterized=true" if self.doubly_reparameterized else ""


class GumbelSoftmax(Estimator):
    """The gradient of the loss of relaxed codes."""

    config_class = GumbelSoftmaxConfig
    has_relaxed_codes = True
    has_importance_weighted = True

    def forward(self, logits: Logits, loss: CodeLoss, noise: Noise, step: Step) -> Estimate:
        if self.config.doubly_reparameterized:
            raise UsageError("estimator.doubly_reparameterized=true is for the importance-weighted bound alone")
        return self.estimate(logits, loss, noise, step, lambda losses: losses.mean(0))

    def importance_weighted(
        self, logits: Logits, negative_log_weight: NegativeLogWeight, noise: Noise, step: Step
    ) -> Estimate:
        if not self.config.doubly_reparameterized:
            return self.estimate(logits, negative_log_weight, noise, step, importance_weighted_bound)
        return self.doubly_reparameterized(logits, negative_log_weight, noise, step)

    def doubly_reparameterized(
        self, logits: Logits, negative_log_weight: NegativeLogWeight, noise: Noise, step: Step
    ) -> Estimate:
        """The bound of the relaxed model, and −Σ_m w̃_m² ∂ log w_m/∂y_m through y_m = softmax((φ + γ_m)/τ)."""
        temperature = self.config.temperature(step)
        frozen = logits.detach()
        log_codes = exp_concrete_sample(frozen, gumbel_from_uniform(noise["uniform"]), temperature)
        losses, slopes = losses_and_slopes(lambda y: negative_log_weight.relaxed(y, temperature), log_codes)
        bound = importance_weighted_bound(losses)
        with torch.no_grad():
            weights = (bound - losses).exp() / len(losses)
            pulled = (slopes - log_codes.exp() * slopes.sum(-1, keepdim=True)) / temperature
            gradient = (weights.square()[..., None, None] * pulled).sum(0)
        return Estimate(
            objective=with_gradient(bound, logits, gradient),
            loss=bound.detach(),
            metrics={"temperature": temperature},
        )

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
