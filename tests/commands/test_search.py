"""Searches on validation: what they record, that they resume, and what they refuse."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from argmax_vae.cli import main
from argmax_vae.commands.search import search
from argmax_vae.config.options import groups
from argmax_vae.config.spaces import distribution, split
from argmax_vae.errors import UsageError
from argmax_vae.runs.directory import run_name
from argmax_vae.training import fit
from helpers import TINY, raise_after

pytestmark = pytest.mark.usefixtures("empty_directory")

optuna = pytest.importorskip("optuna", reason="the extra argmax-vae[search] is not installed")
SMALL = [*TINY, "seeds=[0,1]", "estimator.epsilon.value=tag(log,interval(0.05,0.5))", "optim.learning_rate=1e-3,1e-2"]


def run(trials: int = 3, **others: Any) -> pd.DataFrame:
    given = {"name": "tiny", "metric": "validation_bound", "seed": 0, "results": Path("results")} | others
    return search("train", SMALL, trials=trials, **given)


def test_the_winner_is_the_best_on_validation_and_everything_is_recorded() -> None:
    found = run()
    assert list(found["score"]) == sorted(found["score"])
    assert list(found["winner"]) == [True, False, False]
    for row in found.itertuples():
        seeds = pd.read_csv(Path("runs") / str(row.run) / "seeds.csv")
        assert row.score == pytest.approx(seeds["validation_bound"].mean())
        assert f"ε = {str(row.choices).split()[0].split('=')[1]}" == seeds["schedule"][0]
    recorded = pd.read_csv("results/searches.csv")
    assert list(recorded["run"]) == list(found["run"])
    assert set(recorded["trials"]) == {3}
    run(1, name="other")
    run(2)
    assert pd.read_csv("results/searches.csv")["search"].value_counts().to_dict() == {"tiny": 2, "other": 1}


def test_with_wandb_the_searches_are_a_table_there(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr("argmax_vae.commands.search.publish_table", lambda *told: shown.append(told[1:]))
    run(1)
    assert shown == []
    chosen = [*SMALL, "tracker=wandb"]
    monkeypatch.setenv("WANDB_MODE", "disabled")
    search("train", chosen, trials=1, name="tiny", metric="validation_bound", seed=0, results=Path("results"))
    assert shown == [("searches", Path("runs"), [Path("results/searches.csv")])]


def test_an_interrupted_search_goes_on_and_a_longer_one_repeats_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as interrupted:
        raise_after(interrupted, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run()
    fitted = []
    original = fit.fit

    def watching(cell: Any, *others: Any) -> str:
        fitted.append(cell.run.path.name)
        return original(cell, *others)

    monkeypatch.setattr(fit, "fit", watching)
    shorter, longer = run(2), run(3)
    assert len(fitted) == len(set(fitted)) == 3
    assert set(shorter["run"]) < set(longer["run"])


def test_a_trial_that_fails_wins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    raise_after(monkeypatch, 1, RuntimeError("no memory"))
    found = run(1)
    assert found["score"].isna().all()
    assert not found["winner"].any()
    assert main(["search", "train", *SMALL, "--trials", "1"]) == 1


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("estimator.epsilon.value=interval(0.1,1)", {"low": 0.1, "high": 1.0, "log": False}),
        ("estimator.epsilon.value=tag(log,interval(0.1,1))", {"low": 0.1, "high": 1.0, "log": True}),
        ("trainer.batch=range(50,200,50)", {"low": 50, "high": 150, "step": 50}),
        ("optim.learning_rate=1e-3,1e-2", {"choices": ("0.001", "0.01")}),
        ("optim.learning_rate=choice(1e-3,1e-2)", {"choices": ("0.001", "0.01")}),
    ],
)
def test_spaces(override: str, expected: dict[str, Any]) -> None:
    fixed, spaces = split(["data=digits", override])
    assert fixed == ["data=digits"]
    found = distribution(spaces[override.split("=", 1)[0]], groups())
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=digits"], "nothing to search over"),
        ([*SMALL, "--metric", "test_bound"], "--metric test_bound: unknown; allowed: validation_bound"),
        ([*SMALL, "--trials", "0"], "--trials 0 must be at least 1"),
        ([*SMALL, "--sampler-seed", "-1"], "--sampler-seed -1 must be from 0 to 4294967295"),
        (["estimator.epsilon.value=interval(0.1,inf)"], "its ends must be finite"),
        (["trainer.batch=range(0,1000000000)"], "more than 10000 values; use interval"),
        (["data=digits", "trainer.batch=interval(10,20)"], "trainer.batch=13.8"),
        (["data=digits", "estimator=direct,exact,rebr"], "estimator=rebr: no such option; did you mean 'rebar'?"),
        (["data=digits", "optim.learning_rate=1e-3,0"], "optim.learning_rate=0.0 must be greater than 0"),
        (["estimator=glob(q*)"], "estimator=glob(q*): no option matches"),
        (["estimator.epsilon.value=interval(1,0.1)"], "estimator.epsilon.value=interval(1,0.1): "),
        (["data=digits", "estimator.epsilon.value=interval(-1,1)"], "value=-1.0 must be greater than 0"),
        (["estimator.epsilon.valu=interval(0.1,1)"], "unknown key 'estimator.epsilon.valu'"),
        (["data=digit", "estimator.epsilon.value=interval(0.1,1)"], "data=digit: no such option"),
        (
            [*SMALL, "--metric", "validation_accuracy"],
            "--metric validation_accuracy: needs model=mixture or attributes",
        ),
    ],
)
def test_what_is_refused_in_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "train", *arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("argmax-vae: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not Path("results").exists()
    assert not Path("runs").exists()


def test_a_place_that_cannot_be_written_is_refused_before_the_first_trial(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert main(["search", "train", *SMALL, "--results", "file"]) == 2
    assert "cannot write to file" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(UsageError, match=r"pip install 'argmax-vae\[search\]'"):
        run(1)


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trials that are not trained, with a score that depends on the values alone; the runs that were asked for."""
    asked: list[str] = []

    def outcome(cell: Any, metric: str) -> dict[str, Any]:
        asked.append(run_name(cell.config_dict))
        score = cell.config.trainer.batch + 10.0 * (cell.config.estimator.name == "exact")
        return {"score": score, "seeds": 1, "epochs": 1, "run": asked[-1], "commit": ""}

    monkeypatch.setattr("argmax_vae.commands.search.outcome", outcome)
    return asked


@pytest.mark.parametrize(
    ("space", "points"),
    [
        (["trainer.batch=1,2,3"], 3),
        (["trainer.batch=range(1,4)", "estimator=direct,exact"], 6),
        (["estimator=glob([direct*,e*])", "trainer.batch=5"], 4),
        (["optim.learning_rate=range(0.25,1,0.25)", "trainer.batch=1,2"], 6),
        (["optim.learning_rate=interval(0.1,0.1)"], 1),
    ],
)
def test_a_finite_space_is_tried_once_at_every_point(
    space: list[str], points: int, untrained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["data=digits", "model.latents=2x2", "trainer.epochs=1", "trainer.evaluate_every=1", *space]
    found = search("train", given, "finite", 12, "validation_bound", 0, Path("results"))
    assert len(found) == len(set(untrained)) == len(untrained) == points
    assert f"the space has {points} points, each is tried once" in capsys.readouterr().err
    assert found["score"].is_monotonic_increasing


def test_points_that_look_alike_are_one(untrained: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    given = ["data=digits", "optim.learning_rate=interval(0.1,0.1002)"]
    found = search("train", given, "narrow", 3, "validation_bound", 0, Path("results"))
    assert len(found) == len(untrained) == 1
    assert list(found["trials"]) == [1]
    assert "1 points tried; the sampler finds no other of three digits" in capsys.readouterr().err
