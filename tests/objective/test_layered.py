"""Several layers of codes: values, gradients and bounds against enumeration of all codes of all layers.

Gradients of unbiased estimators are tested by many estimates of all weights at once; false alarms 1e-6.
"""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.latents import all_codes, exp_concrete_sample, gumbel_from_uniform
from argmax_vae.models.layered import LayeredConfig, LayeredNetworks
from argmax_vae.models.reconstruction import Reconstruction
from argmax_vae.objective import layered
from argmax_vae.objective.layered import Chain, LayeredLoss, asked_for, layered_bound_sums, log_prior_of
from argmax_vae.objective.terms import ObjectiveConfig, Terms, training_terms
from argmax_vae.randomness import PlainNoise, SeedNoise
from chance import FALSE_ALARM, mean_p_value
from helpers import cell, latents, metrics, ready, same_numbers, seeds, train

STEP = torch.tensor(0)
PIXELS = 3
TWO, THREE = [(2, 2), (2, 2)], [(1, 3), (2, 2), (1, 2)]
ALL_BINARY = [(1, 2), (2, 2), (1, 2)]
UNBIASED: dict[str, dict[str, Any]] = {
    "reinforce": {"samples": 2},
    "disarm": {},
    "arm": {},
    "disarm_categorical": {},
    "carms": {"samples": 2},
    "unordered_set": {"samples": 2},
    "sum_and_sample": {"samples": 2},
    "rebar": {},
    "relax": {"initial_eta": 0.7},
    "double_control_variates": {"samples": 2},
    "arsm": {},
}


def networks_of(sizes: list[tuple[int, int]], copies: int, prior: bool = True) -> LayeredNetworks:
    """The same networks for so many seeds, in float64, with weights large enough to matter and a prior of their own."""
    networks = LayeredNetworks(PIXELS, sizes, [], [], [3] * copies).double()
    with torch.no_grad():
        for parameter in networks.parameters():
            parameter.mul_(3)
        if prior:
            values = torch.randn(*sizes[-1], generator=torch.Generator().manual_seed(5), dtype=torch.float64)
            networks.learn_prior(copies).double()
            assert networks.prior_logits is not None
            networks.prior_logits.copy_(values.expand_as(networks.prior_logits))
    return networks


def image(copies: int) -> Tensor:
    return torch.tensor([1.0, 0, 1], dtype=torch.float64).expand(copies, 1, PIXELS)


def joint(networks: LayeredNetworks) -> tuple[Tensor, Tensor, Tensor]:
    """log q(z₁ … z_L|x) and log p(x, z₁ … z_L) of all codes of one seed, and −log p(x|z₁): (codes,) each."""
    codes = all_codes(*networks.sizes[0]).double()
    log_q = (networks.encode(image(1))[0].log_softmax(-1) * codes).sum((-2, -1))
    losses = Reconstruction(networks, image(1)).shared(codes)[0, 0]
    log_p, own = -losses, losses
    for layer, size in enumerate(networks.sizes[1:]):
        above = all_codes(*size).double()
        up = networks.up(layer, codes.unsqueeze(0))[0].log_softmax(-1)
        down = networks.down(layer, above.unsqueeze(0))[0]
        log_q = (log_q.unsqueeze(1) + torch.einsum("cij,aij->ca", up, above)).flatten()
        log_p = (log_p.unsqueeze(1) + torch.einsum("cij,aij->ca", codes, down)).flatten()
        own = own.repeat_interleave(len(above))
        codes = above.repeat(len(codes), 1, 1)
    top = networks.log_prior
    assert top is not None
    return log_q, log_p + (top[0, 0] * codes).sum((-2, -1)), own


def estimated(
    name: str, sizes: list[tuple[int, int]], copies: int, kl: str, **choices: object
) -> tuple[Terms, LayeredNetworks]:
    """The terms of so many independent estimates with the same networks, and those."""
    networks = networks_of(sizes, copies)
    chain = Chain([ready(name, n, k, **choices) for n, k in sizes], sizes).prepare(*sizes[0], [3] * copies).eval()
    logits = networks.encode(image(copies))
    noise = chain.noise(tuple(logits.shape), PlainNoise(torch.Generator().manual_seed(0), torch.float64))
    config = ObjectiveConfig(kl=kl)
    loss = LayeredLoss(Reconstruction(networks, image(copies)), 0, networks, chain, config, noise, STEP)
    return training_terms(config, chain, logits, loss, noise, STEP, log_prior_of(networks, 0, logits)), networks


def exact_gradients(sizes: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """−ELBO by enumeration, and its derivative in all weights."""
    networks = networks_of(sizes, 1)
    log_q, log_p, _ = joint(networks)
    bound = (log_q.exp() * (log_q - log_p)).sum()
    slopes = torch.autograd.grad(bound, list(networks.parameters()))
    return bound.detach(), torch.cat([slope.flatten() for slope in slopes])


def cases() -> list[Any]:
    """Two layers by 5,000 estimates for every estimator, and three by 50,000 with the KL folded, which takes longer."""
    found: list[Any] = []
    for name in UNBIASED:
        binary = latents(name, 1, 3)[1] == 2
        found.append(pytest.param(name, TWO, "analytic", 5_000, id=f"{name}-two"))
        three = (name, ALL_BINARY if binary else THREE, "folded", 50_000)
        found.append(pytest.param(*three, id=f"{name}-three", marks=pytest.mark.slow))
    return found


@pytest.mark.parametrize(("name", "sizes", "kl", "copies"), cases())
def test_values_and_gradients_of_all_layers_are_unbiased(
    name: str, sizes: list[tuple[int, int]], kl: str, copies: int
) -> None:
    bound, expected = exact_gradients(sizes)
    terms, networks = estimated(name, sizes, copies, kl, **UNBIASED[name])
    values = (terms.reconstruction + terms.kl).flatten()
    torch.testing.assert_close(values, terms.objective.flatten().detach())
    assert mean_p_value(values.unsqueeze(-1), bound.reshape(1)) > FALSE_ALARM
    slopes = torch.autograd.grad(terms.objective.sum(), list(networks.parameters()))
    found = torch.cat([slope.flatten(1) for slope in slopes], 1)
    assert mean_p_value(found, expected) > FALSE_ALARM
    assert mean_p_value(found * 1.25, expected) < FALSE_ALARM


@pytest.mark.parametrize("name", ["rebar", "relax"])
def test_control_variates_have_the_noise_of_the_layers_above_in_common(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of one image; the estimates of the first layer then spread less than with noise of their own."""
    sizes = THREE
    chain = Chain([ready(name, n, k) for n, k in sizes], sizes).prepare(*sizes[0], [3])
    noise = chain.noise((1, 4, *sizes[0]), PlainNoise(torch.Generator().manual_seed(0)))
    assert noise["1.1.uniform"].shape[:2] == (1, 16)
    for name_of_noise in ("uniform", "conditional"):
        for call, copies in (("0.", 1), ("1.", 2), ("0.1.", 2), ("1.1.", 4)):
            tiled = torch.cat([noise[f"0.{'0.' * (call.count('.') - 1)}{name_of_noise}"]] * copies, 1)
            torch.testing.assert_close(noise[f"{call}{name_of_noise}"], tiled, rtol=0, atol=0)

    def spread() -> Tensor:
        terms, networks = estimated(name, TWO, 5_000, "analytic", initial_temperature=0.1)
        (slope,) = torch.autograd.grad(terms.objective.sum(), next(networks.encoder.parameters()))
        return slope.flatten(1).var(0).sum()

    common = spread()
    monkeypatch.setattr(ESTIMATORS[name], "subtracts_losses", False)
    assert common < 0.9 * spread()


def test_an_estimator_that_ignores_the_layers_above_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the derivative of the upper objective in its own logits the mean is another."""
    monkeypatch.setattr(layered, "training_terms", detached)
    _, expected = exact_gradients(TWO)
    terms, networks = estimated("reinforce", TWO, 5_000, "analytic", samples=2)
    slopes = torch.autograd.grad(terms.objective.sum(), list(networks.parameters()), materialize_grads=True)
    assert mean_p_value(torch.cat([slope.flatten(1) for slope in slopes], 1), expected) < FALSE_ALARM


def detached(*arguments: Any) -> Terms:
    terms = training_terms(*arguments)
    return dataclasses.replace(terms, objective=terms.objective.detach())


@pytest.mark.parametrize("kl", ["analytic", "folded"])
def test_relaxed_codes_go_through_all_layers(kl: str) -> None:
    """Gumbel-Softmax in two layers, written down by hand with the same noise: value and all derivatives."""
    sizes, copies, tau = TWO, 4, 0.1
    terms, networks = estimated("gumbel_softmax", sizes, copies, kl)
    chain = Chain([ready("gumbel_softmax", n, k) for n, k in sizes], sizes).prepare(2, 2, [3] * copies)
    logits = networks.encode(image(copies))
    noise = chain.noise(tuple(logits.shape), PlainNoise(torch.Generator().manual_seed(0), torch.float64))
    first = exp_concrete_sample(logits, gumbel_from_uniform(noise["uniform"]), tau).exp()[0]
    above = networks.up(0, first)
    second = exp_concrete_sample(above, gumbel_from_uniform(noise["0.uniform"]), tau).exp()[0]
    theta = Reconstruction(networks, image(copies))(first) - (networks.down(0, second) * first).sum((-2, -1))
    q, q_above = logits.log_softmax(-1), above.log_softmax(-1)
    if kl == "analytic":
        divergence = (q.exp() * q).sum((-2, -1)) + (q_above.exp() * (q_above - networks.log_prior)).sum((-2, -1))
    else:
        divergence = (q.detach() * first).sum((-2, -1)) + ((q_above.detach() - networks.log_prior) * second).sum(
            (-2, -1)
        )
    torch.testing.assert_close(terms.objective, theta + divergence)
    parameters = list(networks.parameters())
    found = torch.autograd.grad(terms.objective.sum(), parameters)
    torch.testing.assert_close(found, torch.autograd.grad((theta + divergence).sum(), parameters))


@pytest.mark.parametrize("sizes", [TWO, THREE])
def test_the_reported_bounds(sizes: list[tuple[int, int]]) -> None:
    """Reconstruction and the rest, and −log p(x) by importance weights; joint tests with 40,000 images."""
    networks = networks_of(sizes, 1).float()
    log_q, log_p, own = joint(networks_of(sizes, 1))
    number = 40_000
    images = image(1).float().expand(1, number, PIXELS)
    sums = layered_bound_sums(networks, images, 1, SeedNoise([0], "cpu").restart(0, "test"))
    reconstruction, rest = (log_q.exp() * own).sum(), (log_q.exp() * (log_q - log_p - own)).sum()
    for found, expected, spread in (
        (sums.reconstruction, reconstruction, own.std()),
        (sums.kl, rest, (log_q - log_p - own).std()),
    ):
        assert abs(found.item() / number - expected.item()) < 6 * spread.item() / number**0.5 + 1e-5
    weighted = layered_bound_sums(networks, images[:, :1], 1, SeedNoise([0], "cpu").restart(0, "test"), 100_000)
    assert weighted.importance_weighted.item() == pytest.approx(-log_p.logsumexp(0).item(), abs=0.02)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_say_whether_losses_of_codes_are_enough(name: str) -> None:
    n, k = latents(name, 2, 3)
    estimator = ready(name, n, k, [3])
    if estimator.asks_for_codes_alone:
        assert sum(asked_for(estimator, (n, k), [3])) >= 1
        return
    with pytest.raises(NotImplementedError, match="layers above"):
        asked_for(estimator, (n, k), [3])


@pytest.mark.parametrize("name", ["disarm", "rebar", "straight_through"])
def test_a_run_learns_resumes_by_seed_and_is_evaluated(name: str, tmp_path: Path) -> None:
    chosen = ("model=layered", "model.latents=6x2", "model.further=[4x2]", f"estimator={name}", "trainer.epochs=4")
    both = train(tmp_path / "both", *chosen, "seeds=[0,1]", "model.prior=learned", "trainer.importance_samples=20")
    assert both.status == "done"
    curves = metrics(both)
    assert curves.query("epoch == 4")["validation_bound"].mean() < curves.query("epoch == 1")["validation_bound"].mean()
    assert (seeds(both)["test_importance_weighted"] < seeds(both)["test_bound"]).all()
    assert (both.path / "samples.png").stat().st_size > 0
    again = train(tmp_path / "again", *chosen, "seeds=[0,1]", "model.prior=learned", "trainer.importance_samples=20")
    same_numbers(both, again)


@pytest.mark.slow
def test_compiled_steps_equal_eager_ones(tmp_path: Path) -> None:
    chosen = ("model=layered", "model.latents=4x2", "model.further=[3x2]", "estimator=rebar", "trainer.epochs=1")
    eager, compiled = (train(tmp_path / c, *chosen, f"runtime.compile={c}") for c in ("false", "true"))
    assert seeds(compiled)["path"].str.contains("compiled").all()
    columns = ["validation_bound", "test_bound"]
    torch.testing.assert_close(
        torch.tensor(metrics(eager)[columns].to_numpy()),
        torch.tensor(metrics(compiled)[columns].to_numpy()),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["estimator=direct"], "estimator=direct must be with model=layered one that needs losses of its codes alone"),
        (["estimator=nvil"], "estimator=nvil must be"),
        (["objective=none"], "objective.kl=none must be analytic or folded with model=layered"),
        (["model.further=[]"], "model.further=.* must be a list of one to three n x k"),
        (["model.further=[2xx]"], "model.further=.* must be a list of n x k"),
        (["estimator=disarm", "model.further=[2x3]"], "k = 2"),
    ],
)
def test_what_does_not_fit_is_a_line(overrides: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=told) as raised:
        cell(
            tmp_path,
            "model=layered",
            "model.latents=4x2",
            *(["estimator=reinforce"] if len(overrides) < 2 and "estimator" not in overrides[0] else []),
            *overrides,
        )
    assert "\n" not in str(raised.value)


def test_sizes_are_those_of_all_layers() -> None:
    assert LayeredConfig(latents="4x3", further=["2x2", "1x5"]).sizes == [(4, 3), (2, 2), (1, 5)]
