"""Losses of codes against torch.distributions, and the three ways to ask for them against each other."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Independent, Normal, OneHotCategorical

from argmax_vae.estimators.base import CodeLoss
from argmax_vae.latents import all_codes, one_hot_argmax
from argmax_vae.models.candidates import CandidateLosses
from argmax_vae.models.discrete import Perceptrons
from argmax_vae.models.likelihoods import LANES, LIKELIHOODS, LONGEST_PRODUCT, bernoulli_loss, bernoulli_values
from argmax_vae.models.reconstruction import Reconstruction
from argmax_vae.objective.bounds import importance_weights
from argmax_vae.objective.terms import Folded
from tabular import TabularLoss

SEEDS, BATCH, PIXELS = 2, 3, 20


def problem(
    n: int, k: int, generator: torch.Generator, hidden: tuple[int, ...] = ()
) -> tuple[Perceptrons, Reconstruction]:
    networks = Perceptrons(PIXELS, n, k, hidden, list(range(SEEDS))).double()
    images = torch.rand(SEEDS, BATCH, PIXELS, generator=generator, dtype=torch.float64).round()
    return networks, Reconstruction(networks, images)


def random_codes(generator: torch.Generator, *shape: int) -> Tensor:
    return one_hot_argmax(torch.rand(shape, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_bernoulli_loss_against_torch_distributions(scale: float, generator: torch.Generator) -> None:
    outputs = torch.randn(4, SEEDS, BATCH, PIXELS, generator=generator, dtype=torch.float64) * scale
    images = torch.rand(SEEDS, BATCH, PIXELS, generator=generator, dtype=torch.float64).round()
    expected = -Independent(Bernoulli(logits=outputs), 1).log_prob(images.expand_as(outputs))
    torch.testing.assert_close(bernoulli_loss(outputs, images.expand_as(outputs)), expected)
    torch.testing.assert_close(bernoulli_loss(outputs, images.unsqueeze(0)), expected)


@pytest.mark.parametrize("pixels", [16, 100, 784])
@pytest.mark.parametrize("scale", [0.0, 3.0, 1e4])
def test_values_of_a_likelihood_without_its_derivative(scale: float, pixels: int, generator: torch.Generator) -> None:
    """Products over pixels in float32 against float64, from factors that are all 2 to factors that are all 1."""
    outputs = torch.randn(4, SEEDS, BATCH, pixels, generator=generator) * scale
    images = torch.rand(SEEDS, BATCH, pixels, generator=generator)
    expected = bernoulli_loss(outputs.double(), images.double())
    torch.testing.assert_close(bernoulli_values(outputs, images).double(), expected, rtol=2e-6, atol=1e-5)
    longest = bernoulli_values(torch.zeros(1, LANES * LONGEST_PRODUCT), torch.zeros(1, LANES * LONGEST_PRODUCT))
    assert longest.item() == pytest.approx(LANES * LONGEST_PRODUCT * math.log(2), rel=1e-6)


def test_squared_error_against_torch_distributions(generator: torch.Generator) -> None:
    """A Gaussian of variance 1/2 on pixels scaled to [−1, 1], without its constant (D/2)·log π."""
    outputs = torch.randn(4, SEEDS, BATCH, PIXELS, generator=generator, dtype=torch.float64)
    images = torch.rand(SEEDS, BATCH, PIXELS, generator=generator, dtype=torch.float64)
    density = Independent(Normal(torch.tanh(outputs), math.sqrt(0.5)), 1).log_prob(2 * images - 1)
    found = LIKELIHOODS["squared_error"].loss(outputs, images)
    torch.testing.assert_close(found, -density - PIXELS / 2 * math.log(math.pi))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_mean_image_has_the_least_loss(name: str, generator: torch.Generator) -> None:
    """Of all outputs, those whose mean is the image; means are in [0, 1]."""
    outputs = torch.randn(50, PIXELS, generator=generator, dtype=torch.float64)
    likelihood = LIKELIHOODS[name]
    images = likelihood.mean(outputs)
    assert images.min() > 0
    assert images.max() < 1
    for change in (-1e-2, 1e-2):
        assert bool((likelihood.loss(outputs + change, images) > likelihood.loss(outputs, images)).all())


@pytest.mark.parametrize("shape", [(1, 5), (2, 3)])
def test_shared_squared_errors(shape: tuple[int, int], generator: torch.Generator) -> None:
    networks = Perceptrons(PIXELS, *shape, (7,), list(range(SEEDS)), "squared_error").double()
    loss = Reconstruction(networks, torch.rand(SEEDS, BATCH, PIXELS, generator=generator, dtype=torch.float64))
    codes = all_codes(*shape).double()
    expected = torch.stack([loss(code.expand(SEEDS, BATCH, *shape)) for code in codes], -1)
    torch.testing.assert_close(loss.shared(codes), expected)


def test_squared_error_networks_see_scaled_images(generator: torch.Generator) -> None:
    plain, scaled = (Perceptrons(PIXELS, 2, 3, (7,), [4], name) for name in ("bernoulli", "squared_error"))
    images = torch.rand(1, BATCH, PIXELS, generator=generator)
    torch.testing.assert_close(scaled.encode(images), plain.encode(2 * images - 1))


def test_bernoulli_loss_of_extreme_outputs() -> None:
    outputs, images = torch.tensor([[200.0, -200.0, 200.0, -200.0]]), torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    assert bernoulli_loss(outputs, images).item() == 400.0


@pytest.mark.parametrize("hidden", [(), (7,)])
@pytest.mark.parametrize("samples", [(), (1,), (4,), (2, 3)])
def test_losses_keep_samples_seeds_and_images_apart(
    samples: tuple[int, ...], hidden: tuple[int, ...], generator: torch.Generator
) -> None:
    networks, loss = problem(2, 3, generator, hidden)
    codes = random_codes(generator, *samples, SEEDS, BATCH, 2, 3)
    losses = loss(codes)
    assert losses.shape == codes.shape[:-2]
    for index in itertools.product(*map(range, samples), range(SEEDS), range(BATCH)):
        seed, image = index[-2:]
        outputs = networks.decode(codes[index].expand(SEEDS, 1, 2, 3))[seed, 0]
        expected = -Bernoulli(logits=outputs).log_prob(loss.images[seed, image]).sum()
        torch.testing.assert_close(losses[index], expected)


@pytest.mark.parametrize("hidden", [(), (7,)])
@pytest.mark.parametrize(("n", "k"), [(1, 4), (2, 3)])
def test_shared_codes_equal_codes_per_image(
    n: int, k: int, hidden: tuple[int, ...], generator: torch.Generator
) -> None:
    """Losses and the decoder's gradients."""
    networks, loss = problem(n, k, generator, hidden)
    codes = all_codes(n, k).double()
    each = loss(codes[:, None, None].expand(-1, SEEDS, BATCH, n, k)).movedim(0, -1)
    shared = loss.shared(codes)
    torch.testing.assert_close(shared, each)
    parameters = list(networks.decoder.parameters())
    weights = torch.rand(each.shape, generator=generator, dtype=torch.float64)
    expected = torch.autograd.grad((each * weights).sum(), parameters)
    for found, gradient in zip(torch.autograd.grad((shared * weights).sum(), parameters), expected, strict=True):
        torch.testing.assert_close(found, gradient)


@pytest.mark.parametrize("form", ["auto", "dense"])
@pytest.mark.parametrize("hidden", [(), (7,)])
@pytest.mark.parametrize(("n", "k"), [(1, 4), (2, 3)])
def test_loss_beside_candidates_is_differentiable_in_the_decoder(
    n: int, k: int, hidden: tuple[int, ...], form: str, generator: torch.Generator
) -> None:
    networks, loss = problem(n, k, generator, hidden)
    loss = Reconstruction(networks, loss.images, CandidateLosses(form))
    codes = random_codes(generator, 2, SEEDS, BATCH, n, k)
    beside, changed = loss.with_candidates(codes)
    assert not changed.requires_grad
    torch.testing.assert_close(beside, loss(codes))
    torch.testing.assert_close(changed, loss.dense(codes))
    torch.testing.assert_close((changed * codes).sum(-1), beside.detach().unsqueeze(-1).expand(codes.shape[:-1]))
    parameters = list(networks.decoder.parameters())
    expected = torch.autograd.grad(loss(codes).square().sum(), parameters)
    for found, gradient in zip(torch.autograd.grad(beside.square().sum(), parameters), expected, strict=True):
        torch.testing.assert_close(found, gradient)


def folded_by_hand(loss: CodeLoss, logits: Tensor, codes: Tensor) -> Tensor:
    """θ(z) + log q(z) − log p(z), the prior uniform over kⁿ codes."""
    n, k = logits.shape[-2:]
    return loss(codes) + Independent(OneHotCategorical(logits=logits), 1).log_prob(codes) + n * math.log(k)


@pytest.mark.parametrize(("n", "k"), [(1, 4), (2, 3), (3, 2)])
@pytest.mark.parametrize("decoder", [False, True])
def test_folded_losses_of_every_code(n: int, k: int, decoder: bool, generator: torch.Generator) -> None:
    """Loss, candidates and shared losses of all kⁿ codes."""
    table = torch.randn(SEEDS, BATCH, k**n, generator=generator, dtype=torch.float64) * 3
    loss: CodeLoss = problem(n, k, generator)[1] if decoder else TabularLoss(table, n, k)
    logits = torch.randn(SEEDS, BATCH, n, k, generator=generator, dtype=torch.float64, requires_grad=True)
    folded = Folded(loss, logits)
    codes = all_codes(n, k).double()
    each = codes[:, None, None].expand(-1, SEEDS, BATCH, n, k)
    expected = folded_by_hand(loss, logits.detach(), each)
    torch.testing.assert_close(folded(each), expected)
    torch.testing.assert_close(folded.shared(codes).movedim(-1, 0), expected)
    beside, changed = folded.with_candidates(each)
    torch.testing.assert_close(beside, expected)
    assert not changed.requires_grad
    for i in range(n):
        for j in range(k):
            other = each.clone()
            other[..., i, :] = torch.eye(k, dtype=torch.float64)[j]
            torch.testing.assert_close(changed[..., i, j], folded_by_hand(loss, logits.detach(), other))


def test_importance_weights_sum_to_the_marginal_likelihood(generator: torch.Generator) -> None:
    """Σ_z q(z) p(x, z)/q(z) = Σ_z p(x|z)/kⁿ."""
    n, k = 2, 3
    _, loss = problem(n, k, generator)
    logits = torch.randn(SEEDS, BATCH, n, k, generator=generator, dtype=torch.float64)
    codes = all_codes(n, k).double()[:, None, None].expand(-1, SEEDS, BATCH, n, k)
    losses = loss(codes)
    weights = importance_weights(losses, logits, codes)
    log_q = Independent(OneHotCategorical(logits=logits), 1).log_prob(codes)
    torch.testing.assert_close((log_q + weights).logsumexp(0), (-losses).logsumexp(0) - n * math.log(k))
