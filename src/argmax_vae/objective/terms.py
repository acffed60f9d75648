"""The objective that is trained, −ELBO = E_q[θ] + KL(q ‖ uniform), in nats per image."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from argmax_vae.errors import UsageError, require_one_of, require_positive
from argmax_vae.estimators.base import CodeLoss, Estimate, Estimator
from argmax_vae.latents import kl_to_uniform, relaxed_kl

KL_CHOICES = ("analytic", "none", "folded", "concrete")


@dataclass
class ObjectiveConfig:
    """How the KL term is trained.

    `analytic`: Σ q log q + n log k is added and differentiated; `none`: it is reported but not trained, as the paper's
    code does with direct; `folded`: it goes into θ and is estimated with the rest; `concrete`: the relaxed divergence
    of Maddison et al. (2016) with `prior_temperature`, for an estimator with relaxed codes.
    """

    kl: str = "analytic"
    prior_temperature: float = 0.5

    def __post_init__(self) -> None:
        require_one_of("objective.kl", self.kl, KL_CHOICES)
        require_positive("objective.prior_temperature", self.prior_temperature)

    def validate_estimator(self, estimator: type[Estimator], name: str) -> None:
        """Raise UsageError when the estimator lacks the relaxed codes that `concrete` needs."""
        if self.kl == "concrete" and not estimator.has_relaxed_codes:
            raise UsageError(
                f"objective.kl=concrete needs relaxed codes, estimator={name} has none; use gumbel_softmax"
            )


@dataclass(frozen=True)
class Terms:
    """A batch's objective to differentiate, and its reconstruction loss and analytic KL, detached; nats per image.

    `estimate` is what the estimator gave; the loss that it saw is, with a folded KL, more than the reconstruction.
    """

    objective: Float[Tensor, "*leading"]
    reconstruction: Float[Tensor, "*leading"]
    kl: Float[Tensor, "*leading"]
    estimate: Estimate


def training_terms(
    config: ObjectiveConfig,
    estimator: Estimator,
    logits: Float[Tensor, "*leading n k"],
    loss: CodeLoss,
    noise: dict[str, Tensor],
    step: Int[Tensor, ""],
) -> Terms:
    """E_q[θ] through the estimator, plus the KL term as configured."""
    if config.kl == "folded":
        loss = Folded(loss, logits)
    estimate = estimator(logits, loss, noise, step)
    analytic = kl_to_uniform(logits)
    objective, reconstruction = estimate.objective, estimate.loss
    if config.kl == "analytic":
        objective = objective + analytic
    elif config.kl == "folded":
        reconstruction = reconstruction - analytic.detach()
    elif config.kl == "concrete":
        objective = objective + relaxed_kl(
            estimate.relaxed_log_codes, logits, estimate.temperature, config.prior_temperature
        ).mean(0)
    return Terms(objective, reconstruction, analytic.detach(), estimate)


class Folded:
    """θ + log q(z|x) − log p(z), so that an estimator of θ's gradient also estimates that of the KL term.

    The score's own expectation is zero, E_q[∇ log q] = 0, so log q enters as a constant. With direct optimization
    the perturbed arg max becomes argmax((1 − ε)φ + γ − ε(θ − log p)), which at ε = 1 samples the decoder's posterior.
    """

    def __init__(self, loss: CodeLoss, logits: Float[Tensor, "*leading n k"]) -> None:
        self.loss = loss
        self.log_ratio = logits.detach().log_softmax(-1) + math.log(logits.shape[-1])

    def __call__(self, codes: Float[Tensor, "*rows n k"]) -> Float[Tensor, "*rows"]:
        return self.loss(codes) + (self.log_ratio * codes).sum((-2, -1))

    def with_candidates(
        self, codes: Float[Tensor, "*rows n k"]
    ) -> tuple[Float[Tensor, "*rows"], Float[Tensor, "*rows n k"]]:
        loss, changed = self.loss.with_candidates(codes)
        own = (self.log_ratio * codes).sum(-1, keepdim=True)
        total = own.sum(-2, keepdim=True)
        return loss + total.squeeze((-2, -1)), changed + total - own + self.log_ratio

    def shared(self, codes: Float[Tensor, "codes n k"]) -> Float[Tensor, "*leading codes"]:
        return self.loss.shared(codes) + torch.einsum("...ij,cij->...c", self.log_ratio, codes)
