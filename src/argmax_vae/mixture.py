"""θ and the bound of the mixture of k Gaussians: the decoder is fed diag(z)·z_c (the paper's sections 5.1 and 6.1).

The component z is one of k; given it, z_c is the Gaussian N(μ_z, σ_z²) of dimension c. The bound is, in nats per image,

    E_q[−log p(x | z, z_c)] + KL(q(z|x) ‖ uniform) + E_{q(z|x)}[KL(N(μ_z, σ_z²) ‖ N(0, 1))].
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from argmax_vae.checks import LARGEST_SIZE, require, require_fraction, require_one_of, require_sizes
from argmax_vae.latents import gaussian_kl, kl_to_uniform, normal_from_uniform, sample_codes
from argmax_vae.latents import gumbel_from_uniform as gumbel
from argmax_vae.modules import ModelConfig
from argmax_vae.networks import ACTIVATIONS, NEGATIVE_SLOPE, GaussianMixtureNetworks
from argmax_vae.objective import BoundSums
from argmax_vae.randomness import NoiseSource
from argmax_vae.reconstruction import LIKELIHOODS

GAUSSIAN_KL = ("selected", "candidate", "mixed", "expected")
IN_THETA = ("candidate", "mixed")
"""The choices that have the divergence of the Gaussian in the values of θ."""
GAUSSIAN_NOISE = ("shared", "per_component")


@dataclass
class GaussianMixtureConfig(ModelConfig):
    """What mixtures have in common. `latents`: 1xk; `gaussian`: the dimension c; `row`, `component_hidden` and
    `dropout`: of the layers that all components share, as in `networks.GaussianMixtureNetworks`.

    `gaussian_kl`: how the third term is trained. `selected`: the divergence of the sampled component, which the
    discrete gradient does not see, as in the paper's code; `candidate`: it is a part of θ, so that every choice of the
    component is judged with its own; `mixed`: so is KL(N(Σ_j z_j μ_j, exp(Σ_j z_j log σ_j²)) ‖ N(0, 1)), which equals
    `candidate` for hard codes and is what the paper's code trains with the relaxed codes of Gumbel-Softmax; `expected`:
    Σ_j q(j) KL_j, added and differentiated.

    `gaussian_noise`: whether the k components of an image have one noise in training, `shared`, or each its own,
    `per_component`, as in the paper's code.
    """

    latents: str = "1x10"
    gaussian: int = 20
    row: int = 100
    component_hidden: list[int] = field(default_factory=lambda: [66])
    dropout: float = 0.5
    gaussian_kl: str = "selected"
    gaussian_noise: str = "shared"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.n == 1, "model.latents", self.latents, "1 x k for a mixture")
        for name in ("gaussian", "row"):
            size = getattr(self, name)
            require(1 <= size <= LARGEST_SIZE, f"model.{name}", size, f"from 1 to {LARGEST_SIZE}")
        require_sizes("model.component_hidden", self.component_hidden)
        require_fraction("model.dropout", self.dropout)
        require_one_of("model.gaussian_kl", self.gaussian_kl, GAUSSIAN_KL)
        require_one_of("model.gaussian_noise", self.gaussian_noise, GAUSSIAN_NOISE)


@dataclass
class MixtureConfig(GaussianMixtureConfig):
    """A mixture with the fully connected layers of `networks.MixtureNetworks`, whose sizes these are.

    `activation`: relu, or leaky_relu with `negative_slope` in trunk and discrete head and `component_negative_slope` in
    the layers that the components share. The paper's code has the slopes 0.2 and 0.5.
    """

    name: str = "mixture"
    hidden: list[int] = field(default_factory=lambda: [400, 200])
    discrete_hidden: list[int] = field(default_factory=lambda: [100])
    decoder_hidden: list[int] = field(default_factory=lambda: [400])
    activation: str = "relu"
    decoder_activation: str = "relu"
    negative_slope: float = NEGATIVE_SLOPE
    component_negative_slope: float = NEGATIVE_SLOPE

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes("model.discrete_hidden", self.discrete_hidden)
        require_sizes("model.decoder_hidden", self.decoder_hidden)
        require_sizes("model.hidden", self.hidden, at_least_one=True)
        for name in ("activation", "decoder_activation"):
            require_one_of(f"model.{name}", getattr(self, name), ACTIVATIONS)
        for name in ("negative_slope", "component_negative_slope"):
            value = getattr(self, name)
            require_fraction(f"model.{name}", value)
            with_relu = f"{NEGATIVE_SLOPE} with model.activation={self.activation}; use model.activation=leaky_relu"
            require(value == NEGATIVE_SLOPE or self.activation == "leaky_relu", f"model.{name}", value, with_relu)


@dataclass
class AttributeConfig(GaussianMixtureConfig):
    """A mixture with the layers of `convolutions.ConvolutionalMixtureNetworks`: the combination of m attributes is one
    variable with k = 2ᵐ values. `channels`: of the convolutions; `likelihood`: bernoulli, or squared_error with tanh.
    """

    name: str = "attributes"
    latents: str = "1x8"
    gaussian: int = 64
    row: int = 128
    component_hidden: list[int] = field(default_factory=lambda: [128])
    dropout: float = 0.0
    gaussian_kl: str = "candidate"
    channels: list[int] = field(default_factory=lambda: [32, 64, 128, 256])
    likelihood: str = "squared_error"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.hidden == [], "model.hidden", self.hidden, "[] with model=attributes; set model.channels")
        require_sizes("model.channels", self.channels, at_least_one=True)
        require_one_of("model.likelihood", self.likelihood, LIKELIHOODS)


class MixtureReconstruction:
    """θ(x, z) of a batch of images for one Gaussian noise, the same or another for every component; nats per image.

    `divergences` (seeds, batch, k) are those of the components, and `kl`, the `gaussian_kl` of GaussianMixtureConfig,
    says where θ has them: in all losses (`candidate`, and `mixed` for relaxed codes), in the derivative of the losses
    of the code but not in their values (`selected`), so that no estimator sees them, or nowhere (`expected`).
    """

    def __init__(
        self,
        networks: GaussianMixtureNetworks,
        images: Float[Tensor, "seeds batch pixels"],
        mean: Float[Tensor, "seeds batch k c"],
        log_variance: Float[Tensor, "seeds batch k c"],
        noise: Float[Tensor, "seeds batch c"] | Float[Tensor, "seeds batch k c"],
        kl: str,
    ) -> None:
        self.networks, self.images, self.kl = networks, images, kl
        self.likelihood = LIKELIHOODS[networks.likelihood]
        self.mean, self.log_variance = mean, log_variance
        self.gaussian = mean + (0.5 * log_variance).exp() * (
            noise if noise.dim() == mean.dim() else noise.unsqueeze(-2)
        )
        self.divergences = gaussian_kl(mean, log_variance)

    def __call__(self, codes: Float[Tensor, "*rows 1 k"]) -> Float[Tensor, "*rows"]:
        seeds, batch, k, c = self.gaussian.shape
        folded = codes.reshape(-1, seeds, batch, 1, k).movedim(0, 1)
        gaussian = self.gaussian.unsqueeze(1).expand(seeds, folded.shape[1], batch, k, c)
        outputs = self.networks.decode(folded.flatten(1, 2), gaussian.flatten(1, 2))
        losses = self.likelihood.loss(outputs.unflatten(1, (-1, batch)), self.images.unsqueeze(1))
        losses = losses.movedim(1, 0).reshape(codes.shape[:-2])
        if self.kl == "expected":
            return losses
        if self.kl == "candidate":
            return losses + (codes.squeeze(-2) * self.divergences).sum(-1)
        if self.kl == "mixed":
            mean, log_variance = ((codes @ values).squeeze(-2) for values in (self.mean, self.log_variance))
            return losses + gaussian_kl(mean, log_variance)
        selected = (codes.detach().squeeze(-2) * self.divergences).sum(-1)
        return losses + selected - selected.detach()

    def candidates(self) -> Float[Tensor, "seeds batch k"]:
        """Losses of all k components, without a gradient."""
        with torch.no_grad():
            outputs = self.networks.decode_components(self.gaussian)
            losses = self.likelihood.values(outputs, self.images.unsqueeze(1)).movedim(1, -1)
            return losses + self.divergences if self.kl in IN_THETA else losses

    def with_candidates(
        self, codes: Float[Tensor, "*rows 1 k"]
    ) -> tuple[Float[Tensor, "*rows"], Float[Tensor, "*rows 1 k"]]:
        return self(codes), self.candidates().unsqueeze(-2).expand(codes.shape)

    def shared(self, codes: Float[Tensor, "codes 1 k"]) -> Float[Tensor, "seeds batch codes"]:
        seeds, batch = self.images.shape[:2]
        return self(codes[:, None, None].expand(-1, seeds, batch, -1, -1)).movedim(0, -1)


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
