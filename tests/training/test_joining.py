"""More seeds for a finished run: only the new ones are trained, and the files are those of one run."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from argmax_vae.runs.directory import RunDirectory
from argmax_vae.training import fit
from helpers import SMALL_MIXTURE, cell, metrics, poison, raise_after, same_numbers, seeds, train

CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-4}
"""Nats of 40: products of many and of few seeds may sum in another order, which training amplifies."""
KINDS = {
    "direct": (),
    "relax": ("estimator=relax",),
    "moving average": ("estimator=reinforce", "estimator.baseline=moving_average"),
    "mixture": (*SMALL_MIXTURE, "supervision=joint", "supervision.labels=50"),
}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Fills with the seeds of every run that is fitted."""
    found = []
    original = fit.fit

    def watching(cell: Any, *others: Any) -> str:
        found.append(list(cell.config.seeds))
        return original(cell, *others)

    monkeypatch.setattr(fit, "fit", watching)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_new_seeds_are_trained_and_joined(kind: str, tmp_path: Path, trained: list[list[int]]) -> None:
    overrides = (*KINDS[kind], "runtime.checkpoint_every=1")
    whole = train(tmp_path / "whole", *overrides, "seeds=[8,3,5]")
    train(tmp_path / "parts", *overrides, "seeds=[3,5]")
    run = train(tmp_path / "parts", *overrides, "seeds=[8,3,5]")
    assert trained == [[8, 3, 5], [3, 5], [8]]
    assert run.path.name == whole.path.name
    pd.testing.assert_frame_equal(metrics(run), metrics(whole), **CLOSE)
    pd.testing.assert_frame_equal(seeds(run), seeds(whole), **CLOSE)
    assert {path.name for path in run.path.iterdir()} == {path.name for path in whole.path.iterdir()}
    assert run.outcome["seeds"] == [8, 3, 5]
    assert len(run.provenance()["joins"]) == 2
    for name in ("best.ckpt", "last.ckpt"):
        first, second = (torch.load(each.path / name, weights_only=True) for each in (run, whole))
        assert first.keys() == second.keys()
        assert first["identity"] == second["identity"]
        key = "networks" if name == "best.ckpt" else "state_dict"
        for parameter, value in second[key].items():
            torch.testing.assert_close(first[key][parameter], value, rtol=1e-3, atol=1e-4, msg=parameter)
    longer = [train(tmp_path / where, *overrides, "seeds=[8,3,5]", "trainer.epochs=3") for where in ("whole", "parts")]
    assert [each.provenance()["continues"]["run"] for each in longer] == [whole.path.name] * 2
    pd.testing.assert_frame_equal(metrics(longer[0]), metrics(longer[1]), **CLOSE)


def test_seeds_of_a_version_that_recorded_no_training_bound_are_joined(tmp_path: Path) -> None:
    """Theirs is unknown, until the run goes on."""
    first = train(tmp_path, "seeds=[3]")
    checkpoint = torch.load(first.path / "last.ckpt", weights_only=True)
    del checkpoint["state_dict"]["train_bound"]
    torch.save(checkpoint, first.path / "last.ckpt")
    pd.read_csv(first.path / "seeds.csv").drop(columns="train_bound").to_csv(first.path / "seeds.csv", index=False)
    joined = train(tmp_path, "seeds=[8,3]")
    assert seeds(joined)["train_bound"].isna().tolist() == [False, True]
    longer = train(tmp_path, "seeds=[8,3]", "trainer.epochs=4")
    assert longer.provenance()["continues"]["run"] == joined.path.name
    assert seeds(longer)["train_bound"].notna().all()


def test_runs_that_have_all_seeds_are_joined_without_training(tmp_path: Path, trained: list[list[int]]) -> None:
    for given in ("[1]", "[4,2]", "[2]", "[2,9]"):
        train(tmp_path, f"seeds={given}")
    train(tmp_path, "seeds=[3]", "optim.learning_rate=0.01")
    trained.clear()
    run = train(tmp_path, "seeds=[1,2,4]")
    assert trained == []
    assert list(seeds(run)["seed"]) == [1, 2, 4]
    assert list(metrics(run)["seed"]) == [1, 2, 4] * 2


def test_a_joined_run_is_done_when_its_tracker_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies between the two leaves a run that is joined again."""

    def die(*arguments: Any) -> None:
        raise KeyboardInterrupt

    few = ("trainer.epochs=1", "tracker=csv")
    for given in ("seeds=[0]", "seeds=[1]"):
        train(tmp_path, given, *few)
    with monkeypatch.context() as context:
        context.setattr(fit, "track_from_files", die)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, "seeds=[0,1]", *few)
    assert not RunDirectory.of(cell(tmp_path, "seeds=[0,1]", *few).config_dict).has_ended
    run = train(tmp_path, "seeds=[0,1]", *few)
    assert (run.status, (run.path / "tracker.csv").exists()) == ("done", True)


def test_a_joined_run_took_as_long_as_all_its_parts(tmp_path: Path) -> None:
    parts = [train(tmp_path, given, "trainer.epochs=1") for given in ("seeds=[0]", "seeds=[1]")]
    run = train(tmp_path, "seeds=[0,1]", "trainer.epochs=1")
    seconds = sum(part.outcome["seconds"] for part in parts)
    rows = pd.read_csv(run.path / "seeds.csv")
    assert list(rows["seconds"]) == pytest.approx([seconds] * 2)
    assert list(rows["steps_per_second"]) == pytest.approx(list((rows["steps"] / seconds).round(2)))
    stored, *others = (torch.load(each.checkpoint, weights_only=True)["seconds"] for each in (run, *parts))
    assert stored == pytest.approx(sum(others))


def test_a_stopped_addition_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, "seeds=[0]")
    with monkeypatch.context() as interrupted:
        raise_after(interrupted, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, "seeds=[0,1]")
    assert RunDirectory.of(cell(tmp_path, "seeds=[0,1]").config_dict).status == "missing"
    assert train(tmp_path, "seeds=[0,1]").has_ended


def test_a_failed_addition_is_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, "seeds=[0]")
    with monkeypatch.context() as broken:
        raise_after(broken, 1, RuntimeError("node lost"))
        run = train(tmp_path, "seeds=[0,1]")
    assert (run.status, run.reason) == ("failed", "seeds [1]: RuntimeError: node lost")
    assert train(tmp_path, "seeds=[0,1]").has_ended


def test_an_addition_that_diverges_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, "seeds=[0]", "runtime.checkpoint_every=100")
    with monkeypatch.context() as poisoned:
        poison(poisoned, [0], 1)
        run = train(tmp_path, "seeds=[0,1]", "runtime.checkpoint_every=100")
    assert run.outcome["status"] == "done"
    assert list(seeds(run)["status"]) == ["done", "diverged"]
    assert not run.checkpoint.exists()


def test_epochs_are_not_repeated_behind_an_addition_that_diverges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part that diverged is the larger one, and stopped earlier."""
    overrides = ("seeds=[0,1,2]", "runtime.checkpoint_every=1")
    whole = train(tmp_path / "whole", *overrides, "trainer.epochs=3")
    with monkeypatch.context() as poisoned:
        poison(poisoned, [0, 1], 1)
        train(tmp_path / "parts", *overrides[1:], "seeds=[1,2]")
    run = train(tmp_path / "parts", *overrides)
    assert list(seeds(run)["status"]) == ["done", "diverged", "diverged"]
    assert not run.checkpoint.exists()
    same_numbers(train(tmp_path / "parts", *overrides, "trainer.epochs=3"), whole)


def test_without_its_pictures_a_part_is_joined_and_without_its_networks_trained_again(
    tmp_path: Path, trained: list[list[int]]
) -> None:
    part = train(tmp_path, "seeds=[0]")
    (part.path / "samples.png").unlink()
    run = train(tmp_path, "seeds=[0,1]")
    assert (run.path / "reconstructions.png").exists()
    part.best.unlink()
    train(tmp_path, "seeds=[0,2]")
    assert trained == [[0], [1], [0, 2]]


def test_what_was_trained_of_all_seeds_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[list[int]]
) -> None:
    """A checkpoint of the run's own, then a shorter run, come before finished runs of some seeds."""
    overrides = ("seeds=[0,1]", "runtime.checkpoint_every=1")
    with monkeypatch.context() as interrupted:
        raise_after(interrupted, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, *overrides)
    for epochs in (2, 3):
        train(tmp_path, *overrides, "seeds=[0]", f"trainer.epochs={epochs}")
    shorter = train(tmp_path, *overrides)
    longer = train(tmp_path, *overrides, "trainer.epochs=3")
    assert trained == [[0, 1], [0], [0], [0, 1], [0, 1]]
    assert "joins" not in shorter.provenance()
    assert longer.provenance()["continues"]["run"] == shorter.path.name
