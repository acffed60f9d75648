"""The Lightning module of images with binary attributes, one discrete latent for all of them (the paper's Figure 4)."""

from collections.abc import Sequence
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor

from argmax_vae.data.images import Dataset
from argmax_vae.errors import UsageError
from argmax_vae.models.convolutional import STRIDE, AttributeConfig, ConvolutionalMixtureNetworks
from argmax_vae.models.discrete import ModelConfig
from argmax_vae.training.mixture_vae import MixtureVAE


class AttributeVAE(MixtureVAE):
    """S mixtures with convolutional networks. Value z of the latent is a combination of m attributes, k = 2ᵐ.

    The first attribute is the highest bit of z. `attributes` are their names, none for a data set without them.
    """

    def __init__(self, *arguments: Any, attributes: Sequence[str] = (), **others: Any) -> None:
        self.attributes = list(attributes)
        super().__init__(*arguments, **others)

    def make_networks(self, dataset: Dataset, model: ModelConfig) -> Any:
        m = cast(AttributeConfig, model)
        return ConvolutionalMixtureNetworks(
            dataset.shape,
            m.k,
            m.gaussian,
            m.channels,
            m.row,
            m.component_hidden,
            m.dropout,
            m.likelihood,
            self.seeds,
            m.component_bias,
        )

    def number_of_classes(self, dataset: Dataset) -> int:
        return 2 ** len(self.attributes) if self.attributes else super().number_of_classes(dataset)

    def more_metrics(self, split: str, index: int) -> dict[str, float]:
        """Also the share of images of which the arg max has the attribute right, for every attribute."""
        metrics = super().more_metrics(split, index)
        if split in self.counts and self.mixture.k == 2 ** len(self.attributes):
            shares = attribute_accuracies(self.confusion(split)[0, index])
            metrics |= {f"{split}_accuracy_{name}": share for name, share in zip(self.attributes, shares, strict=True)}
        return metrics


def attribute_accuracies(counts: Float[Tensor, "k k"]) -> list[float]:
    """Of counts of images by true (row) and given (column) combination, the shares with each attribute right."""
    k = len(counts)
    shares = []
    for bit in reversed(range(k.bit_length() - 1)):
        right = sum(
            float(counts[row, column]) for row in range(k) for column in range(k) if not (row ^ column) >> bit & 1
        )
        shares.append(right / float(counts.sum()))
    return shares


def check_shape(dataset: Dataset, model: AttributeConfig) -> None:
    """Raise UsageError when the layers cannot halve the data set's images, each once."""
    _, height, width = dataset.shape
    if height % STRIDE ** len(model.channels) or width % STRIDE ** len(model.channels):
        raise UsageError(
            f"model.channels={model.channels}: {len(model.channels)} layers cannot halve the {height} × {width} images "
            f"of data.name={dataset.name}; use fewer"
        )
