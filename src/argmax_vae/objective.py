"""The objective that is trained, −ELBO = E_q[θ] + KL(q ‖ uniform), and the reported bounds, in nats per image."""

import math
from collections.abc import Iterator
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
    Samples are drawn and decoded in groups, so that memory does not grow with their number.
    """
    logits = networks.encode(images)
    loss = Reconstruction(networks, images)
    n, k = logits.shape[-2:]
    if n == 1:
        probabilities = logits.softmax(-1)
        values = torch.eye(k, dtype=images.dtype, device=images.device).unsqueeze(1)
        reconstruction = (probabilities.squeeze(-2) * loss.shared(values)).sum(-1).double()
        usage = probabilities
    else:
        reconstruction = torch.zeros(logits.shape[:-2], dtype=torch.float64, device=images.device)
        usage = torch.zeros_like(logits)
        for codes in drawn_in_groups(logits, samples, noise):
            reconstruction += loss(codes).double().sum(0) / samples
            usage += codes.sum(0)
        usage /= samples
    weighted = torch.full_like(reconstruction, math.nan)
    if importance_samples > 0:
        total = torch.full_like(reconstruction, -math.inf)
        for codes in drawn_in_groups(logits, importance_samples, noise):
            weights = importance_weights(loss(codes), logits, codes).double().logsumexp(0)
            total = torch.logaddexp(total, weights)
        weighted = math.log(importance_samples) - total
    return BoundSums(
        reconstruction.sum(-1),
        kl_to_uniform(logits).double().sum(-1),
        weighted.sum(-1),
        usage.double().sum(1),
        images.shape[1],
    )


def largest_group(batch: int) -> int:
    """How many samples of each image of a batch are drawn and decoded at once."""
    return max(1, LARGEST_DECODE // batch)


def drawn_in_groups(
    logits: Float[Tensor, "seeds batch n k"], samples: int, noise: NoiseSource
) -> Iterator[Float[Tensor, "group seeds batch n k"]]:
    """Samples of the codes, a group after the other: the same as all at once, since a seed's noise goes on."""
    group = largest_group(logits.shape[1])
    for first in range(0, samples, group):
        uniform = noise.uniform(logits.shape, min(group, samples - first))
        yield sample_codes(logits, gumbel_from_uniform(uniform))


def values_in_use(usage: Float[Tensor, "seeds n k"]) -> Int[Tensor, "seeds n"]:
    """How many of its k values each latent uses: those with a share of the codes of at least 0.1/k."""
    shares = usage / usage.sum(-1, keepdim=True)
    return (shares >= 0.1 / usage.shape[-1]).sum(-1)
