"""REBAR (Tucker et al. 2017): REINFORCE with a relaxed loss as control variate; unbiased, with learned τ and η.

With z = log q + γ and b = one_hot(argmax z), z̃ ~ p(z | b) made differentiable in φ from other noise v, and the control
variate c(z) = θ(softmax(z/τ)),

    ∇_φ E_q[θ(b)] = E[(θ(b) − η c(z̃)) ∇_φ log q(b) + η ∇_φ c(z) − η ∇_φ c(z̃)].

τ and η follow the gradient of E‖g‖², whose derivative is that of the variance since E[g] does not depend on them.
With `parameterization=binary` (k = 2) the noise is one logistic variable per latent, as in the source, in place of two
Gumbels. With `reduction=batch` the losses are averaged over the batch before the estimator, as in the script that the
paper compared with: still unbiased, but every image's score carries the loss of all images.
Cost: three decoder evaluations per image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from argmax_vae.errors import UsageError
from argmax_vae.estimators.base import Estimate, Estimator, EstimatorConfig, with_gradient
from argmax_vae.latents import (
    binary_codes,
    binary_logits,
    conditional_gumbel_scores,
    conditional_logistic_scores,
    gumbel_from_uniform,
    logistic_from_uniform,
    one_hot_argmax,
)
from argmax_vae.randomness import NoiseSource
from argmax_vae.reconstruction import CodeLoss

PARAMETERIZATIONS = ("categorical", "binary")
REDUCTIONS = ("image", "batch")


@dataclass
class RebarConfig(EstimatorConfig):
    """`parameterization`, `reduction`: one of the above; `initial_temperature`, `initial_eta`: where τ, η start."""

    name: str = "rebar"
    parameterization: str = "categorical"
    reduction: str = "image"
    initial_temperature: float = 0.5
    initial_eta: float = 1.0

    def __post_init__(self) -> None:
        self.require_choice("parameterization", PARAMETERIZATIONS)
        self.require_choice("reduction", REDUCTIONS)
        if not (self.initial_temperature > 0 and math.isfinite(self.initial_temperature)):
            raise UsageError(f"estimator.initial_temperature={self.initial_temperature} must be greater than 0")

    def validate_latents(self, n: int, k: int) -> None:
        if self.parameterization == "binary":
            self.require_binary(k, "parameterization=binary")

    def describe_schedule(self) -> str:
        return f"τ, η learned, loss per {self.reduction}"


class Rebar(Estimator):
    """The control variate is the relaxed loss."""

    config_class = RebarConfig
    compiles = False

    def prepare(self, n: int, k: int, seeds: Sequence[int] | None = None) -> "Rebar":
        shape = () if seeds is None else (len(seeds), 1)
        self.log_temperature = nn.Parameter(torch.full(shape, math.log(self.config.initial_temperature)))
        self.eta = nn.Parameter(torch.full(shape, self.config.initial_eta))
        return self

    def noise(self, shape: tuple[int, ...], source: NoiseSource) -> dict[str, Tensor]:
        if self.config.parameterization == "binary":
            shape = shape[:-1]
        return {"uniform": source.uniform(shape), "conditional": source.uniform(shape)}

    def forward(
        self,
        logits: Float[Tensor, "*leading n k"],
        loss: CodeLoss,
        noise: dict[str, Tensor],
        step: Int[Tensor, ""],
    ) -> Estimate:
        with torch.enable_grad():
            variable = logits.detach().requires_grad_()
            codes, scores, conditional = self.scores(variable, noise)
            losses = loss(codes)
            control, control_given_codes = (self.control(loss, point) for point in (scores, conditional))
            slopes = [
                torch.autograd.grad(value.sum(), variable, create_graph=self.training)[0]
                for value in (control, control_given_codes)
            ]
            eta = self.eta.to(logits.dtype)
            weight = losses.detach() - eta * control_given_codes
            if self.config.reduction == "batch" and weight.ndim > 0:
                weight = weight.sum(-1, keepdim=True)
            score = codes - logits.detach().softmax(-1)
            gradient = weight[..., None, None] * score + eta[..., None, None] * (slopes[0] - slopes[1])
            objective = with_gradient(losses, logits, gradient)
            if self.training:
                objective = objective + self.with_variance_gradient(gradient)
        learned = {"temperature": self.log_temperature.exp(), "eta": self.eta}
        metrics = {
            name: value.detach().squeeze(-1) if value.ndim else value.detach() for name, value in learned.items()
        }
        return Estimate(objective=objective, loss=losses.detach(), metrics=metrics)

    def scores(
        self, logits: Float[Tensor, "*leading n k"], noise: dict[str, Tensor]
    ) -> tuple[Float[Tensor, "*leading n k"], Tensor, Tensor]:
        """The hard code b, and z and z̃, both differentiable in the logits: (…, n, k), or (…, n) if binary."""
        if self.config.parameterization == "binary":
            logit = binary_logits(logits)
            scores = logit + logistic_from_uniform(noise["uniform"])
            on = (scores > 0).to(logits.dtype)
            return binary_codes(on), scores, conditional_logistic_scores(logit, on, noise["conditional"])
        scores = logits.log_softmax(-1) + gumbel_from_uniform(noise["uniform"])
        codes = one_hot_argmax(scores)
        return codes, scores, conditional_gumbel_scores(logits, codes, noise["conditional"])

    def control(self, loss: CodeLoss, scores: Tensor) -> Float[Tensor, "*leading"]:
        """c of z or z̃, in nats per image."""
        temperature = self.log_temperature.exp().to(scores.dtype)
        if self.config.parameterization == "binary":
            return loss(binary_codes(torch.sigmoid(scores / temperature[..., None])))
        return loss((scores / temperature[..., None, None]).softmax(-1))

    def with_variance_gradient(self, gradient: Float[Tensor, "*leading n k"]) -> Tensor:
        """Zero, with the derivative of E‖g‖² per image with respect to the estimator's parameters, for each seed."""
        parameters = list(self.parameters())
        second_moment = gradient.pow(2).sum((-2, -1))
        per_seed = second_moment.mean() if self.eta.ndim == 0 else second_moment.mean(-1).sum()
        slopes = torch.autograd.grad(per_seed, parameters)
        total = torch.zeros((), device=gradient.device)
        for parameter, slope in zip(parameters, slopes, strict=True):
            change = (parameter - parameter.detach()) * slope
            total = total + (change.sum() if self.eta.ndim == 0 else change.flatten(1).sum(-1, keepdim=True))
        return total
