"""The objective that is trained, −ELBO = E_q[θ] + KL(q ‖ p) or a tighter bound on −log p(x), in nats per image.

The prior p is uniform or learned, a product of categorical distributions.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from argmax_vae.errors import UsageError, require_one_of, require_positive
from argmax_vae.estimators.base import CodeLoss, Estimate, Estimator, EstimatorConfig
from argmax_vae.latents import kl_to_prior, relaxed_kl

KL_CHOICES = ("analytic", "none", "folded", "concrete", "importance_weighted")
LogPrior = Float[Tensor, "*#leading n k"]


@dataclass
class ObjectiveConfig:
    """How the KL term is trained.

    `analytic`: Σ q (log q − log p) is added and differentiated; `none`: it is reported but not trained, as the paper's
    code does with direct; `folded`: it goes into θ and is estimated with the rest; `concrete`: the relaxed divergence
    of Maddison et al. (2016) with `prior_temperature`, for an estimator with relaxed codes; `importance_weighted`: it
    is in the weights of the bound −log (1/M) Σ_m p(x, z_m)/q(z_m|x) of Burda et al. (2015), for an estimator with M
    samples that has a gradient of it; with relaxed weights `prior_temperature` is that of p, too.
    """

    kl: str = "analytic"
    prior_temperature: float = 0.5

    def __post_init__(self) -> None:
        require_one_of("objective.kl", self.kl, KL_CHOICES)
        require_positive("objective.prior_temperature", self.prior_temperature)

    def validate_estimator(self, estimator: type[Estimator], config: EstimatorConfig) -> None:
        """Raise UsageError when estimator and objective do not fit: it lacks relaxed codes, or the bound's gradient."""
        name, choice = config.name, config.importance_weighted_alone()
        if choice and self.kl != "importance_weighted":
            raise UsageError(f"estimator.{choice} needs objective=importance_weighted; objective.kl is {self.kl}")
        if self.kl == "concrete" and not estimator.has_relaxed_codes:
            raise UsageError(
                f"objective.kl=concrete needs relaxed codes, estimator={name} has none; use gumbel_softmax"
            )
        if self.kl == "importance_weighted" and not estimator.has_importance_weighted:
            raise UsageError(
                f"objective.kl=importance_weighted: estimator={name} has no gradient of that bound; "
                "reinforce has one, VIMCO, and estimators whose gradient goes through the codes"
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
    log_prior: LogPrior | None = None,
) -> Terms:
    """E_q[θ] through the estimator, plus the KL term as configured; or the importance-weighted bound as a whole.

    `log_prior`: log p(z_i = j) for every variable and value; None for the uniform prior.
    """
    if config.kl == "importance_weighted":
        weighed = Weighed(loss, logits, log_prior, config.prior_temperature)
        estimate = estimator.importance_weighted(logits, weighed, noise, step)
    else:
        estimate = estimator(logits, Folded(loss, logits, log_prior) if config.kl == "folded" else loss, noise, step)
    analytic = kl_to_prior(logits, log_prior)
    objective, reconstruction = estimate.objective, estimate.loss
    if config.kl == "analytic":
        objective = objective + analytic
    elif config.kl in ("folded", "importance_weighted"):
        reconstruction = reconstruction - analytic.detach()
    elif config.kl == "concrete":
        assert estimate.relaxed_log_codes is not None
        assert estimate.temperature is not None
        objective = objective + relaxed_kl(
            estimate.relaxed_log_codes, logits, estimate.temperature, config.prior_temperature, log_prior
        ).mean(0)
    return Terms(objective, reconstruction, analytic.detach(), estimate)


def log_ratio(
    logits: Float[Tensor, "*leading n k"], log_prior: LogPrior | None = None
) -> Float[Tensor, "*leading n k"]:
    """log q_i(j) − log p_i(j) in nats; p is uniform without `log_prior`."""
    own = logits.log_softmax(-1)
    return own + math.log(logits.shape[-1]) if log_prior is None else own - log_prior


class Folded:
    """θ + log q(z|x) − log p(z), so that an estimator of θ's gradient also estimates that of the KL term.

    The score's own expectation is zero, E_q[∇ log q] = 0, so log q enters as a constant. With direct optimization
    the perturbed arg max becomes argmax((1 − ε)φ + γ − ε(θ − log p)), which at ε = 1 samples the decoder's posterior.
    A learned prior gets its gradient with the decoder, through the losses of the codes.
    """

    def __init__(
        self, loss: CodeLoss, logits: Float[Tensor, "*leading n k"], log_prior: LogPrior | None = None
    ) -> None:
        self.loss = loss
        self.log_ratio = log_ratio(logits.detach(), log_prior)

    def __call__(self, codes: Float[Tensor, "*rows n k"]) -> Float[Tensor, "*rows"]:
        return self.loss(codes) + (self.log_ratio * codes).sum((-2, -1))

    def with_candidates(
        self, codes: Float[Tensor, "*rows n k"]
    ) -> tuple[Float[Tensor, "*rows"], Float[Tensor, "*rows n k"]]:
        loss, changed = self.loss.with_candidates(codes)
        own = (self.log_ratio * codes).sum(-1, keepdim=True)
        total = own.sum(-2, keepdim=True)
        return loss + total.squeeze((-2, -1)), (changed + total - own + self.log_ratio).detach()

    def shared(self, codes: Float[Tensor, "codes n k"]) -> Float[Tensor, "*leading codes"]:
        return self.loss.shared(codes) + torch.einsum("...ij,cij->...c", self.log_ratio, codes)


class Weighed(Folded):
    """−log w(z) = θ + log q(z|x) − log p(z), differentiable in the logits too: a bound of several samples sees them.

    Σ_m w̃_m ∇ log q(z_m) is a part of that bound's gradient, whose expectation is not zero.
    """

    def __init__(
        self,
        loss: CodeLoss,
        logits: Float[Tensor, "*leading n k"],
        log_prior: LogPrior | None = None,
        prior_temperature: float = 0.5,
    ) -> None:
        super().__init__(loss, logits, log_prior)
        self.log_ratio = log_ratio(logits, log_prior)
        self.logits, self.log_prior, self.prior_temperature = logits, log_prior, prior_temperature

    def relaxed(
        self, log_codes: Float[Tensor, "*rows n k"], temperature: Float[Tensor, ""] | float
    ) -> Float[Tensor, "*rows"]:
        """−log w of relaxed codes, from their logarithms, with Concrete densities for q, of constant logits, and p."""
        densities = relaxed_kl(log_codes, self.logits.detach(), temperature, self.prior_temperature, self.log_prior)
        return self.loss(log_codes.exp()) + densities
