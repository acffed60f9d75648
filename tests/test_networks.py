"""Networks with a seed axis against torch.nn and against networks of one seed."""

import math

import pytest
import torch
from scipy import stats
from torch import nn

from argmax_vae.models.discrete import Networks
from argmax_vae.models.layers import SeedLinear, SeedMLP
from argmax_vae.randomness import generator_for
from chance import FALSE_ALARM

SEEDS = [4, 0, 9]


def generators(seeds: list[int]) -> list[torch.Generator]:
    return [generator_for(seed, 0, "weights") for seed in seeds]


def linear_of(layer: SeedLinear, index: int) -> nn.Linear:
    inputs, outputs = layer.weight.shape[1:]
    linear = nn.Linear(inputs, outputs).double()
    with torch.no_grad():
        linear.weight.copy_(layer.weight[index].T)
        linear.bias.copy_(layer.bias[index, 0])
    return linear


def test_layer_equals_linear_layers(generator: torch.Generator) -> None:
    layer = SeedLinear(7, 5, generators(SEEDS))
    inputs = torch.randn(3, 11, 7, generator=generator)
    outputs = layer(inputs)
    for index in range(3):
        expected = linear_of(layer, index)(inputs[index].double())
        torch.testing.assert_close(outputs[index].double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sizes", [[6, 4], [6, 8, 4], [6, 8, 3, 4]])
def test_network_equals_a_sequence_of_layers(sizes: list[int], generator: torch.Generator) -> None:
    network = SeedMLP(sizes, generators(SEEDS)).double()
    assert network.is_linear == (len(sizes) == 2)
    inputs = torch.randn(3, 5, 6, generator=generator, dtype=torch.float64)
    outputs = network(inputs)
    for index in range(3):
        modules: list[nn.Module] = []
        for layer in network.layers:
            modules += [linear_of(layer, index), nn.ReLU()]
        torch.testing.assert_close(outputs[index], nn.Sequential(*modules[:-1])(inputs[index]))


@pytest.mark.parametrize(("inputs", "outputs"), [(784, 20), (200, 784), (3, 1000)])
def test_initial_weights_are_uniform(inputs: int, outputs: int) -> None:
    """On ±1/√inputs: Kolmogorov–Smirnov of each seed's weights and biases, false alarms 1e-6 each."""
    layer = SeedLinear(inputs, outputs, generators(SEEDS))
    limit = 1 / math.sqrt(inputs)
    uniform = stats.uniform(-limit, 2 * limit).cdf
    for parameters in (layer.weight, layer.bias):
        for values in parameters.detach():
            assert values.abs().max() <= limit
            assert stats.kstest(values.flatten().double().numpy(), uniform).pvalue > FALSE_ALARM


@pytest.mark.parametrize("hidden", [[], [8]])
def test_slice_equals_the_lone_network(hidden: list[int], generator: torch.Generator) -> None:
    images = torch.rand(3, 6, 15, generator=generator)
    codes = torch.rand(3, 6, 2, 4, generator=generator)
    together = Networks(15, 2, 4, hidden, SEEDS)
    for index, seed in enumerate(SEEDS):
        alone = Networks(15, 2, 4, hidden, [seed])
        for many, one in zip(together.parameters(), alone.parameters(), strict=True):
            assert torch.equal(many[index : index + 1], one)
        one_slice = slice(index, index + 1)
        torch.testing.assert_close(together.encode(images)[one_slice], alone.encode(images[one_slice]))
        torch.testing.assert_close(together.decode(codes)[one_slice], alone.decode(codes[one_slice]))


def test_gradients_stay_in_their_seed(generator: torch.Generator) -> None:
    networks = Networks(15, 2, 4, [8], SEEDS)
    logits = networks.encode(torch.rand(3, 6, 15, generator=generator))
    networks.decode(logits)[1].square().sum().backward()
    for parameter in networks.parameters():
        assert (parameter.grad[[0, 2]] == 0).all()
        assert (parameter.grad[1] != 0).any()


def test_sizes_and_layout(generator: torch.Generator) -> None:
    networks = Networks(15, 2, 4, [9, 7], [0, 1])
    assert [tuple(layer.weight.shape[1:]) for layer in networks.encoder.layers] == [(15, 9), (9, 7), (7, 8)]
    assert [tuple(layer.weight.shape[1:]) for layer in networks.decoder.layers] == [(8, 7), (7, 9), (9, 15)]
    images = torch.rand(2, 3, 15, generator=generator)
    logits = networks.encode(images)
    assert logits.shape == (2, 3, 2, 4)
    torch.testing.assert_close(logits[..., 1, 2], networks.encoder(images)[..., 1 * 4 + 2])
