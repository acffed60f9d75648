"""Training: seeds that do not know of each other, repeatable numbers, divergence, selection, files."""

import json
import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from argmax_vae.cli import main
from argmax_vae.commands import records
from argmax_vae.data.datasets import load_dataset
from argmax_vae.models.discrete import Perceptrons
from argmax_vae.objective import bounds
from argmax_vae.objective.bounds import Evaluation, bound_sums
from argmax_vae.randomness import SeedNoise
from argmax_vae.runs.directory import RunDirectory, scan
from argmax_vae.training import build, fit
from argmax_vae.training.steps import EagerSteps
from argmax_vae.training.vae import DiscreteVAE
from helpers import TINY, cell, metrics, poison, same_numbers, seeds, train

KINDS = {
    "direct": (),
    "gumbel_softmax": ("estimator=gumbel_softmax",),
    "exact": ("estimator=exact", "model.latents=2x3"),
    "relax": ("estimator=relax", "model.latents=2x3"),
    "moving average": ("estimator=reinforce", "estimator.baseline=moving_average"),
    "hidden, dynamic, folded": (
        "model=one_hidden",
        "model.hidden=[16]",
        "data.binarization=dynamic",
        "objective=folded",
    ),
    "deep": ("model=deep", "model.hidden=[16,8]", "data.binarization=none"),
    "one latent": ("model.latents=1x8", "trainer.importance_samples=3"),
}


def best_networks(run: RunDirectory) -> Perceptrons:
    """The stored best networks of a run."""
    config = runs_config(run)
    networks = Perceptrons(64, config["n"], config["k"], config["hidden"], config["seeds"], config["likelihood"])
    networks.load_state_dict(torch.load(run.best, weights_only=True)["networks"])
    return networks.requires_grad_(False)


def runs_config(run: RunDirectory) -> dict[str, Any]:
    plain = run.config()
    n, k = (int(part) for part in plain["model"]["latents"].split("x"))
    return {"n": n, "k": k, "hidden": plain["model"]["hidden"], "seeds": plain["seeds"]} | {
        "likelihood": plain["model"].get("likelihood", "bernoulli")
    }


# Seeds


@pytest.mark.parametrize("kind", KINDS)
def test_a_slice_of_many_seeds_is_the_lone_run(kind: str, tmp_path: Path) -> None:
    """Batched and single matrix products may sum in another order, which training amplifies: 1e-4 nats of 40.

    The seed in the middle is compared; that parameters agree says that no stream of random numbers differs.
    """
    together = train(tmp_path, *KINDS[kind], "seeds=[4,7,9]")
    alone = train(tmp_path, *KINDS[kind], "seeds=[7]")
    curves = metrics(together)
    pd.testing.assert_frame_equal(curves[curves["seed"] == 7].reset_index(drop=True), metrics(alone), rtol=0, atol=1e-4)
    rows = seeds(together)
    pd.testing.assert_frame_equal(rows[rows["seed"] == 7].reset_index(drop=True), seeds(alone), rtol=0, atol=1e-4)
    for many, one in zip(best_networks(together).parameters(), best_networks(alone).parameters(), strict=True):
        torch.testing.assert_close(many[1:2], one, rtol=1e-4, atol=1e-5)
    assert curves.groupby("seed")["validation_bound"].last().nunique() == 3


@pytest.mark.parametrize("kind", ["direct", "hidden, dynamic, folded"])
def test_the_chunk_size_does_not_change_a_bit(kind: str, tmp_path: Path) -> None:
    first = train(tmp_path / "1", *KINDS[kind], "seeds=[0,1]", "runtime.chunk=1")
    for chunk in (4, 100):
        same_numbers(first, train(tmp_path / str(chunk), *KINDS[kind], "seeds=[0,1]", f"runtime.chunk={chunk}"))


@pytest.mark.parametrize("kind", ["direct", "gumbel_softmax"])
def test_the_same_configuration_gives_the_same_numbers(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = train(tmp_path / "first", *KINDS[kind], "seeds=[0,1]")
    torch.manual_seed(2)
    same_numbers(first, train(tmp_path / "second", *KINDS[kind], "seeds=[0,1]"))


def test_training_lowers_the_bound_of_every_seed(tmp_path: Path) -> None:
    run = train(
        tmp_path,
        "seeds=[0,1,2]",
        "trainer.epochs=20",
        "trainer.evaluate_every=10",
        "optim.learning_rate=0.01",
    )
    bounds = metrics(run).pivot(index="epoch", columns="seed", values="validation_bound")
    assert (bounds.loc[20] < bounds.loc[10]).all()
    assert (bounds.loc[20] < 64 * np.log(2)).all(), "worse than a fair coin for every pixel"


def test_what_an_estimator_learns_has_a_learning_rate_of_its_own(tmp_path: Path) -> None:
    """Adam's first step is as long as its rate: one step of all images."""
    choices = ("estimator=rebar", "trainer.batch=1200", "trainer.epochs=1", "optim.learning_rate=0.002")
    runs = [train(tmp_path, *choices, f"optim.estimator_factor={factor}") for factor in (1, 10)]
    states = [torch.load(run.path / "last.ckpt", weights_only=True)["state_dict"] for run in runs]
    for state, rate in zip(states, (0.002, 0.02), strict=True):
        assert (state["estimator.eta"] - 1).abs().flatten().tolist() == pytest.approx([rate], rel=1e-3)
    same = [name for name in states[0] if torch.equal(states[0][name], states[1][name])]
    assert set(states[0]) - set(same) == {"estimator.eta", "estimator.log_temperature"}


# Divergence


def test_a_diverged_seed_is_recorded_and_does_not_touch_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ("seeds=[3,4,5]", "trainer.epochs=4", "tracker=csv")
    clean = train(tmp_path / "clean", *overrides)
    poison(monkeypatch, [1], epoch=3)
    run = train(tmp_path / "poisoned", *overrides)
    rows, expected = (seeds(one).set_index("seed") for one in (run, clean))
    assert rows.loc[4, "status"] == "diverged"
    assert rows.loc[4, "epochs"] == 3
    assert rows.loc[4, "best_epoch"] == expected.loc[4, "best_epoch"].clip(max=2)
    assert np.isnan(rows.loc[4, ["test_bound", "test_reconstruction", "test_kl"]].astype(float)).all()
    pd.testing.assert_frame_equal(rows.loc[[3, 5]], expected.loc[[3, 5]], check_exact=True)
    curves, expected_curves = metrics(run), metrics(clean)
    for seed in (3, 5):
        pd.testing.assert_frame_equal(
            curves[curves["seed"] == seed], expected_curves[expected_curves["seed"] == seed], check_exact=True
        )
    assert curves[(curves["seed"] == 4) & (curves["epoch"] >= 3)]["validation_bound"].isna().all()
    assert json.loads((run.path / "done.json").read_text())["status"] == "done"
    tracked = pd.read_csv(run.path / "tracker.csv")
    assert list(tracked["epoch"]) == [1, 2, 3, 4]
    assert tracked["validation_bound"].notna().all()


def test_when_every_seed_has_diverged_training_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, [0, 1], epoch=2)
    run = train(tmp_path, "seeds=[0,1]", "trainer.epochs=1000")
    rows = seeds(run)
    assert list(rows["status"]) == ["diverged", "diverged"]
    assert list(rows["epochs"]) == [2, 2]
    assert list(rows["best_epoch"]) == [1, 1]
    assert list(rows["steps"]) == [12, 12]
    assert set(metrics(run)["epoch"]) <= {1, 2}
    assert json.loads((run.path / "done.json").read_text())["status"] == "diverged"
    assert run.has_ended
    assert len(records.record(run, "t", "p")) == 2


def test_divergence_before_the_first_evaluation_still_leaves_readable_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, [0], epoch=1)
    run = train(tmp_path, "trainer.epochs=10", "trainer.evaluate_every=10")
    (row,) = records.record(run, "t", "p").to_dict("records")
    assert (row["status"], row["epochs"], row["best_epoch"]) == ("diverged", 1, -1)
    assert len(records.curves(run, "t", "p")) == 0


def test_a_step_so_large_that_no_networks_are_kept_is_divergence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one loss of the run is that before the step, and finite; of the networks after it no bound is."""
    command = ["model=mixture", "model.latents=1x10", "optim.learning_rate=1", "trainer.batch=1200", "trainer.epochs=1"]
    command = ["train", *TINY, f"paths.runs={tmp_path}", *command]
    for _ in range(2):
        assert main(command) == 1
        out, err = capsys.readouterr()
        (run,) = scan(tmp_path)
        assert run.status == "diverged"
        assert f"argmax-vae: diverged: {run.path}: no seed finished, all diverged" in err.splitlines()
        assert out == f"{run.path}: no seed finished, 1 diverged\n"
    (row,) = seeds(run).to_dict("records")
    assert (row["status"], row["epochs"], row["best_epoch"]) == ("diverged", 1, -1)
    assert math.isnan(row["test_bound"])
    assert math.isnan(row["test_accuracy"])
    assert main(["runs", "--runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("diverged ")


def test_gradients_are_measured_on_seeds_that_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as poisoned:
        poison(poisoned, [0], 1)
        some = train(tmp_path, "seeds=[0,1]", "trainer.epochs=1")
        none = train(tmp_path, "seeds=[0]", "trainer.epochs=1")
    tiny = ["laboratory.images=3", "laboratory.repeats=2", "laboratory.adaptation=0", "laboratory.epsilon=[1]"]
    tiny += ["laboratory.temperature=[1]"]
    assert main(["gradients", str(some.path), *tiny]) == 0
    assert set(pd.read_csv(some.path / "gradients.csv")["seed"]) == {1}
    capsys.readouterr()
    assert main(["gradients", str(none.path), *tiny]) == 2
    assert f"{none.path}: no seed finished, all diverged" in capsys.readouterr().err


def test_memory_that_the_end_needs_is_asked_for_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*arguments: Any) -> None:
        raise MemoryError

    steps = []
    monkeypatch.setattr(bounds, "importance_weights", too_large)
    monkeypatch.setattr(DiscreteVAE, "step", lambda *arguments: steps.append(arguments))
    run = train(tmp_path, "trainer.importance_samples=5")
    assert (run.status, run.reason, steps) == ("failed", "MemoryError", [])


# Selection


def test_the_stored_networks_are_those_of_the_best_validation_bound(tmp_path: Path) -> None:
    """A high rate makes the bound go up and down; recomputed, it may sum in another order: 1e-6 relative."""
    run = train(tmp_path, "seeds=[0,1,2]", "trainer.epochs=4", "optim.learning_rate=1")
    curves, rows = metrics(run), seeds(run).set_index("seed")
    best = curves.loc[curves.groupby("seed")["validation_bound"].idxmin()].set_index("seed")
    assert list(rows["best_epoch"]) == list(best["epoch"])
    assert list(rows["validation_bound"]) == list(best["validation_bound"])
    assert set(rows["best_epoch"]) != {4}, "the last epoch is the best of every seed: nothing is tested"

    networks, images = best_networks(run), load_dataset("digits", Path()).validation.pixels
    pixels = (images >= 128).float().expand(3, -1, -1)
    for position, seed in enumerate([0, 1, 2]):
        noise = SeedNoise([0, 1, 2], "cpu").restart(int(rows.loc[seed, "best_epoch"]) - 1, "validation")
        bound = Evaluation.of([bound_sums(networks, pixels, 1, noise)]).bound[position].item()
        assert bound == pytest.approx(rows.loc[seed, "validation_bound"], rel=1e-6)


def test_final_numbers_are_those_of_the_stored_networks(tmp_path: Path) -> None:
    run = train(tmp_path, "seeds=[0,1]", "trainer.final_samples=5", "trainer.importance_samples=4")
    images = load_dataset("digits", Path()).test.pixels
    noise = SeedNoise([0, 1], "cpu").restart(0, "final")
    pixels = (images >= 128).float().expand(2, -1, -1)
    found = Evaluation.of([bound_sums(best_networks(run), pixels, 5, noise, 4)])
    rows = seeds(run)
    for column, values in (
        ("test_bound", found.bound),
        ("test_reconstruction", found.reconstruction),
        ("test_kl", found.kl),
        ("test_importance_weighted", found.importance_weighted),
    ):
        assert list(rows[column]) == pytest.approx(values.tolist(), rel=1e-6), column
    assert (rows["test_bound"] == rows["test_reconstruction"] + rows["test_kl"]).all()


def test_the_training_bound_is_the_mean_over_the_steps_of_the_last_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all steps of that epoch, in blocks, and of no other epoch."""
    steps: list[torch.Tensor] = []
    original = EagerSteps.run

    def recording(self: EagerSteps, block: torch.Tensor) -> torch.Tensor:
        losses = original(self, block)
        steps.extend(losses.double())
        return losses

    monkeypatch.setattr(EagerSteps, "run", recording)
    run = train(tmp_path, "seeds=[0,1]", "trainer.epochs=3", "trainer.evaluate_every=1", "runtime.chunk=3")
    assert len(steps) % 3 == 0
    last = torch.stack(steps[-(len(steps) // 3) :]).mean(0)
    assert list(seeds(run)["train_bound"]) == pytest.approx(last.tolist(), rel=1e-12)


# Files


def test_a_finished_run_holds_these_files_and_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = []
    original = fit.write_json

    def recording(path: Path, value: Any) -> None:
        if path.name == "done.json":
            written.extend(sorted(entry.name for entry in path.parent.iterdir()))
        original(path, value)

    monkeypatch.setattr(fit, "write_json", recording)
    run = train(tmp_path, "tracker=csv")
    files = [
        "best.ckpt",
        "config.yaml",
        "last.ckpt",
        "metrics.csv",
        "provenance.json",
        "reconstructions.png",
        "samples.png",
    ]
    files += ["seeds.csv", "tracker.csv"]
    assert written == files, "done.json must be written after all others"
    assert sorted(entry.name for entry in run.path.iterdir()) == sorted([*files, "done.json"])
    assert yaml.safe_load((run.path / "config.yaml").read_text()) == cell(tmp_path, "tracker=csv").config_dict
    assert "epoch 2/2" in capsys.readouterr().err

    before = {entry.name: entry.stat().st_mtime_ns for entry in run.path.iterdir()}
    train(tmp_path, "tracker=csv")
    assert {entry.name: entry.stat().st_mtime_ns for entry in run.path.iterdir()} == before
    assert capsys.readouterr().err == ""


def test_an_error_while_finishing_leaves_no_done_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as full:
        full.setattr(fit, "save_best", broken)
        run = train(tmp_path)
    assert run.status == "failed"
    assert run.reason == "OSError: No space left on device"
    assert not run.has_ended
    train(tmp_path)
    assert run.status == "done"
    assert not (run.path / "error.txt").exists()
    assert run.reason == ""


def test_the_trackers_are_closed_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr("argmax_vae.runs.trackers.NoTracker.close", lambda self, outcome: closed.append(outcome))
    for broken in ("lightning_trainer", "seed_rows"):
        with monkeypatch.context() as patched:
            patched.setattr(fit, broken, None)
            assert train(tmp_path).status == "failed"
    assert closed == ["failed", "failed"]


# Compiled and captured steps


def steps_of(module: DiscreteVAE, count: int) -> torch.Tensor:
    """Losses of the first steps of training, without Lightning."""
    indices = torch.randint(1200, (count, len(module.seeds), 200), generator=torch.Generator().manual_seed(0))
    optimizer = module.configure_optimizers()
    module.optimizers = lambda: SimpleNamespace(optimizer=optimizer)
    module.on_fit_start()
    module.noise.restart(0)
    return module.runner.run(indices.to(module.device))


def built(tmp_path: Path, *overrides: str) -> DiscreteVAE:
    config = cell(tmp_path, "seeds=[0,1]", *overrides).config
    return build.build(config, load_dataset("digits", Path()))


def test_compiled_steps_equal_eager_ones(tmp_path: Path) -> None:
    """Fused kernels round differently, by less than 1e-4 nats of 45 over a few steps."""
    compiled, eager = (built(tmp_path, f"runtime.compile={choice}") for choice in ("true", "false"))
    torch.testing.assert_close(steps_of(compiled, 4), steps_of(eager, 4), rtol=0, atol=1e-4)
    assert "compiled" in compiled.path.split("; ")
    assert "eager" in eager.path.split("; ")
    for one, other in zip(compiled.networks.parameters(), eager.networks.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_run_that_cannot_be_compiled_says_why_in_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "compile", lambda function, **options: broken)
    with pytest.warns(UserWarning, match="torch.compile failed, the steps run eagerly") as warned:
        run = train(tmp_path, "runtime.compile=true", "trainer.epochs=1", "trainer.final_samples=1")
    assert run.status == "done"
    assert len(warned) == 1
    assert "; eager: OSError: No space left on device; step by step" in seeds(run)["path"].item()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", ["false", "true"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_captured_graph_equals_step_by_step(kind: str, compiled: str, tmp_path: Path) -> None:
    """Same kernels, same numbers, but atomics may reorder sums: 1e-4 nats of 45 over a few steps."""
    overrides = (*KINDS[kind], "runtime.device=cuda", f"runtime.compile={compiled}")
    captured, eager = (built(tmp_path, *overrides, f"runtime.graph={graph}").cuda() for graph in ("true", "false"))
    torch.testing.assert_close(steps_of(captured, 6), steps_of(eager, 6), rtol=0, atol=1e-4)
    assert captured.runner.path == "captured as a CUDA graph"
    assert eager.runner.path == "step by step"
    assert int(captured.steps_done) == int(eager.steps_done) == 6
    for one, other in zip(captured.networks.parameters(), eager.networks.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_on_the_device_is_recorded_as_such(tmp_path: Path) -> None:
    run = train(tmp_path, "runtime.device=cuda", "seeds=[0,1]")
    assert run.status == "done", run.reason
    rows = seeds(run)
    assert rows["path"].str.contains("captured as a CUDA graph").all()
    assert set(rows["device"]) == {torch.cuda.get_device_name()}


# Real data


@pytest.mark.real_data
@pytest.mark.skipif("ARGMAX_VAE_DATA" not in os.environ, reason="ARGMAX_VAE_DATA is not set")
def test_an_epoch_of_mnist_learns(tmp_path: Path) -> None:
    """Untrained networks have a bound near 784 log 2 = 543 nats; the mean image by pixels reaches 205."""
    run = train(
        tmp_path,
        "data=mnist",
        f"paths.data={os.environ['ARGMAX_VAE_DATA']}",
        "model.latents=20x2",
        "trainer.batch=100",
        "trainer.final_samples=1",
        "trainer.epochs=1",
    )
    assert run.status == "done", run.reason
    assert seeds(run)["validation_bound"].item() < 190
