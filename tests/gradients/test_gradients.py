"""The gradient laboratory: its statistics against numpy and closed forms, its counts, its command and its files."""

import contextlib
import io
import itertools
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor

from argmax_vae.cli import main
from argmax_vae.commands import gradients
from argmax_vae.config.compose import cells
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS, schedules
from argmax_vae.gradients.cost import CountingLoss, decoder_evaluations
from argmax_vae.gradients.measure import Laboratory
from argmax_vae.gradients.moments import Moments
from argmax_vae.gradients.settings import LaboratoryConfig, Setting, settings
from argmax_vae.models.discrete import Perceptrons
from argmax_vae.randomness import PlainNoise
from argmax_vae.report import gradients as report
from argmax_vae.runs.directory import RunDirectory
from chance import FALSE_ALARM
from helpers import TINY, latents, ready, train
from tabular import TabularLoss

SMALL = ("laboratory.repeats=3", "laboratory.adaptation=2", "laboratory.images=4")
GRID = ("laboratory.epsilon=[0.5]", "laboratory.temperature=[0.5,1.0]")


def five_images(seed: int) -> Tensor:
    return torch.rand(5, 12, generator=torch.Generator().manual_seed(seed)).round()


def bench(
    n: int = 2, k: int = 3, hidden: tuple[int, ...] = (), images: Tensor | None = None, **choices: object
) -> Laboratory:
    """Random networks of two seeds and five random images."""
    images = five_images(2) if images is None else images
    networks = Perceptrons(12, n, k, hidden, [3, 8])
    return Laboratory(networks, images, [3, 8], LaboratoryConfig(**choices), lambda batch: five_images(100 + batch))


@pytest.mark.parametrize("name", ["nvil", "rebar", "relax", "rodeo", "double_control_variates"])
def test_estimators_that_learn_do_not_see_the_images_that_are_measured(name: str) -> None:
    config = ESTIMATORS[name].config_class()
    one, other = (bench(images=five_images(seed), adaptation=3).adapted(config).state_dict() for seed in (2, 3))
    fresh = ready(name, 2, 3, [3, 8]).state_dict()
    assert any(not torch.equal(one[key], fresh[key]) for key in one)
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_moments_are_those_of_numpy(generator: torch.Generator) -> None:
    exact = torch.randn(2, 7, generator=generator)
    samples = torch.randn(50, 2, 7, generator=generator) + exact + 0.3
    moments = Moments(exact)
    for sample in samples:
        moments.add(sample)
    found = {name: values.numpy() for name, values in moments.results().items()}
    data, truth = samples.double().numpy(), exact.double().numpy()
    size = (truth**2).sum(-1)
    deviation = data.std(0, ddof=1)
    np.testing.assert_allclose(found["bias"], np.abs(data.mean(0) - truth).mean(-1))
    np.testing.assert_allclose(found["standard_deviation"], deviation.mean(-1))
    np.testing.assert_allclose(found["variance"], (deviation**2).sum(-1) / size)
    error = ((data - truth) ** 2).sum(-1).mean(0) / size
    np.testing.assert_allclose(found["mean_squared_error"], error)
    between = ((data.mean(0) - truth) ** 2).sum(-1)
    np.testing.assert_allclose(found["squared_bias"], (between - (deviation**2).sum(-1) / 50) / size)
    cosine = (data * truth).sum(-1) / np.linalg.norm(data, axis=-1) / np.linalg.norm(truth, axis=-1)
    np.testing.assert_allclose(found["cosine"], cosine.mean(0))


def test_the_error_of_the_reference_is_taken_off_the_squared_bias_alone(generator: torch.Generator) -> None:
    exact = torch.randn(2, 5, generator=generator)
    estimates = [exact + torch.randn(2, 5, generator=generator) for _ in range(30)]
    plain, noisy = Moments(exact), Moments(exact, torch.tensor([0.1, 0.3]))
    for estimate in estimates:
        plain.add(estimate)
        noisy.add(estimate)
    sure, found = plain.results(), noisy.results()
    torch.testing.assert_close(sure["mean_squared_error"], sure["squared_bias"] + sure["variance"])
    error = torch.tensor([0.01, 0.09], dtype=torch.float64)
    torch.testing.assert_close(found["mean_squared_error"], found["squared_bias"] + found["variance"] + error)
    assert torch.equal(found["mean_squared_error"], sure["mean_squared_error"])


def test_noise_of_the_bias_is_what_an_unbiased_estimator_shows(generator: torch.Generator) -> None:
    """Over 40,000 coordinates the mean of |m − e| has a relative standard error of 0.4 %; false alarms 1e-6."""
    moments = Moments(torch.zeros(1, 40_000))
    for _ in range(20):
        moments.add(torch.randn(1, 40_000, generator=generator))
    found = moments.results()
    slack = stats.norm.isf(FALSE_ALARM / 2) * math.sqrt((math.pi / 2 - 1) / 40_000)
    assert found["bias"].item() == pytest.approx(found["bias_noise"].item(), rel=slack + 0.02)


def test_the_laboratory_sees_the_bias_of_direct_in_closed_form() -> None:
    """n = 1: E[g] = (softmax(φ) − softmax(φ − εθ))/ε, so what is left after 1,000 estimates is noise (1e-6)."""
    found = bench(1, 4)
    moments = Moments(found.exact.flatten(1))
    estimator = ready("direct", 1, 4, epsilon=schedules.Constant(value=2.0))
    for repeat in range(1000):
        moments.add(found.gradient(estimator, found.loss, found.noise(repeat, "noise")).flatten(1))
    losses = found.loss.shared(torch.eye(4).unsqueeze(1))
    logits = found.logits.squeeze(-2)
    expected = (logits.softmax(-1) - (logits - 2.0 * losses).softmax(-1)) / 2.0
    mean = (moments.first / moments.number + moments.exact).reshape(expected.shape)
    error = (moments.second / moments.number / moments.number).sqrt().reshape(expected.shape)
    bound = stats.norm.isf(FALSE_ALARM / expected.numel() / 2)
    assert ((mean - expected).abs() <= bound * error + 1e-6).all()


def test_reference_by_long_run_average_agrees_with_enumeration() -> None:
    """Its distance from the exact gradient is of the size of the error that it states."""
    exact = bench(2, 3, adaptation=0)
    average = bench(2, 3, limit=8, reference_repeats=500)
    assert exact.reference == "enumeration"
    assert average.reference == "mean of 500 local expectations"
    for target, found, truth in (
        ("logits", average.exact.flatten(1), exact.exact.flatten(1)),
        ("encoder", average.encoder_gradient(average.exact), exact.encoder_gradient(exact.exact)),
    ):
        distance = (found - truth).norm(dim=-1) / truth.norm(dim=-1)
        assert (exact.reference_errors[target] == 0).all()
        assert (distance < 5 * average.reference_errors[target]).all()
        assert (distance > average.reference_errors[target] / 5).all()


def test_encoder_gradient_is_the_chain_rule() -> None:
    found = bench(2, 3)
    gradient = torch.randn(found.logits.shape, generator=torch.Generator().manual_seed(1))
    weight = torch.einsum("sbp,sbc->spc", found.images, gradient.flatten(-2)) / 5
    together = found.encoder_gradient(gradient)
    torch.testing.assert_close(together[:, : weight[0].numel()], weight.flatten(1))
    torch.testing.assert_close(together[:, weight[0].numel() :], gradient.flatten(-2).mean(1))


EVALUATIONS = {
    "direct": 5,
    "direct_rao_blackwell": 5,
    "direct_control_variate": 10,
    "disarm_categorical": 2,
    "carms": 4,
    "unordered_set": 4,
    "sum_and_sample": 4,
    "local_expectation": 5,
    "exact": 9,
    "rebar": 3,
    "relax": 3,
    "double_control_variates": 4,
    "rodeo": 4,
    "reinforce": 4,
    "arm": 2,
    "arsm": 4,
    "disarm": 2,
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_decoder_evaluations_are_counted(name: str) -> None:
    """At 2 × 3 (2 × 2 for binary ones); what is not listed evaluates one code per image."""
    n, k = latents(name)
    counting = CountingLoss(TabularLoss(torch.rand(7, k**n), n, k), 7)
    logits = torch.zeros(7, n, k, requires_grad=True)
    estimator = ready(name, n, k).eval()
    noise = estimator.noise((7, n, k), PlainNoise(torch.Generator().manual_seed(0)))
    estimator(logits, counting, noise, torch.tensor(0))
    assert counting.evaluations == EVALUATIONS.get(name, 1)


def test_settings_cover_the_registry_and_the_grid() -> None:
    laboratory_config = LaboratoryConfig(
        epsilon=[0.1, 1.0], temperature=[0.5], variants=[{"name": "direct", "direction": "away"}]
    )
    binary, categorical = settings(laboratory_config, 2, 2), settings(laboratory_config, 2, 3)
    assert {setting.config.name for setting in binary} == set(ESTIMATORS)
    assert {setting.config.name for setting in categorical} == {name for name in ESTIMATORS if latents(name) == (2, 3)}
    direct = [setting for setting in binary if setting.config.name == "direct"]
    assert [(setting.choices, setting.parameter, setting.value) for setting in direct] == [
        ("", "ε", 0.1),
        ("", "ε", 1.0),
        ("direction=away", "ε", 0.1),
        ("direction=away", "ε", 1.0),
    ]
    assert [setting.value for setting in binary if setting.config.name == "gumbel_rao"] == [0.5]


def test_a_schedule_without_effect_is_not_varied() -> None:
    chosen = LaboratoryConfig(epsilon=[0.1, 1.0], variants=[{"name": "imle", "step": "adaptive"}])
    found = [setting for setting in settings(chosen, 2, 3) if setting.config.name == "imle"]
    assert [(setting.choices, setting.parameter) for setting in found] == [("", "ε"), ("", "ε"), ("step=adaptive", "")]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"repeats": 1}, "laboratory.repeats=1 must be at least 2"),
        ({"images": 0}, "laboratory.images=0 must be at least 1"),
        ({"epsilon": [0.1, 0.0]}, r"laboratory.epsilon=\[0.1, 0.0\] must be a list of numbers greater than 0"),
        ({"temperature": []}, r"laboratory.temperature=\[\] must be a list of numbers greater than 0"),
        ({"variants": [{"name": "dircet"}]}, "laboratory.variants: .* must be"),
        ({"variants": [{"name": "direct", "side": "left"}]}, "direct has no choice 'side'; it has"),
        ({"variants": [{"name": "direct", "samples": 1.5}]}, "direct samples=1.5 must be a whole number"),
        ({"variants": [{"name": "rebar", "initial_eta": math.nan}]}, "rebar initial_eta=nan must be a finite number"),
        ({"variants": [{"name": "gumbel_softmax", "straight_through": "no"}]}, "straight_through=no must be true or"),
        ({"variants": [{"name": "arm"}]}, "is measured already"),
        ({"epsilon": [0.1, 0.1]}, "without repetitions"),
    ],
)
def test_bad_choices(choices: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        LaboratoryConfig(**choices)
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A finished run; tests that write into it copy it."""
    return train(tmp_path_factory.mktemp("trained"), "seeds=[3,5]", "model.latents=2x2", "trainer.epochs=1")


@pytest.fixture
def run(trained: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of the finished run."""
    return RunDirectory(shutil.copytree(trained.path, tmp_path / trained.path.name))


@pytest.fixture(scope="module")
def measured(trained: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, str]:
    """Another copy, on which every estimator was measured, and what was printed."""
    run = RunDirectory(shutil.copytree(trained.path, tmp_path_factory.mktemp("measured") / trained.path.name))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["gradients", str(run.path), *SMALL, *GRID]) == 0
    return run, printed.getvalue()


@pytest.fixture
def few_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the command measure eight settings, where which ones does not matter."""
    monkeypatch.setattr("argmax_vae.gradients.measure.settings", lambda *arguments: settings(*arguments)[:8])


def test_measured_on_a_finished_run(measured: tuple[RunDirectory, str]) -> None:
    """Files in the run's directory; a row per setting, target and seed; the exact gradient has no error at all."""
    run, printed = measured
    frame = pd.read_csv(run.path / "gradients.csv", keep_default_na=False)
    number = len(settings(LaboratoryConfig(epsilon=[0.5], temperature=[0.5, 1.0]), 2, 2))
    assert len(frame) == number * 2 * 2
    assert set(frame["target"]) == {"logits", "encoder"}
    exact = frame[frame["estimator"] == "exact"]
    assert (exact["mean_squared_error"].astype(float) < 1e-10).all()
    for name in ("gradients.svg", "gradients_frontier.svg", "gradients.md", "gradients.tex"):
        assert (run.path / name).stat().st_size > 0
        assert str(run.path / name) in printed


def numbers(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False).drop(columns="milliseconds")


@pytest.mark.usefixtures("few_settings")
def test_with_wandb_the_measurements_are_a_table_there(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(gradients, "publish_table", lambda *told: shown.append(told[1:]))
    assert main(["gradients", str(run.path), *SMALL, *GRID, "tracker.name=wandb"]) == 0
    ((name, runs, paths),) = shown
    assert (name, runs) == ("gradients", run.path.parent)
    assert run.path / "gradients.csv" in paths


@pytest.mark.usefixtures("few_settings")
def test_interrupted_and_resumed_equals_uninterrupted(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["gradients", str(run.path), *SMALL, *GRID]) == 0
    whole = numbers(run.path / "gradients.csv")
    for path in run.path.glob("gradients*"):
        path.unlink()
    original, calls = Laboratory.measure, itertools.count()

    def stopping(self: Laboratory, setting: Setting) -> list[dict]:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return original(self, setting)

    with monkeypatch.context() as interrupted:
        interrupted.setattr(Laboratory, "measure", stopping)
        assert main(["gradients", str(run.path), *SMALL, *GRID]) == 130
    (kept,) = run.path.glob("gradients-*.csv")
    assert len(pd.read_csv(kept)) == 4 * 2 * 2
    assert not (run.path / "gradients.csv").exists()
    assert main(["gradients", str(run.path), *SMALL, *GRID]) == 0
    pd.testing.assert_frame_equal(numbers(run.path / "gradients.csv"), whole, check_exact=True)


def test_a_seed_does_not_depend_on_its_neighbours(measured: tuple[RunDirectory, str], tmp_path: Path) -> None:
    alone = train(tmp_path, "seeds=[5]", "model.latents=2x2", "trainer.epochs=1")
    assert main(["gradients", str(alone.path), *SMALL, *GRID]) == 0
    paths = [each.path / "gradients.csv" for each in (measured[0], alone)]
    frames = [numbers(path).query("seed == 5").reset_index(drop=True) for path in paths]
    assert set(frames[0]["estimator"]) == set(ESTIMATORS)
    several, lone = (frame[["bias", "standard_deviation", "cosine"]].astype(float) for frame in frames)
    pd.testing.assert_frame_equal(several, lone, rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("few_settings")
def test_figure1_from_its_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained where it is not yet, files of record in the results directory, and `report` makes them again.

    What another laboratory measures is not of record.
    """
    overrides = [value for value in TINY if "latents" not in value and "tracker" not in value]
    asked = [*overrides, f"paths.runs={tmp_path / 'runs'}", f"paths.results={tmp_path}", "seeds=[0,1]", *SMALL, *GRID]
    monkeypatch.setattr("sys.argv", ["argmax-vae"])
    monkeypatch.setattr(
        "argmax_vae.commands.gradients.cells", lambda name, others: cells(name, [*SMALL, *GRID, *others])
    )
    assert main(["reproduce", "figure1", *asked]) == 0
    before = {path.name: path.read_text() for path in tmp_path.glob("figure1*")}
    assert set(before) == {f"figure1{end}" for end in (".csv", ".md", ".tex", ".svg", "_frontier.svg")}
    assert main(["report", "figure1", "--check", "--results", str(tmp_path)]) == 0
    assert main(["report", "figure1", "--results", str(tmp_path)]) == 0
    assert {path.name: path.read_text() for path in tmp_path.glob("figure1*")} == before
    capsys.readouterr()
    assert main(["reproduce", "figure1", *asked, "laboratory.images=2"]) == 0
    *_, told = capsys.readouterr().err.splitlines()
    (measured,) = tmp_path.glob("runs/*/gradients.csv")
    stays = f"{tmp_path / 'figure1.csv'} stays"
    assert told == f"argmax-vae: laboratory is not that of figure1: {stays}, see {measured}"
    assert set(pd.read_csv(measured)["images"]) == {2}
    assert {path.name: path.read_text() for path in tmp_path.glob("figure1*")} == before
    changed = pd.read_csv(tmp_path / "figure1.csv", keep_default_na=False)
    changed["variance"] = changed["variance"].astype(float) + 1
    changed.to_csv(tmp_path / "figure1.csv", index=False)
    assert len(report.check("figure1", tmp_path)) > 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "nothing: neither a run's directory nor a config"),
        (["figure2"], "these overrides select 12 runs"),
        (["RUN", "trainer.epochs=3"], "gradients cannot override 'trainer.epochs'"),
        (["RUN", "laboratory.repeat=3"], "did you mean 'laboratory.repeats'?"),
        (["RUN", "laboratory.repeats=2.5"], "laboratory.repeats=2.5: "),
        (["RUN", "laboratory.variants=[{name: direct"], "is no override"),
        (["RUN", "laboratory.variants=[{name: direct, samples: 1.5}]"], "samples=1.5 must be a whole number"),
        (["RUN", "laboratory.repeats=1"], "laboratory.repeats=1 must be at least 2"),
        (["RUN", "laboratory.images=100000"], "laboratory.images=100000 must be at most the"),
    ],
)
def test_bad_input_gets_one_line(
    arguments: list[str], message: str, trained: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments[0] == "RUN":
        arguments = [str(trained.path), *arguments[1:]]
    capsys.readouterr()
    assert main(["gradients", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_damaged_or_foreign_run_is_refused(tmp_path: Path) -> None:
    run = train(tmp_path, "trainer.epochs=1")
    (run.path / "best.ckpt").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="damaged"):
        gradients.measure_gradients(str(run.path), [])
    other = train(tmp_path / "other", "trainer.epochs=1", "seeds=[7]")
    (run.path / "best.ckpt").write_bytes((other.path / "best.ckpt").read_bytes())
    with pytest.raises(UsageError, match="belongs to another configuration"):
        gradients.measure_gradients(str(run.path), [])


def test_the_config_of_figure1_is_the_papers() -> None:
    (cell,) = cells("figure1", [])
    assert (cell.config.model.n, cell.config.model.k, list(cell.config.model.hidden)) == (1, 10, [300])
    assert cell.config.laboratory.repeats == 500
    assert cell.run.path.name.startswith("mnist-one_hidden-1x10-reinforce")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("gumbel_softmax", 1), ("rebar", 3), ("direct", 21), ("local_expectation", 21), ("disarm", 2), ("reinforce", 4)],
)
def test_decoder_evaluations_of_an_estimate_for_20x2(name: str, expected: float) -> None:
    assert decoder_evaluations(ESTIMATORS[name].config_class(), 20, 2) == expected


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ("", ""),
        ("straight_through=True", "straight-through"),
        ("direction=symmetric", "symmetric"),
        ("given=others, direction=away", "given others, away"),
        ("baseline=moving_average, samples=1", "moving average, samples 1"),
    ],
)
def test_choices_are_said_in_words(choices: str, words: str) -> None:
    assert report.in_words(choices) == words


@pytest.mark.parametrize(
    ("value", "digits", "text"), [(29.3, 1, "30"), (1234.5, 3, "1230"), (0.00234, 1, "0.002"), (0.5, 3, "0.5")]
)
def test_numbers_are_written_without_exponents(value: float, digits: int, text: str) -> None:
    assert report.rounded(value, digits) == text
