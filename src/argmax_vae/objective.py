"""The objective that is trained, −ELBO = E_q[θ] + KL(q ‖ uniform), and the reported bounds, in nats per image."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from argmax_vae.checks import require_one_of, require_positive
from argmax_vae.errors import UsageError
from argmax_vae.estimators import Estimate, Estimator
from argmax_vae.latents import gumbel_from_uniform, kl_to_uniform, relaxed_kl, sample_codes
from argmax_vae.networks import Networks
from argmax_vae.randomness import NoiseSource
from argmax_vae.reconstruction import CodeLoss, Folded, Reconstruction, importance_weights

LARGEST_DECODE = 5000
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


@dataclass(frozen=True)
class BoundSums:
    """Sums over the images of a chunk, per seed, in float64: add chunks up and divide by `images`."""

    reconstruction: Float[Tensor, "seeds"]
    kl: Float[Tensor, "seeds"]
    importance_weighted: Float[Tensor, "seeds"]
    usage: Float[Tensor, "seeds n k"]
    images: int


@torch.no_grad()
def bound_sums(
    networks: Networks,
    images: Float[Tensor, "seeds batch pixels"],
    samples: int,
    noise: NoiseSource,
    importance_samples: int = 0,
) -> BoundSums:
    """The reported bound of a chunk of images: hard samples plus analytic KL; exact over z for n = 1.

    `importance_samples` > 0 adds the bound −log (1/K) Σ p(x, z_k)/q(z_k|x) of Burda et al. (2015) with K such samples.
    """
    logits = networks.encode(images)
    loss = Reconstruction(networks, images)
    n, k = logits.shape[-2:]
    if n == 1:
        probabilities = logits.softmax(-1)
        values = torch.eye(k, dtype=images.dtype, device=images.device).unsqueeze(1)
        reconstruction = (probabilities.squeeze(-2) * loss.shared(values)).sum(-1)
        usage = probabilities
    else:
        codes = sample_codes(logits, gumbel_from_uniform(noise.uniform(logits.shape, samples)))
        groups = codes.split(max(1, LARGEST_DECODE // images.shape[1]))
        reconstruction = torch.stack([loss(group).sum(0) for group in groups]).sum(0) / samples
        usage = codes.mean(0)
    weighted = torch.full_like(reconstruction, math.nan)
    if importance_samples > 0:
        codes = sample_codes(logits, gumbel_from_uniform(noise.uniform(logits.shape, importance_samples)))
        weights = importance_weights(loss(codes), logits, codes)
        weighted = math.log(importance_samples) - weights.logsumexp(0)
    return BoundSums(
        reconstruction.double().sum(-1),
        kl_to_uniform(logits).double().sum(-1),
        weighted.double().sum(-1),
        usage.double().sum(1),
        images.shape[1],
    )


def values_in_use(usage: Float[Tensor, "seeds n k"]) -> Int[Tensor, "seeds n"]:
    """How many of its k values each latent uses: those with a share of the codes of at least 0.1/k."""
    shares = usage / usage.sum(-1, keepdim=True)
    return (shares >= 0.1 / usage.shape[-1]).sum(-1)
