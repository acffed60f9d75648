"""Networks with a seed axis against torch.nn and against networks of one seed."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from scipy import stats
from torch import nn

from argmax_vae.models.discrete import EachSeed, Networks, Perceptrons
from argmax_vae.models.layers import SeedLinear, SeedMLP
from argmax_vae.models.reconstruction import Reconstruction
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
    together = Perceptrons(15, 2, 4, hidden, SEEDS)
    for index, seed in enumerate(SEEDS):
        alone = Perceptrons(15, 2, 4, hidden, [seed])
        for many, one in zip(together.parameters(), alone.parameters(), strict=True):
            assert torch.equal(many[index : index + 1], one)
        one_slice = slice(index, index + 1)
        torch.testing.assert_close(together.encode(images)[one_slice], alone.encode(images[one_slice]))
        torch.testing.assert_close(together.decode(codes)[one_slice], alone.decode(codes[one_slice]))


def test_gradients_stay_in_their_seed(generator: torch.Generator) -> None:
    networks = Perceptrons(15, 2, 4, [8], SEEDS)
    logits = networks.encode(torch.rand(3, 6, 15, generator=generator))
    networks.decode(logits)[1].square().sum().backward()
    for parameter in networks.parameters():
        assert (parameter.grad[[0, 2]] == 0).all()
        assert (parameter.grad[1] != 0).any()


def test_sizes_and_layout(generator: torch.Generator) -> None:
    networks = Perceptrons(15, 2, 4, [9, 7], [0, 1])
    assert [tuple(layer.weight.shape[1:]) for layer in networks.encoder.layers] == [(15, 9), (9, 7), (7, 8)]
    assert [tuple(layer.weight.shape[1:]) for layer in networks.decoder.layers] == [(8, 7), (7, 9), (9, 15)]
    images = torch.rand(2, 3, 15, generator=generator)
    logits = networks.encode(images)
    assert logits.shape == (2, 3, 2, 4)
    torch.testing.assert_close(logits[..., 1, 2], networks.encoder(images)[..., 1 * 4 + 2])


def small(n: int, k: int) -> tuple[Callable[[], nn.Module], Callable[[], nn.Module]]:
    """An encoder and a decoder of one seed for 15 pixels."""
    return (
        lambda: nn.Sequential(nn.Linear(15, 4), nn.Tanh(), nn.Linear(4, n * k)),
        lambda: nn.Sequential(nn.Linear(n * k, 6), nn.Tanh(), nn.Linear(6, 15)),
    )


def test_each_seed_gives_what_its_own_network_gives_whatever_its_neighbours() -> None:
    encoder, _ = small(2, 4)
    together = EachSeed(encoder, SEEDS)
    rows = torch.randn(len(SEEDS), 5, 15)
    found = together(rows)
    for position, seed in enumerate(SEEDS):
        assert torch.equal(EachSeed(encoder, [seed])(rows[position : position + 1])[0], found[position])
        alone = encoder()
        values = [values[position] for values in together.parameters_of_seeds]
        alone.load_state_dict(dict(zip(together.names, values, strict=True)))
        assert torch.equal(alone(rows[position]), found[position])
    assert not torch.equal(EachSeed(encoder, SEEDS, part=1)(rows), found)
    assert {values.shape[0] for values in together.parameters()} == {len(SEEDS)}


def test_networks_from_outside_have_candidate_losses_by_decoding_every_change() -> None:
    encoder, decoder = small(2, 3)
    networks = Networks(2, 3, EachSeed(encoder, SEEDS), EachSeed(decoder, SEEDS, part=1)).double()
    images = torch.rand(len(SEEDS), 4, 15, dtype=torch.float64)
    codes = F.one_hot(torch.randint(3, (2, len(SEEDS), 4, 2)), 3).double()
    loss = Reconstruction(networks, images)
    own, changed = loss.with_candidates(codes)
    assert loss.form.path == "dense"
    assert torch.equal(own, loss(codes))
    for latent, value in itertools.product(range(2), range(3)):
        other = codes.clone()
        other[..., latent, :] = F.one_hot(torch.tensor(value), 3)
        torch.testing.assert_close(changed[..., latent, value], loss(other))
