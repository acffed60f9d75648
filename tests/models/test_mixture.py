"""The mixture of discrete and Gaussian latents: layout, losses, divergences and bound, against written-out ones."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy import special, stats
from torch import Tensor
from torch.distributions import Categorical, Independent, Normal, kl_divergence
from torch.nn.functional import one_hot

from argmax_vae.estimators.base import CodeLoss
from argmax_vae.latents import gaussian_kl, normal_by_erfinv, normal_from_uniform
from argmax_vae.models.layers import PRECISIONS, set_precision
from argmax_vae.models.likelihoods import bernoulli_loss
from argmax_vae.models.mixture import GAUSSIAN_KL, GaussianMixtureNetworks, MixtureNetworks, MixtureReconstruction
from argmax_vae.objective.bounds import mixture_bound_sums
from argmax_vae.randomness import PlainNoise
from chance import FALSE_ALARM, mean_p_value

SEEDS, BATCH, PIXELS, K, C = 2, 3, 12, 4, 2


def networks(
    seeds: list[int] | None = None,
    dropout: float = 0.5,
    slopes: tuple[float, float] = (0.01, 0.01),
    component_bias: bool = False,
) -> MixtureNetworks:
    sizes, chosen = ([9, 7], [6], 5, [8], [10]), seeds or list(range(SEEDS))
    further = ("leaky_relu", "relu", dropout, chosen, *slopes, component_bias)
    return MixtureNetworks(PIXELS, K, C, *sizes, *further).double()


def images(generator: torch.Generator) -> Tensor:
    return torch.rand(SEEDS, BATCH, PIXELS, generator=generator, dtype=torch.float64).round()


def problem(
    kind: str, generator: torch.Generator, component_bias: bool = False
) -> tuple[MixtureReconstruction, Tensor]:
    nets, pixels = networks(component_bias=component_bias), images(generator)
    logits, mean, log_variance = nets.encode(pixels)
    noise = torch.randn(SEEDS, BATCH, C, generator=generator, dtype=torch.float64)
    return MixtureReconstruction(nets, pixels, mean, log_variance, noise, kind), logits


def code(value: int) -> Tensor:
    return one_hot(torch.full((SEEDS, BATCH, 1), value), K).double()


def test_decoder_sees_the_matrix_diag_z_times_gaussians(generator: torch.Generator) -> None:
    nets = networks()
    rows = torch.randn(SEEDS, BATCH, K, C, generator=generator, dtype=torch.float64)
    relaxed = torch.rand(SEEDS, BATCH, 1, K, generator=generator, dtype=torch.float64)
    for codes in (code(2), relaxed):
        matrix = torch.diag_embed(codes.squeeze(-2)) @ rows
        torch.testing.assert_close(nets.decode(codes, rows), nets.decoder(matrix.reshape(SEEDS, BATCH, K * C)))
    assert torch.equal(
        (torch.diag_embed(code(2).squeeze(-2)) @ rows)[..., [0, 1, 3], :].abs().sum(), torch.zeros(()).double()
    )


def test_a_bias_of_a_component_is_one_more_column_of_ones(generator: torch.Generator) -> None:
    """diag(z)·(z_c, 1), also of relaxed codes; without the column all components decode z_c = 0 to the same image."""
    nets, plain = networks(component_bias=True), networks()
    rows = torch.randn(SEEDS, BATCH, K, C, generator=generator, dtype=torch.float64)
    relaxed = torch.rand(SEEDS, BATCH, 1, K, generator=generator, dtype=torch.float64)
    for codes in (code(2), relaxed):
        matrix = torch.diag_embed(codes.squeeze(-2)) @ torch.cat([rows, torch.ones_like(rows[..., :1])], -1)
        torch.testing.assert_close(nets.decode(codes, rows), nets.decoder(matrix.reshape(SEEDS, BATCH, K * (C + 1))))
    same, apart = (network.decode_components(torch.zeros_like(rows)) for network in (plain, nets))
    torch.testing.assert_close(same, same[:, :1].expand_as(same))
    assert ((apart[:, 1:] - apart[:, :1]).abs().amax(-1) > 1e-3).all()


@pytest.mark.parametrize("slopes", [(0.01, 0.01), (0.2, 0.5)])
def test_encoder_against_a_network_written_out(slopes: tuple[float, float], generator: torch.Generator) -> None:
    """Trunk, discrete head, and one network for the rows of all components, for every seed."""
    nets, pixels = networks(slopes=slopes), images(generator)
    logits, mean, log_variance = nets.encode(pixels)
    act, act_of_components = (torch.nn.LeakyReLU(slope) for slope in slopes)
    for s in range(SEEDS):

        def apply(layer: torch.nn.Module, values: Tensor, s: int = s) -> Tensor:
            return values @ layer.weight[s] + layer.bias[s]

        common = apply(nets.trunk.layers[1], act(apply(nets.trunk.layers[0], pixels[s])))
        head = apply(nets.discrete.layers[1], act(apply(nets.discrete.layers[0], common)))
        torch.testing.assert_close(logits[s, :, 0], head)
        for j in range(K):
            row = apply(nets.rows, common)[:, 5 * j : 5 * (j + 1)]
            both = apply(nets.component.layers[1], act_of_components(apply(nets.component.layers[0], row)))
            torch.testing.assert_close(mean[s, :, j], both[:, :C])
            torch.testing.assert_close(log_variance[s, :, j], both[:, C:])


def test_dropout_drops_units_and_scales_the_others(generator: torch.Generator) -> None:
    nets, pixels = networks(dropout=0.25), images(generator)
    kept = torch.ones(SEEDS, BATCH, K, 8, dtype=torch.float64)
    _, mean, _ = nets.encode(pixels, kept)
    _, whole, _ = nets.encode(pixels)
    bias = nets.component.layers[1].bias.unsqueeze(1)[..., :C]
    torch.testing.assert_close(mean - bias, (whole - bias) / 0.75)
    _, none, _ = nets.encode(pixels, torch.zeros_like(kept))
    torch.testing.assert_close(none, bias.expand_as(none))


def test_a_seed_has_the_networks_of_a_lone_run(generator: torch.Generator) -> None:
    together, alone = networks([3, 8]), networks([8])
    for many, one in zip(together.parameters(), alone.parameters(), strict=True):
        assert torch.equal(many[1:], one)


@pytest.mark.parametrize("component_bias", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", GAUSSIAN_KL)
def test_losses_of_codes_and_of_all_components(
    kind: str, precision: str, component_bias: bool, generator: torch.Generator
) -> None:
    loss, _ = problem(kind, generator, component_bias)
    set_precision(loss.networks, precision)
    assert isinstance(loss, CodeLoss)
    outputs = [loss.networks.decode(code(j), loss.gaussian) for j in range(K)]
    plain = torch.stack([bernoulli_loss(output, loss.images) for output in outputs], -1)
    inside = loss.divergences if kind in ("candidate", "mixed") else 0.0
    torch.testing.assert_close(loss.candidates(), plain + inside)
    own = plain + inside
    values = torch.eye(K, dtype=torch.float64).unsqueeze(1)
    torch.testing.assert_close(loss.shared(values), own)
    for j in range(K):
        torch.testing.assert_close(loss(code(j)), own[..., j])
        chosen, changed = loss.with_candidates(code(j))
        torch.testing.assert_close(chosen, own[..., j])
        torch.testing.assert_close(changed, (plain + inside).unsqueeze(-2))
        assert not changed.requires_grad


def test_losses_keep_samples_apart(generator: torch.Generator) -> None:
    loss, _ = problem("candidate", generator)
    codes = torch.stack([code(1), code(3)])
    torch.testing.assert_close(loss(codes), torch.stack([loss(code(1)), loss(code(3))]))


def test_mixed_divergence_is_that_of_the_gaussian_with_mixed_mean_and_log_variance(generator: torch.Generator) -> None:
    """Against torch.distributions, with its derivative in the relaxed code."""
    nets, pixels = networks(), images(generator)
    mean, log_variance = torch.randn(2, SEEDS, BATCH, K, C, generator=generator, dtype=torch.float64)
    noise = torch.zeros(SEEDS, BATCH, C, dtype=torch.float64)
    relaxed = torch.randn(3, SEEDS, BATCH, 1, K, generator=generator, dtype=torch.float64).softmax(-1).requires_grad_()
    found = MixtureReconstruction(nets, pixels, mean, log_variance, noise, "mixed")(relaxed)
    found = found - MixtureReconstruction(nets, pixels, mean, log_variance, noise, "expected")(relaxed)
    mixed = [torch.einsum("nsbij,sbjc->nsbc", relaxed, values) for values in (mean, log_variance)]
    posterior = Independent(Normal(mixed[0], (0.5 * mixed[1]).exp()), 1)
    prior = Independent(Normal(torch.zeros_like(mixed[0]), torch.ones_like(mixed[0])), 1)
    truth = kl_divergence(posterior, prior)
    torch.testing.assert_close(found, truth)
    slopes = [torch.autograd.grad(value.sum(), relaxed, retain_graph=True)[0] for value in (found, truth)]
    torch.testing.assert_close(*slopes)


def test_every_component_may_have_a_noise_of_its_own(generator: torch.Generator) -> None:
    nets, pixels = networks(), images(generator)
    mean, log_variance, noise = torch.randn(3, SEEDS, BATCH, K, C, generator=generator, dtype=torch.float64)
    own = MixtureReconstruction(nets, pixels, mean, log_variance, noise, "expected")
    torch.testing.assert_close(own.gaussian, mean + (0.5 * log_variance).exp() * noise)
    for j in range(K):
        shared = MixtureReconstruction(nets, pixels, mean, log_variance, noise[:, :, j], "expected")
        torch.testing.assert_close(own(code(j)), shared(code(j)))


def test_only_the_selected_divergence_differentiates_the_gaussians(generator: torch.Generator) -> None:
    nets, pixels = networks(), images(generator)
    mean = torch.randn(SEEDS, BATCH, K, C, generator=generator, dtype=torch.float64, requires_grad=True)
    log_variance = torch.zeros_like(mean)
    noise = torch.zeros(SEEDS, BATCH, C, dtype=torch.float64)
    relaxed = code(1).requires_grad_()
    loss = MixtureReconstruction(nets, pixels, mean, log_variance, noise, "selected")
    without = MixtureReconstruction(nets, pixels, mean, log_variance, noise, "expected")
    extra = torch.autograd.grad((loss(relaxed) - without(relaxed)).sum(), [mean, relaxed], allow_unused=True)
    expected = torch.zeros_like(mean)
    expected[:, :, 1] = mean.detach()[:, :, 1]
    torch.testing.assert_close(extra[0], expected)
    torch.testing.assert_close(extra[1], torch.zeros_like(relaxed))


def test_gaussian_divergence_against_torch_distributions(generator: torch.Generator) -> None:
    mean, log_variance = torch.randn(2, 5, C, generator=generator, dtype=torch.float64)
    posterior = Independent(Normal(mean, (0.5 * log_variance).exp()), 1)
    prior = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)
    torch.testing.assert_close(gaussian_kl(mean, log_variance), kl_divergence(posterior, prior))


@pytest.mark.parametrize("normal", [normal_from_uniform, normal_by_erfinv])
def test_normal_noise_is_the_inverse_distribution_function(normal: Callable[[Tensor], Tensor]) -> None:
    """Of uniform numbers of float32, which are multiples of 2⁻²⁴, in both tails and between."""
    whole = torch.cat([torch.arange(1, 1000), torch.arange(1000, 2**24, 9973), 2**24 - torch.arange(1, 1000)])
    uniform = torch.cat([torch.tensor([2.0**-25]), whole * 2.0**-24])
    expected = torch.from_numpy(special.ndtri(uniform.double().numpy()))
    torch.testing.assert_close(normal(uniform).double(), expected, rtol=2e-6, atol=2e-7)
    drawn = normal(torch.rand(100_000, generator=torch.Generator().manual_seed(0)))
    assert drawn.isfinite().all()
    assert stats.kstest(drawn.numpy(), "norm").pvalue > FALSE_ALARM
    assert float(normal_from_uniform(torch.tensor(0.0, dtype=torch.float64))) == pytest.approx(special.ndtri(2.0**-25))


def test_divergence_of_the_mixture_against_monte_carlo(generator: torch.Generator) -> None:
    """E_q[log q(z, z_c|x) − log p(z, z_c)] over 200,000 samples of one image; false alarms 1e-6."""
    nets, pixels = networks([0]), images(generator)[:1, :1]
    with torch.no_grad():
        logits, mean, log_variance = (values * 3 for values in nets.encode(pixels))
        number = 200_000
        choice = Categorical(logits=logits[0, 0, 0])
        z = choice.sample((number,))
        chosen = Normal(mean[0, 0, z], (0.5 * log_variance[0, 0, z]).exp())
        gaussian = chosen.sample()
        log_q = choice.log_prob(z) + chosen.log_prob(gaussian).sum(-1)
        log_p = -math.log(K) + Normal(0.0, 1.0).log_prob(gaussian).sum(-1)
        scaled = Scaled(nets)
        sums, counts = mixture_bound_sums(scaled, pixels, None, 0, 1, PlainNoise(generator, torch.float64))
    assert counts is None
    assert mean_p_value((log_q - log_p).unsqueeze(-1), sums.kl) > FALSE_ALARM


class Scaled(GaussianMixtureNetworks):
    """Networks whose encoder says everything three times as loud."""

    likelihood = "bernoulli"

    def __init__(self, nets: MixtureNetworks, logits: Tensor | None = None, log_variance: float | None = None) -> None:
        super().__init__(nets.k, nets.gaussian, nets.dropout)
        self.nets, self.logits, self.log_variance = nets, logits, log_variance
        self.decoder = nets.decoder

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, mean, log_variance = (values * 3 for values in self.nets.encode(pixels))
        if self.logits is not None:
            logits = self.logits
        if self.log_variance is not None:
            log_variance = torch.full_like(mean, self.log_variance)
        return logits, mean, log_variance

    def decode(self, codes: Tensor, gaussian: Tensor) -> Tensor:
        return self.nets.decode(codes, gaussian)


def test_bound_and_counts_of_a_posterior_without_noise(generator: torch.Generator) -> None:
    """With certain components and vanishing variances nothing is random, so that the bound is known."""
    nets, pixels = networks(), images(generator)
    values = torch.tensor([[0, 1, 2], [3, 3, 1]])
    logits = 1000 * one_hot(values, K).double().unsqueeze(-2)
    with torch.no_grad():
        model = Scaled(nets, logits, -40.0)
        sums, counts = mixture_bound_sums(
            model, pixels, torch.tensor([0, 1, 1]), 2, 5, PlainNoise(generator, torch.float64)
        )
        _, mean, log_variance = model.encode(pixels)
        codes = one_hot(values, K).double().unsqueeze(-2)
        reconstruction = bernoulli_loss(nets.decode(codes, mean), pixels).sum(-1)
        divergence = (gaussian_kl(mean, log_variance) * codes.squeeze(-2)).sum((-2, -1))
    torch.testing.assert_close(sums.reconstruction, reconstruction, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(sums.kl, BATCH * math.log(K) + divergence)
    assert counts is not None
    expected = torch.zeros(SEEDS, 2, K, dtype=torch.float64)
    for s in range(SEEDS):
        for label, value in zip([0, 1, 1], values[s], strict=True):
            expected[s, label, value] += 1
    for guess in counts:
        torch.testing.assert_close(guess, expected)
