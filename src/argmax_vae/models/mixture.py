"""θ and the bound of the mixture of k Gaussians: the decoder is fed diag(z)·z_c (the paper's sections 5.1 and 6.1).

Row z of that matrix is z_c and all others are zero, so that at z_c = 0 every component decodes to the same image.
With `component_bias` the row is (z_c, 1): the decoder's first layer has a bias for each component.

The component z is one of k; given it, z_c is the Gaussian N(μ_z, σ_z²) of dimension c. The bound is, in nats per image,

    E_q[−log p(x | z, z_c)] + KL(q(z|x) ‖ uniform) + E_{q(z|x)}[KL(N(μ_z, σ_z²) ‖ N(0, 1))].
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from argmax_vae.errors import LARGEST_SIZE, require, require_fraction, require_one_of, require_sizes
from argmax_vae.latents import gaussian_kl
from argmax_vae.models.discrete import ModelConfig
from argmax_vae.models.layers import ACTIVATIONS, NEGATIVE_SLOPE, SeedLinear, SeedMLP
from argmax_vae.models.likelihoods import LIKELIHOODS
from argmax_vae.randomness import generator_for

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

    `component_bias`: whether the decoder's first layer has a bias for each component. Without it, as in the paper, what
    a component's images have in common must stand in the mean of its Gaussians, and is missing in images that are
    generated from N(0, 1).
    """

    latents: str = "1x10"
    gaussian: int = 20
    row: int = 100
    component_hidden: list[int] = field(default_factory=lambda: [66])
    dropout: float = 0.5
    gaussian_kl: str = "selected"
    gaussian_noise: str = "shared"
    component_bias: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.n == 1, "model.latents", self.latents, "1 x k for a mixture")
        require(self.prior == "uniform", "model.prior", self.prior, "uniform for a mixture")
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


class GaussianMixtureNetworks(nn.Module):
    """What encoders and decoders of mixtures of k Gaussians of dimension c have in common, for every seed.

    The features of an image feed the discrete head (`discrete`: k logits) and the continuous head: `rows` makes a row
    of numbers for each of the k components, and from each row one network that all of them share (`component`, with
    dropout before its last layer) makes the mean and the logarithm of the variance of its Gaussian. The decoder is fed
    the matrix diag(z)·z_c, row after row (the paper's section 6.1), or, with `component_bias`, diag(z)·(z_c, 1), of
    `width` columns. Subclasses make these modules.
    """

    discrete: nn.Module
    rows: SeedLinear
    component: SeedMLP
    likelihood = "bernoulli"

    def __init__(self, k: int, gaussian: int, dropout: float, component_bias: bool = False) -> None:
        super().__init__()
        self.n, self.k, self.gaussian, self.dropout = 1, k, gaussian, dropout
        self.width = gaussian + component_bias

    def features(self, images: Float[Tensor, "seeds batch pixels"]) -> Float[Tensor, "seeds batch features"]:
        """What both heads see of the images, whose values are in [0, 1]."""
        raise NotImplementedError

    def decoder_first(self) -> SeedLinear:
        """The decoder's first layer, on k·`width` inputs."""
        raise NotImplementedError

    def decoder_rest(self, values: Float[Tensor, "seeds rows units"]) -> Float[Tensor, "seeds rows pixels"]:
        """The decoder's outputs, given those of its first layer."""
        raise NotImplementedError

    def encode(
        self,
        images: Float[Tensor, "seeds batch pixels"],
        dropout: Float[Tensor, "seeds batch k width"] | None = None,
    ) -> tuple[
        Float[Tensor, "seeds batch 1 k"],
        Float[Tensor, "seeds batch k c"],
        Float[Tensor, "seeds batch k c"],
    ]:
        """Logits of the component, and means and logarithms of the variances of all components.

        `dropout` are uniform numbers that decide which of the last hidden units of each row are dropped; None in
        evaluation, where none are.
        """
        common = self.features(images)
        rows = self.rows(common).unflatten(-1, (self.k, -1))
        values = rows.flatten(1, 2)
        first, *others = self.component.layers
        values = first(values)
        for layer in others[:-1]:
            values = layer(self.component.activation(values))
        if others:
            values = self.component.activation(values)
            if dropout is not None:
                values = values * (dropout.flatten(1, 2) >= self.dropout) / (1 - self.dropout)
            values = others[-1](values)
        mean, log_variance = values.unflatten(1, rows.shape[1:3]).chunk(2, -1)
        return self.discrete(common).unsqueeze(-2), mean, log_variance

    def decoder_rows(self, gaussian: Float[Tensor, "seeds rows k c"]) -> Float[Tensor, "seeds rows k width"]:
        """What the decoder sees of each component, if it is the chosen one."""
        return gaussian if self.width == self.gaussian else F.pad(gaussian, (0, 1), value=1.0)

    def decode(
        self, codes: Float[Tensor, "seeds rows 1 k"], gaussian: Float[Tensor, "seeds rows k c"]
    ) -> Float[Tensor, "seeds rows pixels"]:
        """Decoder outputs of the rows of all components, each times its number of the codes."""
        return self.decoder_rest(
            self.decoder_first()((codes.movedim(-1, -2) * self.decoder_rows(gaussian)).flatten(-2))
        )

    def decode_components(self, gaussian: Float[Tensor, "seeds batch k c"]) -> Float[Tensor, "seeds k batch pixels"]:
        """Decoder outputs of every component: its first layer sees one block of inputs, the rest is dense."""
        first, (seeds, _, k, _) = self.decoder_first(), gaussian.shape
        blocks = first.weight.unflatten(1, (k, self.width)).flatten(0, 1)
        values = first.product(self.decoder_rows(gaussian).movedim(2, 1).flatten(0, 1), blocks).unflatten(0, (seeds, k))
        return self.decoder_rest((values + first.bias.unsqueeze(1)).flatten(1, 2)).unflatten(1, (k, -1))


class MixtureNetworks(GaussianMixtureNetworks):
    """Fully connected encoder and decoder of the mixture of k Gaussians of dimension c (the paper's section 6.1).

    A trunk pixels-`hidden` feeds the discrete head (`discrete_hidden`, then k logits) and the continuous head: rows of
    `row` numbers, and the shared network `component_hidden`, then 2c. The decoder is k·`width`-`decoder_hidden`-pixels.
    `negative_slope` is that of leaky_relu in trunk and discrete head, `component_negative_slope` in the shared network.
    """

    def __init__(
        self,
        pixels: int,
        k: int,
        gaussian: int,
        hidden: Sequence[int],
        discrete_hidden: Sequence[int],
        row: int,
        component_hidden: Sequence[int],
        decoder_hidden: Sequence[int],
        activation: str,
        decoder_activation: str,
        dropout: float,
        seeds: Sequence[int],
        negative_slope: float = NEGATIVE_SLOPE,
        component_negative_slope: float = NEGATIVE_SLOPE,
        component_bias: bool = False,
    ) -> None:
        super().__init__(k, gaussian, dropout, component_bias)
        generators = [generator_for(seed, 0, "weights") for seed in seeds]
        self.trunk = SeedMLP([pixels, *hidden], generators, activation, negative_slope)
        self.discrete = SeedMLP([hidden[-1], *discrete_hidden, k], generators, activation, negative_slope)
        self.rows = SeedLinear(hidden[-1], row * k, generators)
        component = [row, *component_hidden, 2 * gaussian]
        self.component = SeedMLP(component, generators, activation, component_negative_slope)
        self.decoder = SeedMLP([k * self.width, *decoder_hidden, pixels], generators, decoder_activation)

    def features(self, images: Float[Tensor, "seeds batch pixels"]) -> Float[Tensor, "seeds batch features"]:
        return self.trunk(images)

    def decoder_first(self) -> SeedLinear:
        return cast(SeedLinear, self.decoder.layers[0])

    def decoder_rest(self, values: Float[Tensor, "seeds rows units"]) -> Float[Tensor, "seeds rows pixels"]:
        for layer in self.decoder.layers[1:]:
            values = layer(self.decoder.activation(values))
        return values


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
