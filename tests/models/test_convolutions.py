"""Convolutional mixtures: layers against torch.nn, seeds against lone seeds, components against one-hot codes."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from argmax_vae.models.convolutional import ConvolutionalMixtureNetworks, SeedConvolution, fold, unfold
from argmax_vae.models.layers import set_in_layers, set_precision
from argmax_vae.randomness import generator_for

SHAPE, K, C, BATCH = (3, 8, 16), 4, 5, 2
PIXELS = 3 * 8 * 16


def networks(
    seeds: list[int], likelihood: str = "squared_error", component_bias: bool = False
) -> ConvolutionalMixtureNetworks:
    return ConvolutionalMixtureNetworks(SHAPE, K, C, [6, 7], 9, [8], 0.0, likelihood, seeds, component_bias)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_layer_is_the_convolution_of_torch_for_every_seed(transposed: bool, generator: torch.Generator) -> None:
    seeds = [4, 0, 9]
    layer = SeedConvolution(3, 5, [generator_for(seed, 0, "weights") for seed in seeds], transposed)
    images = torch.randn(len(seeds), BATCH, 3 * 8 * 6, generator=generator)
    outputs = unfold(layer(fold(images, (3, 8, 6))), len(seeds))
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    for index in range(len(seeds)):
        reference = kind(3, 5, 4, 2, 1)
        with torch.no_grad():
            reference.weight.copy_(layer.weight[index])
            assert reference.bias is not None
            reference.bias.copy_(layer.bias[index])
        expected = reference(images[index].unflatten(-1, (3, 8, 6))).flatten(1)
        torch.testing.assert_close(outputs[index], expected, rtol=1e-5, atol=1e-5)


def test_unfold_undoes_fold(generator: torch.Generator) -> None:
    images = torch.rand(3, BATCH, PIXELS, generator=generator)
    assert torch.equal(unfold(fold(images, SHAPE), 3), images)


@pytest.mark.parametrize("likelihood", ["squared_error", "bernoulli"])
def test_seeds_do_not_depend_on_their_neighbours(likelihood: str, generator: torch.Generator) -> None:
    images = torch.rand(1, BATCH, PIXELS, generator=generator)
    gaussian = torch.randn(1, BATCH, K, C, generator=generator)
    both, lone = networks([4, 9], likelihood), networks([9], likelihood)
    for found, expected in zip(both.encode(images.expand(2, -1, -1)), lone.encode(images), strict=True):
        torch.testing.assert_close(found[1:], expected, rtol=1e-5, atol=1e-6)
    found = both.decode_components(gaussian.expand(2, -1, -1, -1))
    torch.testing.assert_close(found[1:], lone.decode_components(gaussian), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("component_bias", [False, True])
def test_components_are_the_decoded_one_hot_codes(component_bias: bool, generator: torch.Generator) -> None:
    nets = networks([0, 1], component_bias=component_bias)
    gaussian = torch.randn(2, BATCH, K, C, generator=generator)
    found = nets.decode_components(gaussian)
    assert found.shape == (2, K, BATCH, PIXELS)
    for value in range(K):
        code = one_hot(torch.full((2, BATCH, 1), value), K).float()
        torch.testing.assert_close(found[:, value], nets.decode(code, gaussian), rtol=1e-5, atol=1e-6)


def test_only_the_row_of_the_component_reaches_the_decoder(generator: torch.Generator) -> None:
    nets = networks([0])
    gaussian = torch.randn(1, BATCH, K, C, generator=generator, requires_grad=True)
    code = one_hot(torch.full((1, BATCH, 1), 2), K).float()
    (gradient,) = torch.autograd.grad(nets.decode(code, gaussian).square().sum(), gaussian)
    used = gradient.abs().sum((0, 1, 3)) > 0
    assert used.tolist() == [False, False, True, False]


@pytest.mark.parametrize("component_bias", [False, True])
def test_every_parameter_has_a_gradient(component_bias: bool, generator: torch.Generator) -> None:
    nets = networks([0, 1], component_bias=component_bias)
    logits, mean, log_variance = nets.encode(torch.rand(2, BATCH, PIXELS, generator=generator))
    assert logits.shape == (2, BATCH, 1, K)
    assert mean.shape == log_variance.shape == (2, BATCH, K, C)
    outputs = nets.decode(logits.softmax(-1), mean + log_variance)
    outputs.square().sum().backward()
    for name, parameter in nets.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad.flatten(1).abs().sum(1) > 0).all()), name


def test_images_that_cannot_be_halved() -> None:
    with pytest.raises(ValueError, match="2 layers cannot halve images of 6 × 8"):
        ConvolutionalMixtureNetworks((1, 6, 8), K, C, [6, 7], 9, [8], 0.0, "bernoulli", [0])


def rounded(values: Tensor) -> Tensor:
    return values.bfloat16().float()


def test_rounded_convolutions_are_close(generator: torch.Generator) -> None:
    nets = networks([0, 1])
    images = torch.rand(2, BATCH, PIXELS, generator=generator)
    plain = nets.encode(images)
    set_precision(nets, "bfloat16")
    for found, expected in zip(nets.encode(images), plain, strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=5e-2, atol=5e-2)


def test_order_in_memory_changes_no_number(generator: torch.Generator) -> None:
    nets = networks([0, 1])
    images = torch.rand(2, BATCH, PIXELS, generator=generator)
    plain = nets.encode(images)
    set_in_layers(nets, "channels_last", True)
    for found, expected in zip(nets.encode(images), plain, strict=True):
        torch.testing.assert_close(found, expected)
