"""REBAR (Tucker et al. 2017): REINFORCE with a relaxed loss as control variate; unbiased, with learned τ and η.

With z = log q + γ and b = one_hot(argmax z), z̃ ~ p(z | b) made differentiable in φ from other noise v, and the control
variate c(z) = θ(softmax(z/τ)),

    ∇_φ E_q[θ(b)] = E[(θ(b) − η c(z̃)) ∇_φ log q(b) + η ∇_φ c(z) − η ∇_φ c(z̃)].

τ and η follow the gradient of E‖g‖², whose derivative is that of the variance since E[g] does not depend on them. All
derivatives but the decoder's come from `torch.func`, the second order in τ included, so that a whole step compiles.
The source's code ties v to the noise of z, so that z̃ = z; any v gives the same mean.
With `parameterization=binary` (k = 2) the noise is one logistic variable per latent, as in the source, in place of two
Gumbels. With `reduction=batch` the losses are averaged over the batch before the estimator, as in the script that the
paper compared with: still unbiased, but every image's score carries the loss of all images.
Cost: three decoder evaluations per image.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from argmax_vae.errors import require_finite, require_positive
from argmax_vae.estimators.base import CodeLoss, Estimate, Estimator, EstimatorConfig, with_gradient
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
        require_positive("estimator.initial_temperature", self.initial_temperature)
        require_finite("estimator.initial_eta", self.initial_eta)

    def validate_latents(self, n: int, k: int) -> None:
        if self.parameterization == "binary":
            self.require_binary(k, "parameterization=binary")

    def describe_schedule(self) -> str:
        return f"τ, η learned, loss per {self.reduction}"


Parameters = dict[str, Tensor]


class Rebar(Estimator):
    """The control variate is the relaxed loss."""

    config_class = RebarConfig
    subtracts_losses = True

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
        codes = self.codes(logits.detach(), noise)
        losses = loss(codes)
        slopes: Parameters = {}
        with torch.no_grad():
            frozen = logits.detach()
            parameters = {name: value.detach() for name, value in self.named_parameters()}
            estimate = functools.partial(self.gradient, frozen, loss, losses.detach(), codes, noise)
            if self.training:
                slopes, gradient = torch.func.grad(self.second_moment, has_aux=True)(parameters, estimate)
            else:
                gradient = estimate(parameters)
        objective = with_gradient(losses, logits, gradient)
        for name, slope in slopes.items():
            parameter = self.get_parameter(name)
            change = (parameter - parameter.detach()) * slope
            objective = objective + (change.sum() if self.eta.ndim == 0 else change.flatten(1).sum(-1, keepdim=True))
        learned = {"temperature": self.log_temperature.exp(), "eta": self.eta}
        metrics = {
            name: value.detach().squeeze(-1) if value.ndim else value.detach() for name, value in learned.items()
        }
        return Estimate(objective=objective, loss=losses.detach(), metrics=metrics)

    def codes(self, logits: Float[Tensor, "*leading n k"], noise: dict[str, Tensor]) -> Float[Tensor, "*leading n k"]:
        """The hard code b of the noise."""
        if self.config.parameterization == "binary":
            scores = binary_logits(logits) + logistic_from_uniform(noise["uniform"])
            return binary_codes((scores > 0).to(logits.dtype))
        return one_hot_argmax(logits.log_softmax(-1) + gumbel_from_uniform(noise["uniform"]))

    def scores(
        self,
        logits: Float[Tensor, "*leading n k"],
        codes: Float[Tensor, "*leading n k"],
        noise: dict[str, Tensor],
    ) -> Tensor:
        """z and z̃, both differentiable in the logits, on a first axis: (2, …, n, k), or (2, …, n) if binary."""
        if self.config.parameterization == "binary":
            logit = binary_logits(logits)
            scores = logit + logistic_from_uniform(noise["uniform"])
            return torch.stack([scores, conditional_logistic_scores(logit, codes[..., 1], noise["conditional"])])
        scores = logits.log_softmax(-1) + gumbel_from_uniform(noise["uniform"])
        return torch.stack([scores, conditional_gumbel_scores(logits, codes, noise["conditional"])])

    def control(self, loss: CodeLoss, scores: Tensor, parameters: Parameters) -> Float[Tensor, "two *leading"]:
        """c of z and z̃, in nats per image."""
        temperature = parameters["log_temperature"].exp().to(scores.dtype)
        if self.config.parameterization == "binary":
            return loss(binary_codes(torch.sigmoid(scores / temperature[..., None])))
        return loss((scores / temperature[..., None, None]).softmax(-1))

    def controls(
        self,
        logits: Float[Tensor, "*leading n k"],
        loss: CodeLoss,
        codes: Float[Tensor, "*leading n k"],
        noise: dict[str, Tensor],
        parameters: Parameters,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "*leading"]]:
        """The sum of c(z) − c(z̃) over images, which gives its slope in the logits, and c(z̃)."""
        control, control_given_codes = self.control(loss, self.scores(logits, codes, noise), parameters)
        return (control - control_given_codes).sum(), control_given_codes

    def gradient(
        self,
        logits: Float[Tensor, "*leading n k"],
        loss: CodeLoss,
        losses: Float[Tensor, "*leading"],
        codes: Float[Tensor, "*leading n k"],
        noise: dict[str, Tensor],
        parameters: Parameters,
    ) -> Float[Tensor, "*leading n k"]:
        """The estimate g of ∇_φ E_q[θ], differentiable in the estimator's parameters."""
        controls = torch.func.grad(self.controls, has_aux=True)
        slope, control_given_codes = controls(logits, loss, codes, noise, parameters)
        eta = parameters["eta"].to(logits.dtype)
        weight = losses - eta * control_given_codes
        if self.config.reduction == "batch" and weight.ndim > 0:
            weight = weight.sum(-1, keepdim=True)
        return weight[..., None, None] * (codes - logits.softmax(-1)) + eta[..., None, None] * slope

    def second_moment(self, parameters: Parameters, estimate: Callable[[Parameters], Tensor]) -> tuple[Tensor, Tensor]:
        """E‖g‖² per image, summed over seeds, and g itself."""
        gradient = estimate(parameters)
        squares = gradient.pow(2).sum((-2, -1))
        return (squares.mean() if self.eta.ndim == 0 else squares.mean(-1).sum()), gradient
