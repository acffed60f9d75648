"""θ(x, z) = −log p(x|z) of a decoder, in the ways in which an estimator may ask for it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

from argmax_vae import candidates
from argmax_vae.estimators.base import CodeLoss
from argmax_vae.latents import log_probability
from argmax_vae.networks import Networks, SeedLinear
from argmax_vae.products import seed_product

LANES = 16
LONGEST_PRODUCT = 100


def bernoulli_loss(
    outputs: Float[Tensor, "*rows pixels"], images: Float[Tensor, "*#rows pixels"]
) -> Float[Tensor, "*rows"]:
    """−log p(x|z) = Σ_d softplus(a_d) − x_d a_d of decoder logits a, in nats per image."""
    return F.binary_cross_entropy_with_logits(outputs, images.expand_as(outputs), reduction="none").sum(-1)


def bernoulli_values(
    outputs: Float[Tensor, "*rows pixels"], images: Float[Tensor, "*#rows pixels"]
) -> Float[Tensor, "*rows"]:
    """`bernoulli_loss` where its derivative is not needed: with a logarithm for many pixels, in compiled code.

    softplus(a) = max(a, 0) + log(1 + e^−|a|), and the product of LONGEST_PRODUCT factors between 1 and 2 fits into
    float32. Pixels whose numbers differ by a multiple of LANES share a product.
    """
    factors, rest = divmod(outputs.shape[-1], LANES)
    if rest or factors > LONGEST_PRODUCT:
        return bernoulli_loss(outputs, images)
    outputs, images = (values.unflatten(-1, (factors, LANES)) for values in (outputs, images))
    linear = (outputs.relu() - images * outputs).sum(-2)
    return (linear + (1 + (-outputs.abs()).exp()).prod(-2).log()).sum(-1)


def bernoulli_without_derivative(
    outputs: Float[Tensor, "*rows pixels"], images: Float[Tensor, "*#rows pixels"]
) -> Float[Tensor, "*rows"]:
    """`bernoulli_values` in compiled code, `bernoulli_loss` elsewhere, where many small operations are slower."""
    form = bernoulli_values if torch.compiler.is_compiling() else bernoulli_loss
    return form(outputs, images)


def squared_error(
    outputs: Float[Tensor, "*rows pixels"], images: Float[Tensor, "*#rows pixels"]
) -> Float[Tensor, "*rows"]:
    """Σ_d (tanh a_d − (2x_d − 1))² of decoder outputs a and images in [0, 1] (the paper's Figure 6).

    That is −log p(x|z), in nats per image, of a Gaussian with mean tanh a and variance 1/2 for the pixels scaled to
    [−1, 1], without its constant (D/2)·log π.
    """
    return (outputs.tanh() - (2 * images - 1)).square().sum(-1)


@dataclass(frozen=True)
class Likelihood:
    """θ of decoder outputs and images in [0, 1], in nats per image, and the mean image, in [0, 1], of outputs.

    `values` are those of `loss`, up to rounding, where no derivative is asked for.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    values: Callable[[Tensor, Tensor], Tensor]
    mean: Callable[[Tensor], Tensor]


LIKELIHOODS = {
    "bernoulli": Likelihood(bernoulli_loss, bernoulli_without_derivative, torch.sigmoid),
    "squared_error": Likelihood(squared_error, squared_error, lambda outputs: (outputs.tanh() + 1) / 2),
}


class Reconstruction:
    """Reconstruction loss of a batch of images (seeds, batch, pixels) under the networks' decoder and likelihood."""

    def __init__(
        self,
        networks: Networks,
        images: Float[Tensor, "seeds batch pixels"],
        form: candidates.CandidateLosses | None = None,
    ) -> None:
        self.networks = networks
        self.images = images
        self.form = form if form is not None else candidates.CandidateLosses()

    def outputs(self, codes: Float[Tensor, "*rows n k"]) -> Float[Tensor, "seeds samples_batch pixels"]:
        """Decoder outputs, sample axes folded into the batch behind the seed axis, samples running slowest."""
        seeds, batch = self.images.shape[:2]
        return self.networks.decode(codes.reshape(-1, seeds, batch, *codes.shape[-2:]).movedim(0, 1).flatten(1, 2))

    def losses(self, outputs: Tensor, codes: Tensor) -> Tensor:
        per_sample = outputs.unflatten(1, (-1, self.images.shape[1]))
        loss = LIKELIHOODS[self.networks.likelihood].loss
        return loss(per_sample, self.images.unsqueeze(1)).movedim(1, 0).reshape(codes.shape[:-2])

    def __call__(self, codes: Float[Tensor, "*rows n k"]) -> Float[Tensor, "*rows"]:
        return self.losses(self.outputs(codes), codes)

    def with_candidates(
        self, codes: Float[Tensor, "*rows n k"]
    ) -> tuple[Float[Tensor, "*rows"], Float[Tensor, "*rows n k"]]:
        n, k = codes.shape[-2:]
        if self.form.form == "dense":
            return self(codes), self.dense(codes)
        if n == 1:
            self.form.path = "shared"
            losses = self.shared(torch.eye(k, device=codes.device, dtype=codes.dtype).unsqueeze(1))
            expanded = losses.expand(*codes.shape[:-2], k)
            return (expanded * codes.squeeze(-2)).sum(-1), expanded.detach().unsqueeze(-2)
        outputs = self.outputs(codes)
        if not self.networks.decoder.is_linear or self.networks.likelihood != "bernoulli":
            self.form.path = "first-layer differences"
            own = self.losses(outputs, codes)
            with torch.no_grad():
                return own, self.first_layer_differences(codes, own)
        with torch.no_grad():
            seeds, batch = self.images.shape[:2]
            folded = codes.reshape(-1, seeds, batch, n, k).movedim(0, 1)
            weight = self.networks.decoder.layers[0].weight
            losses = self.form.linear(self.images, outputs, weight, folded.flatten(1, 2))  # type: ignore[arg-type]
            changed = losses.unflatten(1, (-1, batch)).movedim(1, 0).reshape(codes.shape)
        return self.losses(outputs, codes), changed

    def dense(self, codes: Float[Tensor, "*rows n k"]) -> Float[Tensor, "*rows n k"]:
        """Candidate losses by decoding every changed code: the reference for every faster form."""
        with torch.no_grad():
            return candidates.dense(self, codes)

    def first_layer_differences(
        self, codes: Float[Tensor, "*rows n k"], own: Float[Tensor, "*rows"]
    ) -> Float[Tensor, "*rows n k"]:
        """Candidate losses with a difference of two rows in place of the decoder's first layer, for any decoder.

        `own` are the losses of the codes themselves, so n·(k − 1) codes are decoded and not n·k.
        """
        seeds, batch = self.images.shape[:2]
        n, k = codes.shape[-2:]
        decoder = self.networks.decoder
        folded = codes.reshape(-1, seeds, batch, n, k).movedim(0, 1).flatten(1, 2)
        values = folded.argmax(-1)
        others = (values.unsqueeze(-1) + torch.arange(1, k, device=values.device)) % k
        first, *later = cast(list[SeedLinear], list(decoder.layers))
        hidden = candidates.changed_sums(first(folded.flatten(-2)), first.weight.unflatten(1, (n, k)), values, others)
        for layer in later:
            hidden = layer(decoder.activation(hidden.flatten(1, -2)))
        per_image = hidden.reshape(seeds, -1, batch, n * (k - 1), hidden.shape[-1])
        losses = LIKELIHOODS[self.networks.likelihood].values(per_image, self.images[:, None, :, None])
        changed = own.reshape(-1, seeds, batch, 1, 1).movedim(0, 1).expand(*per_image.shape[:3], n, k).clone()
        changed.scatter_(-1, others.unflatten(1, (-1, batch)), losses.unflatten(-1, (n, k - 1)))
        return changed.movedim(1, 0).reshape(codes.shape)

    def shared(self, codes: Float[Tensor, "codes n k"]) -> Float[Tensor, "seeds batch codes"]:
        outputs = self.networks.decode(codes.expand(self.images.shape[0], *codes.shape))
        if self.networks.likelihood == "squared_error":
            means, scaled = outputs.tanh(), 2 * self.images - 1
            squares = means.square().sum(-1).unsqueeze(1) + scaled.square().sum(-1, keepdim=True)
            return squares - 2 * seed_product(scaled, means.transpose(1, 2))
        return F.softplus(outputs).sum(-1).unsqueeze(1) - seed_product(self.images, outputs.transpose(1, 2))


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


def importance_weights(
    loss: Float[Tensor, "samples *leading"],
    logits: Float[Tensor, "*leading n k"],
    codes: Float[Tensor, "samples *leading n k"],
) -> Float[Tensor, "samples *leading"]:
    """log p(x, z) − log q(z|x) of hard samples under the uniform prior, in nats."""
    n, k = logits.shape[-2:]
    return -loss - n * math.log(k) - log_probability(logits, codes)
