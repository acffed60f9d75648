"""Searches on validation: what they record, that they resume, and what they refuse."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from argmax_vae import training
from argmax_vae.cli import main
from argmax_vae.errors import UsageError
from argmax_vae.search import distribution, search, split
from helpers import TINY, raise_after

optuna = pytest.importorskip("optuna", reason="the extra argmax-vae[search] is not installed")
SMALL = [*TINY, "seeds=[0,1]", "estimator.epsilon.value=tag(log,interval(0.05,0.5))", "optim.learning_rate=1e-3,1e-2"]


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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


def test_an_interrupted_search_goes_on_and_a_longer_one_repeats_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as interrupted:
        raise_after(interrupted, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run()
    fitted = []
    original = training.fit

    def watching(config: Any, plain: Any, directory: Any, *others: Any) -> str:
        fitted.append(directory.path.name)
        return original(config, plain, directory, *others)

    monkeypatch.setattr(training, "fit", watching)
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
    found = distribution(spaces[override.split("=", 1)[0]])
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=digits"], "nothing to search over"),
        ([*SMALL, "--metric", "test_bound"], "--metric test_bound: unknown; allowed: validation_bound"),
        ([*SMALL, "--trials", "0"], "--trials 0 must be at least 1"),
        (["estimator.epsilon.value=interval(1,0.1)"], "estimator.epsilon.value=interval(1,0.1): "),
        (["data=digits", "estimator.epsilon.value=interval(-1,1)"], "value=-1.0 must be greater than 0"),
        (["estimator.epsilon.valu=interval(0.1,1)"], "unknown key 'estimator.epsilon.valu'"),
        (["data=digit", "estimator.epsilon.value=interval(0.1,1)"], "data=digit: no such option"),
        ([*SMALL, "--metric", "validation_accuracy", "--trials", "1"], "--metric validation_accuracy: "),
    ],
)
def test_what_is_refused_in_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "train", *arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("argmax-vae: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not Path("results").exists()


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
