"""The objective of several layers of codes: each layer's loss contains the objective of the layer above it.

With H the entropy, the negative ELBO of L layers is, in nats per image,

    E_{q(z₁|x)}[θ₁(z₁)] − H(q(z₁|x)),
    θ_l(z_l) = −log p(z_{l−1}|z_l) + E_{q(z_{l+1}|z_l)}[θ_{l+1}(z_{l+1})] − H(q(z_{l+1}|z_l)),

z₀ = x, and KL(q(z_L|z_{L−1}) ‖ p(z_L)) in place of −H in the last layer. An estimator of ∇ E_q[θ] for logits of one
layer therefore serves every layer: at z_l the inner expectation is estimated by the same estimator, with logits that
depend on z_l, and its objective is both a value, unbiased given z_l, and differentiable in z_l.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from argmax_vae.estimators.base import CodeLoss, Estimate, Estimator, Logits, Noise, Step
from argmax_vae.latents import gumbel_from_uniform, kl_to_prior, log_probability, sample_codes
from argmax_vae.models.layered import LayeredNetworks
from argmax_vae.models.reconstruction import Reconstruction
from argmax_vae.objective.bounds import BoundSums, drawn_in_groups
from argmax_vae.objective.terms import LogPrior, ObjectiveConfig, training_terms
from argmax_vae.randomness import NoiseSource, SeedNoise


class CodesAlone:
    """A loss without the losses of other codes than those that it is given, for estimators that ask for no more."""

    def __call__(self, codes: Float[Tensor, "*rows n k"]) -> Float[Tensor, "*rows"]:
        raise NotImplementedError

    def with_candidates(
        self, codes: Float[Tensor, "*rows n k"]
    ) -> tuple[Float[Tensor, "*rows"], Float[Tensor, "*rows n k"]]:
        raise NotImplementedError("every changed code would have an expectation over the layers above of its own")

    def shared(self, codes: Float[Tensor, "codes n k"]) -> Float[Tensor, "*leading codes"]:
        raise NotImplementedError("the codes of all images would have expectations over the layers above of their own")


class Asked(CodesAlone):
    """A loss of zeros that keeps how many codes per image each call asked for."""

    def __init__(self) -> None:
        self.codes: list[int] = []

    def __call__(self, codes: Float[Tensor, "*rows n k"]) -> Float[Tensor, "*rows"]:
        self.codes.append(codes.shape[:-2].numel())
        return codes.sum((-2, -1)) * 0


class Chain(Estimator):
    """An estimator for each layer; as one estimator it is that of the first, with the noise of all.

    What it learns each layer learns by itself. Noise of the layer above comes with the number of the call that asks
    for it, such as `1.uniform`, drawn as for so many more images; for estimators that subtract losses of one image from
    each other it is the same for all of these, so that it falls out of the difference. Codes of the layers above are
    hard ones also where a code is relaxed; the code of Tucker et al. (2017) relaxes these, too.
    """

    def __init__(self, layers: Sequence[Estimator], sizes: Sequence[tuple[int, int]]) -> None:
        super().__init__(layers[0].config)
        self.layers, self.sizes = nn.ModuleList(layers), list(sizes)
        self.asked: list[list[int]] = []

    def prepare(self, n: int, k: int, seeds: Sequence[int] | None = None) -> "Chain":
        seeds = [0] if seeds is None else seeds
        for estimator, size in zip(self.estimators, self.sizes, strict=True):
            self.asked.append(asked_for(estimator.prepare(*size, seeds), size, seeds))
        return self

    @property
    def estimators(self) -> list[Estimator]:
        """Those of all layers, the one next to the image first."""
        return [cast(Estimator, layer) for layer in self.layers]

    def noise(self, shape: tuple[int, ...], source: NoiseSource) -> Noise:
        seeds, batch = shape[:2]
        found: Noise = {}
        layers = self.estimators

        common = {
            layer: estimator.noise((seeds, batch, *size), source)
            for layer, (estimator, size) in enumerate(zip(layers, self.sizes, strict=True))
            if estimator.subtracts_losses
        }

        def draw(layer: int, rows: int, prefix: str) -> None:
            if layer in common:
                copies, found_once = rows // batch, common[layer]
                drawn = {name: each.repeat(1, copies, *[1] * (each.ndim - 2)) for name, each in found_once.items()}
            else:
                drawn = layers[layer].noise((seeds, rows, *self.sizes[layer]), source)
            found.update({f"{prefix}{name}": values for name, values in drawn.items()})
            if layer + 1 < len(layers):
                for call, number in enumerate(self.asked[layer]):
                    draw(layer + 1, rows * number, f"{prefix}{call}.")

        draw(0, batch, "")
        return found

    def forward(self, logits: Logits, loss: CodeLoss, noise: Noise, step: Step) -> Estimate:
        return self.estimators[0](logits, loss, noise, step)


def asked_for(estimator: Estimator, size: tuple[int, int], seeds: Sequence[int]) -> list[int]:
    """How many codes per image each call of the loss asks for in one estimate."""
    asked, shape = Asked(), (len(seeds), 1, *size)
    noise = estimator.noise(shape, SeedNoise(seeds, "cpu").restart(0, "noise"))
    estimator(torch.zeros(shape, requires_grad=True), asked, noise, torch.tensor(0))
    return [number // len(seeds) for number in asked.codes]


class LayerReconstruction:
    """−log p(z_l|z_{l+1}) in nats, for codes of the layer above; also of the relaxed codes of pathwise estimators."""

    def __init__(self, networks: LayeredNetworks, layer: int, codes: Float[Tensor, "seeds rows n k"]) -> None:
        self.networks, self.layer, self.codes = networks, layer, codes

    def __call__(
        self, above: Float[Tensor, "*samples seeds rows above values"]
    ) -> Float[Tensor, "*samples seeds rows"]:
        seeds, rows = self.codes.shape[:2]
        folded = above.reshape(-1, seeds, rows, *above.shape[-2:]).movedim(0, 1).flatten(1, 2)
        logs = self.networks.down(self.layer, folded).unflatten(1, (-1, rows))
        return -(logs * self.codes.unsqueeze(1)).sum((-2, -1)).movedim(1, 0).reshape(above.shape[:-2])


class LayeredLoss(CodesAlone):
    """θ_l: a loss of codes of one layer, which calls the estimator of the layer above for each of them."""

    def __init__(
        self,
        own: CodeLoss | LayerReconstruction,
        layer: int,
        networks: LayeredNetworks,
        chain: Chain,
        objective: ObjectiveConfig,
        noise: Noise,
        step: Step,
    ) -> None:
        self.own, self.layer, self.networks, self.chain = own, layer, networks, chain
        self.objective, self.noise, self.step = objective, noise, step
        self.calls = 0

    def __call__(self, codes: Float[Tensor, "*rows n k"]) -> Float[Tensor, "*rows"]:
        own = self.own(codes)
        if self.layer + 1 == len(self.networks.sizes):
            return own
        prefix = f"{self.calls}."
        noise = {name.removeprefix(prefix): v for name, v in self.noise.items() if name.startswith(prefix)}
        self.calls += 1
        seeds, rows = codes.shape[-4:-2]
        folded = codes.reshape(-1, seeds, rows, *codes.shape[-2:]).movedim(0, 1).flatten(1, 2)
        above = self.layer + 1
        loss = LayeredLoss(
            LayerReconstruction(self.networks, self.layer, folded),
            above,
            self.networks,
            self.chain,
            self.objective,
            noise,
            self.step,
        )
        logits, estimator = self.networks.up(self.layer, folded), self.chain.estimators[above]
        prior = log_prior_of(self.networks, above, logits)
        terms = training_terms(self.objective, estimator, logits, loss, noise, self.step, prior)
        return own + terms.objective.unflatten(1, (-1, rows)).movedim(1, 0).reshape(own.shape)


def log_prior_of(networks: LayeredNetworks, layer: int, logits: Logits) -> LogPrior | None:
    """What the KL term of a layer is measured from: the prior in the last one, else 0, which leaves the entropy."""
    return networks.log_prior if layer + 1 == len(networks.sizes) else torch.zeros_like(logits[:, :1])


@torch.no_grad()
def layered_bound_sums(
    networks: LayeredNetworks,
    images: Float[Tensor, "seeds batch pixels"],
    samples: int,
    noise: NoiseSource,
    importance_samples: int = 0,
) -> BoundSums:
    """As `bounds.bound_sums`: hard samples of all layers, entropies and the divergence of the last layer exact.

    `kl` is what the bound has beside the reconstruction of the image; `usage` is that of the first layer.
    """
    logits = networks.encode(images)
    loss = Reconstruction(networks, images)
    reconstruction = torch.zeros(logits.shape[:2], dtype=torch.float64, device=images.device)
    divergence = kl_to_prior(logits, log_prior_of(networks, 0, logits)).double()
    usage = torch.zeros_like(logits)
    for codes in drawn_in_groups(logits, samples, noise):
        reconstruction += loss(codes).double().sum(0) / samples
        divergence += rest(networks, codes, noise)[0].double().sum(0) / samples
        usage += codes.sum(0) / samples
    weighted = torch.full_like(reconstruction, torch.nan)
    if importance_samples > 0:
        total = torch.full_like(reconstruction, -torch.inf)
        for codes in drawn_in_groups(logits, importance_samples, noise):
            weights = -loss(codes) - log_probability(logits, codes) - rest(networks, codes, noise)[1]
            total = torch.logaddexp(total, weights.double().logsumexp(0))
        weighted = math.log(importance_samples) - total
    return BoundSums(
        reconstruction.sum(-1), divergence.sum(-1), weighted.sum(-1), usage.double().sum(1), images.shape[1]
    )


def rest(
    networks: LayeredNetworks, codes: Float[Tensor, "group seeds batch n k"], noise: NoiseSource
) -> tuple[Float[Tensor, "group seeds batch"], Float[Tensor, "group seeds batch"]]:
    """What codes of the first layer add to the bound by the layers above, and to −log w, by one sample of each."""
    group, _, batch = codes.shape[:3]
    codes = codes.movedim(0, 1).flatten(1, 2)
    bound = weight = torch.zeros(codes.shape[:2], device=codes.device)
    for layer in range(len(networks.sizes) - 1):
        logits = networks.up(layer, codes)
        above = sample_codes(logits, gumbel_from_uniform(noise.uniform(logits.shape))).reshape(logits.shape)
        own = LayerReconstruction(networks, layer, codes)(above)
        prior = log_prior_of(networks, layer + 1, logits)
        bound = bound + own + kl_to_prior(logits, prior)
        weight = weight + own + log_probability(logits, above) - log_prior_value(above, prior)
        codes = above
    first, second = (each.unflatten(1, (group, batch)).movedim(1, 0) for each in (bound, weight))
    return first, second


def log_prior_value(
    codes: Float[Tensor, "seeds rows n k"], log_prior: LogPrior | None
) -> Float[Tensor, "seeds rows"] | float:
    """log p(z) in nats; 0 where `log_prior` is."""
    n, k = codes.shape[-2:]
    return -n * math.log(k) if log_prior is None else (log_prior * codes).sum((-2, -1))
