"""Evaluating stored networks again: the same numbers for the same samples, one line for what cannot be evaluated."""

import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import torch

from argmax_vae.commands.evaluate import evaluate_run
from argmax_vae.errors import UsageError
from argmax_vae.runs.checkpoints import load_checkpoint
from argmax_vae.runs.directory import RunDirectory
from helpers import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return train(tmp_path_factory.mktemp("runs"), "seeds=[3,5]")


def test_same_samples_give_the_bounds_that_training_recorded(run: RunDirectory) -> None:
    recorded = pd.read_csv(run.path / "seeds.csv")
    again = evaluate_run(run.path, [])
    test = again[again["split"] == "test"].reset_index(drop=True)
    assert list(test["seed"]) == [3, 5]
    pd.testing.assert_series_equal(test["bound"], recorded["test_bound"], check_names=False, check_exact=True)
    pd.testing.assert_series_equal(test["bound"], test["reconstruction"] + test["kl"], check_names=False)


def test_importance_weighted_bound_is_tighter(run: RunDirectory) -> None:
    """With 50 samples the bound is lower in expectation; over hundreds of images the difference dwarfs the noise."""
    again = evaluate_run(run.path, ["trainer.importance_samples=50"])
    assert (again["importance_weighted"] < again["bound"]).all()


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("trainer.final_sample=3", "trainer.final_samples"),
        ("model.latents=2x2", "can"),
        ("trainer.final_samples=0", "at least 1"),
        ("runtime.device=tpu", "cuda"),
    ],
)
def test_bad_overrides_are_named_in_one_line(run: RunDirectory, override: str, named: str) -> None:
    with pytest.raises(UsageError, match=named) as raised:
        evaluate_run(run.path, [override])
    assert "\n" not in str(raised.value)


def test_a_seed_that_diverged_has_no_numbers(run: RunDirectory, tmp_path: Path) -> None:
    copied = RunDirectory(Path(shutil.copytree(run.path, tmp_path / run.path.name)))
    recorded = pd.read_csv(copied.path / "seeds.csv")
    recorded.loc[recorded["seed"] == 5, "status"] = "diverged"
    recorded.to_csv(copied.path / "seeds.csv", index=False)
    again = evaluate_run(copied.path, []).set_index(["seed", "split"])
    assert set(again.loc[3, "status"]) == {"done"}
    assert again.loc[3, "bound"].notna().all()
    assert set(again.loc[5, "status"]) == {"diverged"}
    assert again.loc[5].drop(columns="status").isna().all(axis=None)


def test_a_run_whose_numbers_are_gone_is_named(run: RunDirectory, tmp_path: Path) -> None:
    copied = RunDirectory(Path(shutil.copytree(run.path, tmp_path / run.path.name)))
    (copied.path / "seeds.csv").unlink()
    with pytest.raises(UsageError, match=r"seeds\.csv: no such file; remove the directory and train again"):
        evaluate_run(copied.path, [])


def test_what_is_no_finished_run_is_named(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no config\.yaml"):
        evaluate_run(tmp_path, [])
    (tmp_path / "config.yaml").write_text((run.path / "config.yaml").read_text())
    with pytest.raises(UsageError, match=r"provenance\.json is missing"):
        evaluate_run(tmp_path, [])
    shutil.copy(run.path / "provenance.json", tmp_path)
    with pytest.raises(UsageError, match=r"best\.ckpt does not exist"):
        evaluate_run(tmp_path, [])
    (tmp_path / "best.ckpt").write_bytes((run.path / "best.ckpt").read_bytes()[:1000])
    with pytest.raises(UsageError, match="damaged"):
        evaluate_run(tmp_path, [])


def test_networks_of_another_configuration_are_refused(run: RunDirectory, tmp_path: Path) -> None:
    text = (run.path / "config.yaml").read_text().replace("learning_rate: 0.001", "learning_rate: 0.002")
    (tmp_path / "config.yaml").write_text(text)
    for name in ("provenance.json", "best.ckpt"):
        shutil.copy(run.path / name, tmp_path)
    with pytest.raises(UsageError, match="another configuration"):
        evaluate_run(tmp_path, [])


def test_a_checkpoint_that_would_grow_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    torch.save({"networks": torch.zeros(10**6)}, tmp_path / "whole")
    assert load_checkpoint(tmp_path / "whole")["networks"].shape == (10**6,)
    with zipfile.ZipFile(tmp_path / "whole") as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as small:
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    with pytest.raises(UsageError, match="damaged"):
        load_checkpoint(path)
