"""The bounds that are reported, on −log p(x), in nats: hard samples, and exact divergences."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from argmax_vae.latents import (
    gaussian_kl,
    gumbel_from_uniform,
    kl_to_prior,
    kl_to_uniform,
    log_probability,
    normal_from_uniform,
    sample_codes,
)
from argmax_vae.latents import gumbel_from_uniform as gumbel
from argmax_vae.models.discrete import Networks
from argmax_vae.models.mixture import GaussianMixtureNetworks, MixtureReconstruction
from argmax_vae.models.reconstruction import Reconstruction
from argmax_vae.randomness import NoiseSource

LARGEST_DECODE = 5000


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
    logits, log_prior = networks.encode(images), networks.log_prior
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
            weights = importance_weights(loss(codes), logits, codes, log_prior).double().logsumexp(0)
            total = torch.logaddexp(total, weights)
        weighted = math.log(importance_samples) - total
    return BoundSums(
        reconstruction.sum(-1),
        kl_to_prior(logits, log_prior).double().sum(-1),
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


@dataclass(frozen=True)
class Evaluation:
    """Per-seed numbers of one evaluation: bound = reconstruction + KL in nats per image; values in use per latent."""

    reconstruction: Float[Tensor, "seeds"]
    kl: Float[Tensor, "seeds"]
    importance_weighted: Float[Tensor, "seeds"]
    in_use: Int[Tensor, "seeds n"]

    @property
    def bound(self) -> Float[Tensor, "seeds"]:
        return self.reconstruction + self.kl

    @classmethod
    def of(cls, chunks: list[BoundSums]) -> "Evaluation":
        """Means over all images of the chunks."""
        images = sum(chunk.images for chunk in chunks)
        usage = torch.stack([chunk.usage for chunk in chunks]).sum(0)
        return cls(
            torch.stack([chunk.reconstruction for chunk in chunks]).sum(0).cpu() / images,
            torch.stack([chunk.kl for chunk in chunks]).sum(0).cpu() / images,
            torch.stack([chunk.importance_weighted for chunk in chunks]).sum(0).cpu() / images,
            values_in_use(usage).cpu(),
        )


@torch.no_grad()
def mixture_bound_sums(
    networks: GaussianMixtureNetworks,
    images: Float[Tensor, "seeds batch pixels"],
    labels: Int64[Tensor, "batch"] | None,
    classes: int,
    samples: int,
    noise: NoiseSource,
) -> tuple[BoundSums, Float[Tensor, "2 seeds classes k"] | None]:
    """The reported bound of a chunk of images, with hard samples of z and samples of z_c, and exact divergences.

    Sums are in nats, for each seed. Also, where the images have labels, how often each of the classes was given each
    value of z: by the arg max of the logits, and by one Gumbel-perturbed arg max.
    """
    logits, mean, log_variance = networks.encode(images)
    probabilities = logits.softmax(-1)
    divergences = (probabilities.squeeze(-2) * gaussian_kl(mean, log_variance)).sum(-1)
    reconstruction = torch.zeros(logits.shape[:2], dtype=torch.float64, device=images.device)
    codes = sample_codes(logits, gumbel(noise.uniform(logits.shape)))
    for sample in range(samples):
        if sample:
            codes = sample_codes(logits, gumbel(noise.uniform(logits.shape)))
        gaussian = normal_from_uniform(noise.uniform((*mean.shape[:2], mean.shape[-1])))
        loss = MixtureReconstruction(networks, images, mean, log_variance, gaussian, "expected")
        reconstruction += loss(codes).double() / samples
        if sample == 0:
            first = codes
    sums = BoundSums(
        reconstruction.sum(-1),
        (kl_to_uniform(logits) + divergences).double().sum(-1),
        torch.full_like(reconstruction[:, 0], torch.nan),
        probabilities.sum(1),
        images.shape[1],
    )
    if labels is None:
        return sums, None
    members = torch.nn.functional.one_hot(labels, classes).to(logits.dtype)
    guesses = torch.stack([sample_codes(logits, torch.zeros_like(logits)), first]).squeeze(-2)
    return sums, torch.einsum("bc,gsbk->gsck", members, guesses)


def importance_weights(
    loss: Float[Tensor, "samples *leading"],
    logits: Float[Tensor, "*leading n k"],
    codes: Float[Tensor, "samples *leading n k"],
    log_prior: Float[Tensor, "*#leading n k"] | None = None,
) -> Float[Tensor, "samples *leading"]:
    """log p(x, z) − log q(z|x) of hard samples, in nats; the prior is uniform without `log_prior`."""
    n, k = logits.shape[-2:]
    prior = -n * math.log(k) if log_prior is None else (log_prior * codes).sum((-2, -1))
    return -loss + prior - log_probability(logits, codes)
