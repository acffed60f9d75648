"""I-MLE against direct optimization, its written formula, and the closed form of one binary variable; AIMLE's λ.

False alarms of the statistical tests 1e-6.
"""

import pytest
import torch
from torch import Tensor

from argmax_vae.errors import UsageError
from argmax_vae.estimators.direct import DIRECTIONS
from argmax_vae.estimators.imle import ImleConfig
from argmax_vae.estimators.schedules import Constant
from argmax_vae.estimators.standalone import FromFunction
from argmax_vae.latents import gumbel_from_uniform
from argmax_vae.models.discrete import Perceptrons
from argmax_vae.models.reconstruction import Reconstruction
from argmax_vae.randomness import PlainNoise, SeedNoise
from chance import FALSE_ALARM, mean_p_value
from estimators.test_biased import gradients, quadratic
from estimators.test_direct import SHAPES, problem
from helpers import ready

STEP = torch.tensor(0)
ADAPTIVE = {"step": "adaptive", "rate": 0.25, "decay": 0.5, "target": 1.5}


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_for_a_loss_linear_in_every_coordinate_it_is_direct(
    n: int, k: int, direction: str, generator: torch.Generator
) -> None:
    """The table's extension is multilinear: slopes are candidate losses but for a constant for each coordinate."""
    logits, loss = problem(n, k, generator)
    batch = logits.expand(400, n, k).clone().requires_grad_()
    choices = {"epsilon": Constant(value=0.5), "direction": direction, "samples": 2}
    noise = ready("imle", n, k, **choices).noise(tuple(batch.shape), PlainNoise(generator, torch.float64))
    found, expected = (ready(name, n, k, **choices)(batch, loss, noise, STEP) for name in ("imle", "direct"))
    torch.testing.assert_close(found.objective, expected.objective)
    gradient, reference = (torch.autograd.grad(e.objective.sum(), batch)[0] for e in (found, expected))
    assert (reference != 0).any()
    assert torch.equal(gradient, reference)


def written_out(logits: Tensor, uniform: Tensor, slopes: Tensor, size: Tensor | float) -> tuple[Tensor, Tensor]:
    """(MAP(φ + γ) − MAP(φ − λg + γ))/λ as the source has it, by arg max; and how many entries are not zero."""
    scores = logits - torch.log(-torch.log(uniform))
    eye = torch.eye(logits.shape[-1], dtype=logits.dtype)
    difference = eye[scores.argmax(-1)] - eye[(scores - size * slopes).argmax(-1)]
    return difference / size, difference.count_nonzero((-2, -1))


def test_the_formula_of_the_source(generator: torch.Generator) -> None:
    """The slope at the drawn code, by hand: (A + Aᵀ)z for θ(z) = zᵀAz."""
    n, k = 3, 4
    logits, loss = quadratic(n, k, generator)
    batch = logits.expand(300, n, k).clone().requires_grad_()
    uniform = torch.rand((1, 300, n, k), generator=generator, dtype=torch.float64)
    estimator = ready("imle", n, k, epsilon=Constant(value=0.25))
    estimate = estimator(batch, loss, {"uniform": uniform}, STEP)
    codes = torch.eye(k, dtype=torch.float64)[(logits + gumbel_from_uniform(uniform)).argmax(-1)]
    slopes = (codes.flatten(-2) @ (loss.matrix + loss.matrix.T)).unflatten(-1, (n, k))
    expected, nonzeros = written_out(logits, uniform, slopes, 0.25)
    assert nonzeros.any()
    torch.testing.assert_close(torch.autograd.grad(estimate.objective.sum(), batch)[0], expected[0])
    torch.testing.assert_close(estimate.seen, nonzeros[0].double())


def test_one_binary_variable_with_a_curved_loss(generator: torch.Generator) -> None:
    """Given z, the code changes if the logistic difference of scores lies between zero and λ times that of slopes."""
    logits, loss = quadratic(1, 2, generator)
    size = 0.5
    difference, slopes = logits[0, 1] - logits[0, 0], (loss.matrix + loss.matrix.T)
    down, up = (size * (slopes[z, 1] - slopes[z, 0]) for z in (0, 1))
    leaves_one = (torch.sigmoid(difference) - torch.sigmoid(difference - up)).clamp_min(0)
    leaves_zero = (torch.sigmoid(difference - down) - torch.sigmoid(difference)).clamp_min(0)
    slope = (leaves_one - leaves_zero) / size
    samples = gradients("imle", logits, loss, epsilon=Constant(value=size))
    assert mean_p_value(samples, torch.stack([-slope, slope])) > FALSE_ALARM
    assert mean_p_value(1.05 * samples, torch.stack([-slope, slope])) < FALSE_ALARM


def test_the_decoder_gets_the_gradient_of_the_sampled_loss(generator: torch.Generator) -> None:
    networks = Perceptrons(20, 2, 3, [7], [0, 1]).double()
    images = torch.rand(2, 5, 20, generator=generator, dtype=torch.float64).round()
    loss, logits = Reconstruction(networks, images), networks.encode(images)
    noise = ready("imle", 2, 3, samples=2).noise(tuple(logits.shape), PlainNoise(generator, torch.float64))
    found, expected = (ready(name, 2, 3, samples=2)(logits, loss, noise, STEP).objective for name in ("imle", "direct"))
    parameters = list(networks.decoder.parameters())
    for gradient, reference in zip(
        torch.autograd.grad(found.sum(), parameters), torch.autograd.grad(expected.sum(), parameters), strict=True
    ):
        torch.testing.assert_close(gradient, reference)


def test_the_adaptive_step_is_a_share_of_the_logits_along_the_slope(generator: torch.Generator) -> None:
    """λ = α ‖φ‖/‖g‖ for each image, α = 0.5; without logits, slopes or both there is no gradient."""
    weights = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    logits = torch.randn(60, 3, 4, generator=generator, dtype=torch.float64)
    scale = torch.ones(60, dtype=torch.float64)
    logits[-3:-1], scale[-2:] = 0, 0
    logits.requires_grad_()
    uniform = torch.rand((1, 60, 3, 4), generator=generator, dtype=torch.float64)
    estimator = ready("imle", 3, 4, step="adaptive", initial_alpha=0.5)
    loss = FromFunction(lambda codes: scale * (codes * weights).sum((-2, -1)), (60,))
    estimate = estimator(logits, loss, {"uniform": uniform}, STEP)
    (gradient,) = torch.autograd.grad(estimate.objective.sum(), logits)
    sizes = 0.5 * logits.detach().norm(dim=(-2, -1), keepdim=True) / weights.norm()
    expected, nonzeros = written_out(logits.detach(), uniform[0], weights, sizes)
    torch.testing.assert_close(gradient[:-3], expected[:-3])
    torch.testing.assert_close(estimate.seen[:-3], nonzeros[:-3].double())
    assert torch.equal(gradient[-3:], torch.zeros(3, 3, 4, dtype=torch.float64))
    assert torch.equal(estimate.seen[-3:], torch.zeros(3, dtype=torch.float64))


def test_alpha_follows_the_nonzeros() -> None:
    """Up by the rate while their moving average is below the target, down otherwise, and never below zero."""
    estimator = ready("imle", 2, 3, **ADAPTIVE, initial_alpha=0.5)
    alphas, averages = [0.5], [1.5]
    for seen in (0.0, 1.0, 4.0, 4.0, 4.0, 4.0, 4.0, 0.0, 0.0, 0.0):
        estimator.observe(torch.full((5,), seen))
        averages.append(averages[-1] / 2 + seen / 2)
        alphas.append(max(0.0, alphas[-1] + (0.25 if averages[-1] < 1.5 else -0.25)))
        assert float(estimator.alpha) == pytest.approx(alphas[-1])
        assert float(estimator.nonzeros) == pytest.approx(averages[-1])
    assert 0.0 in alphas


def test_alpha_finds_the_target(generator: torch.Generator) -> None:
    """After 400 steps of 0.01 the share of changed codes is within 20 % of the target, on average over 100 steps."""
    logits, loss = problem(3, 3, generator)
    batch = logits.expand(200, 3, 3)
    estimator = ready("imle", 3, 3, step="adaptive", rate=0.01, target=0.5)
    seen = []
    for _ in range(500):
        noise = estimator.noise(tuple(batch.shape), PlainNoise(generator, torch.float64))
        estimate = estimator(batch, loss, noise, STEP)
        estimator.observe(estimate.seen)
        seen.append(estimate.seen.mean())
    assert torch.stack(seen[400:]).mean().item() == pytest.approx(0.5, rel=0.2)


def after_steps(seeds: list[int]) -> tuple[Tensor, Tensor]:
    """α and the gradient of every seed after three steps at once."""
    estimator = ready("imle", 2, 3, seeds, **ADAPTIVE)
    networks = Perceptrons(12, 2, 3, [], seeds)
    images = torch.stack([torch.rand(5, 12, generator=torch.Generator().manual_seed(seed)) for seed in seeds]).round()
    source = SeedNoise(seeds, "cpu").restart(0, "noise")
    for _ in range(4):
        logits = (3 * networks.encode(images)).detach().requires_grad_()
        estimate = estimator(
            logits, Reconstruction(networks, images), estimator.noise(tuple(logits.shape), source), STEP
        )
        estimator.observe(estimate.seen)
    assert estimate.metrics["alpha"].shape == (len(seeds),)
    return estimator.alpha, torch.autograd.grad(estimate.objective.sum(), logits)[0]


def test_every_seed_has_its_own_alpha() -> None:
    alphas, gradients_of_all = after_steps([3, 8, 11])
    assert len(alphas.unique()) > 1
    for index, seed in enumerate([3, 8, 11]):
        alpha, gradient = after_steps([seed])
        torch.testing.assert_close(alphas[index : index + 1], alpha)
        torch.testing.assert_close(gradients_of_all[index : index + 1], gradient, rtol=1e-4, atol=1e-5)


def test_the_adaptive_step_is_traced_whole(generator: torch.Generator) -> None:
    estimator = ready("imle", 2, 3, [0, 1], **ADAPTIVE)
    networks = Perceptrons(12, 2, 3, [], [0, 1])
    images = torch.rand(2, 5, 12, generator=generator).round()
    noise = estimator.noise((2, 5, 2, 3), PlainNoise(generator))

    def objective(images: Tensor, noise: dict[str, Tensor]) -> Tensor:
        return estimator(networks.encode(images), Reconstruction(networks, images), noise, STEP).objective.sum()

    torch.compiler.reset()
    traced = torch.compile(objective, backend="eager", dynamic=False, fullgraph=True)
    found, expected = (
        torch.autograd.grad(function(images, noise), list(networks.parameters())) for function in (traced, objective)
    )
    for gradient, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"step": "halved"}, "estimator.step=halved must be one of constant, adaptive"),
        ({"rate": 0.0}, "estimator.rate=0.0 must be greater than 0"),
        ({"target": -1.0}, "estimator.target=-1.0 must be greater than 0"),
        ({"initial_alpha": 0.0}, "estimator.initial_alpha=0.0 must be greater than 0"),
        ({"decay": 1.0}, "estimator.decay=1.0 must be at least 0 and less than 1"),
    ],
)
def test_wrong_choices(choices: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        ImleConfig(**choices)  # type: ignore[arg-type]
    assert str(raised.value).startswith(message)
