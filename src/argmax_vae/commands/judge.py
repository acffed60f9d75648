"""A classifier of attributes that no run has seen, and what it finds in the images that a run makes.

How often an attribute is found in generated images has limits of three kinds, each with a number of its own:
the images that training gave to a component may lack its attribute (`component_shares`), the decoder may blur it
(`reconstructed`), and what a component's images have in common may stand in the mean of its Gaussians, which codes
from N(0, 1) do not have (`component_centres`).
"""

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from argmax_vae.data.binarization import prepare_for_evaluation
from argmax_vae.data.images import Dataset, Images
from argmax_vae.models.convolutional import ConvolutionalMixtureNetworks
from argmax_vae.models.likelihoods import LIKELIHOODS
from argmax_vae.training.attribute_vae import AttributeVAE
from argmax_vae.training.samples import class_conditional

BATCH = 100
CENTRED = 20_000
"""Training images of which the centres of the components are taken, at most."""


def bits(labels: Int64[Tensor, "images"], attributes: int) -> Float[Tensor, "images attributes"]:
    """The attributes of combinations, the first being the highest bit."""
    shifts = torch.arange(attributes - 1, -1, -1)
    return (labels.unsqueeze(-1) >> shifts & 1).float()


def scaled(pixels: UInt8[Tensor, "images pixels"], shape: tuple[int, int, int]) -> Float[Tensor, "images c h w"]:
    return pixels.float().div(255).unflatten(-1, shape)


def classifier(dataset: Dataset, attributes: int, epochs: int) -> nn.Module:
    """A convolutional classifier of every attribute, trained on the real training images."""
    torch.manual_seed(0)
    channels, height, width = dataset.shape
    network = nn.Sequential(
        *(nn.Conv2d(channels, 16, 4, 2, 1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(64 * (height // 8) * (width // 8), attributes),
    )
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    assert dataset.train.labels is not None
    for epoch in range(epochs):
        for chosen in torch.randperm(len(dataset.train.pixels)).split(BATCH):
            outputs = network(scaled(dataset.train.pixels[chosen], dataset.shape))
            loss = F.binary_cross_entropy_with_logits(outputs, bits(dataset.train.labels[chosen], attributes))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"classifier: epoch {epoch + 1}/{epochs}, {accuracy(network, dataset.validation, dataset.shape)}")
    return network.eval()


@torch.no_grad()
def found(network: nn.Module, images: Float[Tensor, "images c h w"]) -> Float[Tensor, "images attributes"]:
    """Which attributes the classifier finds."""
    return torch.cat([(network(part) > 0).float() for part in images.split(BATCH)])


def accuracy(network: nn.Module, split: Images, shape: tuple[int, int, int]) -> list[float]:
    """The share of real images with each attribute right."""
    assert split.labels is not None
    return agreement(network, scaled(split.pixels, shape), split.labels)


def most_frequent(split: Images, attributes: int) -> list[float]:
    """The share of images that have the more frequent value of each attribute: what knowing nothing would get right."""
    assert split.labels is not None
    shares = bits(split.labels, attributes).mean(0)
    larger: list[float] = torch.maximum(shares, 1 - shares).tolist()
    return larger


class Encoded(NamedTuple):
    """What one seed's encoder says of some images."""

    component: Int64[Tensor, "images"]
    """The arg max of the logits."""
    mean: Float[Tensor, "images k c"]
    """Of the Gaussians of all components."""


def best_networks(module: AttributeVAE) -> ConvolutionalMixtureNetworks:
    """The networks that a run keeps."""
    return cast(ConvolutionalMixtureNetworks, module.best)


@torch.no_grad()
def encoded(module: AttributeVAE, position: int, pixels: UInt8[Tensor, "images pixels"]) -> Encoded:
    """The images as the best networks at a position encode them."""
    components, means = [], []
    for part in pixels.split(BATCH):
        images = prepare_for_evaluation(part, module.binarization).expand(len(module.seeds), -1, -1)
        logits, mean, _ = best_networks(module).encode(images)
        components.append(logits[position, :, 0].argmax(-1))
        means.append(mean[position])
    return Encoded(torch.cat(components), torch.cat(means))


def component_shares(labels: Int64[Tensor, "images"], component: Int64[Tensor, "images"], k: int) -> list[float]:
    """Of the images that the arg max gives to a component, the share with each attribute as the component has it.

    Means over the components that have images, each counted once, as generated images ask for each equally often.
    """
    attributes = k.bit_length() - 1
    right = (bits(labels, attributes) == bits(component, attributes)).float()
    shares: list[float] = (
        torch.stack([right[component == value].mean(0) for value in component.unique()]).mean(0).tolist()
    )
    return shares


def agreement(network: nn.Module, images: Float[Tensor, "images c h w"], asked: Int64[Tensor, "images"]) -> list[float]:
    """The share of images in which the classifier finds each attribute as the combination asked for has it."""
    guesses = found(network, images)
    shares: list[float] = (guesses == bits(asked, guesses.shape[1])).float().mean(0).tolist()
    return shares


@torch.no_grad()
def generated(
    module: AttributeVAE, position: int, codes: int, centres: Float[Tensor, "k c"] | None = None
) -> tuple[Float[Tensor, "images c h w"], Int64[Tensor, "images"]]:
    """Images of all combinations with the same Gaussian codes, around 0 or around centres, and the combinations."""
    networks = best_networks(module)
    images = class_conditional(networks, module.seeds[position], position, codes, centres)
    return images.flatten(0, 1).unflatten(-1, networks.shape), torch.arange(networks.k).repeat(codes)


@torch.no_grad()
def reconstructed(
    module: AttributeVAE, position: int, labels: Int64[Tensor, "images"], encodings: Encoded
) -> Float[Tensor, "images c h w"]:
    """The images decoded from their own combinations and the means of these components' Gaussians."""
    networks, seeds = best_networks(module), len(module.seeds)
    images = []
    for own, mean in zip(labels.split(BATCH), encodings.mean.split(BATCH), strict=True):
        codes = F.one_hot(own, networks.k).to(mean).unsqueeze(-2)
        outputs = networks.decode(codes.expand(seeds, *codes.shape), mean.expand(seeds, *mean.shape))
        images.append(LIKELIHOODS[networks.likelihood].mean(outputs[position]))
    return torch.cat(images).unflatten(-1, networks.shape)


def component_centres(encodings: Encoded) -> Float[Tensor, "k c"]:
    """The mean of each component's Gaussian means over the images that the arg max gives to it; 0 without images."""
    k = encodings.mean.shape[1]
    chosen = F.one_hot(encodings.component, k).to(encodings.mean)
    sums = torch.einsum("ik,ikc->kc", chosen, encodings.mean)
    return sums / chosen.sum(0).clamp_min(1).unsqueeze(-1)


def judgements(
    network: nn.Module, module: AttributeVAE, dataset: Dataset, position: int, codes: int
) -> list[dict[str, float]]:
    """What the classifier finds in images of one seed, and what stops it from finding more: shares, by attribute."""
    assert dataset.test.labels is not None
    labels = dataset.test.labels
    test = encoded(module, position, dataset.test.pixels)
    centres = component_centres(encoded(module, position, dataset.train.pixels[:CENTRED]))
    columns = {
        "generated_with_attribute": agreement(network, *generated(module, position, codes)),
        "centred_with_attribute": agreement(network, *generated(module, position, codes, centres)),
        "reconstructed_with_attribute": agreement(network, reconstructed(module, position, labels, test), labels),
        "component_with_attribute": component_shares(labels, test.component, module.mixture.k),
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
