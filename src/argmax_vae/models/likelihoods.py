"""Losses of decoder outputs given an image, in nats, and what else a likelihood decides."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

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
