"""θ(x, z) = −log p(x|z) of a decoder, in the ways in which an estimator may ask for it."""

from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

from argmax_vae import latents
from argmax_vae.models import candidates
from argmax_vae.models.discrete import Networks
from argmax_vae.models.layers import SeedLinear, SeedMLP
from argmax_vae.models.likelihoods import LIKELIHOODS
from argmax_vae.models.matmul import seed_product


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
        if not isinstance(self.networks.decoder, SeedMLP):
            self.form.path = "dense"
            return self(codes), self.dense(codes)
        outputs = self.outputs(codes)
        if not self.networks.decoder.is_linear or self.networks.likelihood != "bernoulli":
            self.form.path = "first-layer differences"
            own = self.losses(outputs, codes)
            with torch.no_grad():
                return own, self.first_layer_differences(codes, own)
        with torch.no_grad():
            seeds, batch = self.images.shape[:2]
            folded = codes.reshape(-1, seeds, batch, n, k).movedim(0, 1)
            weight = cast(SeedLinear, self.networks.decoder.layers[0]).weight
            losses = self.form.linear(self.images, outputs, weight, folded.flatten(1, 2))
            changed = losses.unflatten(1, (-1, batch)).movedim(1, 0).reshape(codes.shape)
        return self.losses(outputs, codes), changed

    def dense(self, codes: Float[Tensor, "*rows n k"]) -> Float[Tensor, "*rows n k"]:
        """Candidate losses by decoding every changed code: the reference for every faster form."""
        with torch.no_grad():
            return latents.dense(self, codes)

    def first_layer_differences(
        self, codes: Float[Tensor, "*rows n k"], own: Float[Tensor, "*rows"]
    ) -> Float[Tensor, "*rows n k"]:
        """Candidate losses with a difference of two rows in place of the decoder's first layer, for any decoder.

        `own` are the losses of the codes themselves, so n·(k − 1) codes are decoded and not n·k.
        """
        seeds, batch = self.images.shape[:2]
        n, k = codes.shape[-2:]
        decoder = cast(SeedMLP, self.networks.decoder)
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
