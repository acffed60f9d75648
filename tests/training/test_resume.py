"""A run that is stopped and started again gives the numbers of one that was never stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from argmax_vae.cli import main
from argmax_vae.commands import records
from argmax_vae.data.datasets import load_dataset
from argmax_vae.errors import UsageError
from argmax_vae.files import write_json
from argmax_vae.randomness import SeedNoise
from argmax_vae.runs import checkpoints, provenance
from argmax_vae.runs.directory import RunDirectory
from argmax_vae.training import fit
from helpers import TINY, cell, metrics, raise_after, same_numbers, train

FOUR = ("trainer.epochs=4", "seeds=[3,5]", "runtime.checkpoint_every=1")


def interrupted(monkeypatch: pytest.MonkeyPatch, runs_directory: Path, epoch: int, *overrides: str) -> RunDirectory:
    """The directory of a tiny run that was interrupted at the end of an epoch."""
    with monkeypatch.context() as context:
        raise_after(context, epoch, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(runs_directory, *overrides)
    return RunDirectory.of(cell(runs_directory, *overrides).config_dict)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("estimator=gumbel_softmax", "data.binarization=dynamic"),
        ("estimator=relax",),
        ("estimator=reinforce", "estimator.baseline=moving_average"),
    ],
)
def test_interrupted_and_resumed_equals_uninterrupted(
    overrides: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice: behind the first epoch, and before the last."""
    whole = train(tmp_path / "whole", *FOUR, *overrides)
    for stop in (1, 3):
        parts = interrupted(monkeypatch, tmp_path / "parts", stop, *FOUR, *overrides)
        assert parts.status == "interrupted"
        assert parts.checkpoint.exists()
        assert list(metrics(parts)["epoch"].unique()) == list(range(1, stop + 1))
    train(tmp_path / "parts", *FOUR, *overrides)
    assert parts.status == "done"
    same_numbers(whole, parts)


def test_a_checkpoint_of_another_device_brings_its_numbers_and_not_its_choices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adam's `capturable`, which a graph on CUDA needs and a checkpoint from a CPU denies; here the other way round."""
    whole = train(tmp_path / "whole", *FOUR)
    parts = interrupted(monkeypatch, tmp_path / "parts", 2, *FOUR)
    stored = torch.load(parts.checkpoint, weights_only=True)
    for group in stored["optimizer_states"][0]["param_groups"]:
        group["capturable"] = True
    torch.save(stored, parts.checkpoint)
    train(tmp_path / "parts", *FOUR)
    groups = torch.load(parts.checkpoint, weights_only=True)["optimizer_states"][0]["param_groups"]
    assert [group["capturable"] for group in groups] == [False]
    same_numbers(whole, parts)


def test_a_longer_run_continues_the_longest_shorter_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a checkpoint at a multiple of the interval, and with runs beside it that differ in more or are longer."""
    overrides = ("seeds=[3,5]", "runtime.checkpoint_every=100", "trainer.evaluate_every=1")
    whole = train(tmp_path / "whole", *overrides, "trainer.epochs=5")
    shortest, *_ = [
        train(tmp_path / "parts", *overrides, *others)
        for others in (("trainer.epochs=1",), ("trainer.epochs=6",), ("trainer.epochs=4", "optim.learning_rate=1e-4"))
    ]
    shorter = train(tmp_path / "parts", *overrides, "trainer.epochs=3")
    before = (shorter.path / "metrics.csv").read_text()
    seen = []
    restart = SeedNoise.restart

    def spy(noise: SeedNoise, epoch: int, purpose: str) -> SeedNoise:
        if purpose == "noise":
            seen.append(epoch)
        return restart(noise, epoch, purpose)

    monkeypatch.setattr(SeedNoise, "restart", spy)
    longer = train(tmp_path / "parts", *overrides, "trainer.epochs=5")
    assert sorted(set(seen)) == [3, 4]
    same_numbers(whole, longer)
    origin = longer.provenance()["continues"]
    assert (origin["run"], origin["continues"]["run"]) == (shorter.path.name, shortest.path.name)
    assert (shorter.path / "metrics.csv").read_text() == before


def test_who_resumed_a_run_is_recorded_beside_its_first_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shorter run that is finished in between is not what it goes on from; a longer one has the origins of all."""
    overrides = ("seeds=[3]", "runtime.checkpoint_every=1")
    for epoch, commit in ((1, "first"), (2, "second")):
        with monkeypatch.context() as interrupted:
            interrupted.setattr(provenance, "commit", lambda commit=commit: (commit, commit == "second"))
            raise_after(interrupted, epoch, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                train(tmp_path, *overrides, "trainer.epochs=3")
    monkeypatch.setattr(provenance, "commit", lambda: ("first", False))
    train(tmp_path, *overrides, "trainer.epochs=1")
    run = train(tmp_path, *overrides, "trainer.epochs=3")
    found = run.provenance()
    assert (found["commit"], found["dirty"], "continues" in found) == ("first", False, False)
    assert [(each["commit"], each["dirty"]) for each in found["resumed"]] == [("second", True), ("first", False)]
    assert found["resumed"][0]["packages"] == found["packages"]
    assert found["resumed"][0]["device"] == provenance.device_name("cpu")
    monkeypatch.setattr(provenance, "commit", lambda: ("third", False))
    longer = train(tmp_path, *overrides, "trainer.epochs=4")
    for each, commits in ((run, "first, second"), (longer, "third, first, second")):
        row = records.record(each, "figure2", "").iloc[0]
        assert (row["commit"], row["dirty"]) == (commits, True)


def test_a_run_without_its_checkpoint_is_not_continued(tmp_path: Path) -> None:
    shorter = train(tmp_path, "seeds=[0]", "trainer.epochs=1")
    shorter.checkpoint.unlink()
    assert "continues" not in train(tmp_path, "seeds=[0]", "trainer.epochs=2").provenance()


def test_what_was_done_after_the_last_checkpoint_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = (*FOUR, "runtime.checkpoint_every=2", "tracker=csv")
    whole = train(tmp_path / "whole", *overrides)
    with monkeypatch.context() as broken:
        raise_after(broken, 3, RuntimeError("node lost"))
        parts = train(tmp_path / "parts", *overrides)
    assert parts.status == "failed"
    assert parts.reason == "RuntimeError: node lost"
    train(tmp_path / "parts", *overrides)
    same_numbers(whole, parts)
    assert (parts.path / "tracker.csv").read_text() == (whole.path / "tracker.csv").read_text()


def test_failed_before_the_first_checkpoint_starts_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ("seeds=[0]", "runtime.checkpoint_every=100")
    whole = train(tmp_path / "whole", *overrides)
    with monkeypatch.context() as broken:
        raise_after(broken, 1, RuntimeError("node lost"))
        assert not train(tmp_path / "parts", *overrides).resumes
    same_numbers(whole, train(tmp_path / "parts", *overrides))


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    """SIGKILL as soon as the first checkpoint is there, wherever the process is by then."""
    overrides = (
        "trainer.epochs=40",
        "trainer.evaluate_every=5",
        "runtime.checkpoint_every=1",
        "runtime.chunk=1",
    )
    killed = RunDirectory.of(cell(tmp_path / "killed", *overrides).config_dict)
    command = [
        sys.executable,
        "-m",
        "argmax_vae",
        "train",
        *TINY,
        f"paths.runs={tmp_path / 'killed'}",
        *overrides,
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not killed.checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    assert killed.status == "running"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert killed.status == "interrupted"
    epoch = checkpoints.load_checkpoint(killed.checkpoint)["epoch"]
    assert 0 <= epoch < 20
    same_numbers(train(tmp_path / "whole", *overrides), train(tmp_path / "killed", *overrides))
    assert killed.has_ended


def test_the_clock_goes_on_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as interrupted:
        raise_after(interrupted, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, *FOUR)
    run = RunDirectory.of(cell(tmp_path, *FOUR).config_dict)
    content = checkpoints.load_checkpoint(run.checkpoint)
    content["seconds"] = 1000.0
    torch.save(content, run.checkpoint)
    train(tmp_path, *FOUR)
    assert (pd.read_csv(run.path / "seeds.csv")["seconds"] > 1000).all()
    assert json.loads((run.path / "done.json").read_text())["seconds"] > 1000


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = cell(tmp_path)
    run = chosen.run
    run.path.mkdir()
    for content in (b"", b"garbage", b"PK\x03\x04 half an archive"):
        run.checkpoint.write_bytes(content)
        assert main(["train", *TINY, f"paths.runs={tmp_path}"]) == 2
        out, err = capsys.readouterr()
        assert err == f"argmax-vae: {run.checkpoint} is damaged; remove it and run the same command again\n"
        assert out == ""
    assert not run.has_ended
    run.checkpoint.unlink()
    assert main(["train", *TINY, f"paths.runs={tmp_path}"]) == 0


def flip(content: bytes) -> bytes:
    """The same with another bit in the middle, which is one of a number."""
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :]


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"", flip])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    damage: Callable[[bytes], bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = train(tmp_path / "whole", *FOUR)
    parts = interrupted(monkeypatch, tmp_path / "parts", 3, *FOUR)
    epochs = [checkpoints.load_checkpoint(path)["epoch"] for path in (parts.previous, parts.checkpoint)]
    assert epochs == [1, 2]
    parts.checkpoint.write_bytes(damage(parts.checkpoint.read_bytes()))
    assert checkpoints.load_checkpoint(parts.previous)["epoch"] == 1
    capsys.readouterr()
    train(tmp_path / "parts", *FOUR)
    assert f"argmax-vae: {parts.checkpoint} is damaged, going on from previous.ckpt\n" in capsys.readouterr().err
    same_numbers(whole, parts)
    assert not parts.previous.exists()


def test_a_checkpoint_of_another_configuration_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDirectory.of(cell(tmp_path).config_dict)
    run.path.mkdir()
    for content in ({"identity": "0123456789"}, {}):
        torch.save(content, run.checkpoint)
        assert main(["train", *TINY, f"paths.runs={tmp_path}"]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"argmax-vae: {run.checkpoint} belongs to another configuration")
        assert err.count("\n") == 1
    torch.save([1, 2], run.checkpoint)
    with pytest.raises(UsageError, match="no checkpoint"):
        checkpoints.load_checkpoint(run.checkpoint)
    with pytest.raises(UsageError, match="does not exist"):
        checkpoints.load_checkpoint(run.best)


def test_checkpoints_hold_plain_values_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as interrupted:
        raise_after(interrupted, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, *FOUR)
    run = RunDirectory.of(cell(tmp_path, *FOUR).config_dict)
    assert torch.load(run.checkpoint, weights_only=True)["identity"] == run.path.name.rsplit("-", 1)[1]


def test_a_clock_that_is_set_back_changes_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tmp_path / "whole", *FOUR)
    clock = iter(range(2_000_000_000, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    with monkeypatch.context() as interrupted:
        raise_after(interrupted, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "back", *FOUR)
    back = train(tmp_path / "back", *FOUR)
    same_numbers(whole, back)
    assert (pd.read_csv(back.path / "seeds.csv")["seconds"] > 0).all()


def test_a_process_that_dies_after_the_last_checkpoint_changes_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left to train then: what the steps did is known from the checkpoint alone."""
    whole = train(tmp_path / "whole", *FOUR)
    with monkeypatch.context() as context:
        context.setattr(fit, "seed_rows", raiser(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "parts", *FOUR)
    parts = RunDirectory.of(cell(tmp_path / "parts", *FOUR).config_dict)
    assert checkpoints.load_checkpoint(parts.checkpoint)["epoch"] == 3
    train(tmp_path / "parts", *FOUR)
    same_numbers(whole, parts)


def raiser(error: BaseException) -> Callable[..., None]:
    """A function that raises an error."""

    def raising(*arguments: object) -> None:
        raise error

    return raising


def test_what_a_killed_process_left_is_gone_after_the_next_command(tmp_path: Path) -> None:
    """A checkpoint before the last beside a done marker, and half-written files, of a run that has ended or not."""
    ended = train(tmp_path, "seeds=[0]", "trainer.epochs=1")
    files = {path.name for path in ended.path.iterdir()}
    begun = RunDirectory.of(cell(tmp_path, "seeds=[1]", "trainer.epochs=1").config_dict)
    begun.path.mkdir()
    ended.previous.write_bytes(b"")
    for run in (ended, begun):
        (run.path / ".last.ckpt.abcdefgh.part").write_bytes(b"half")
    assert main(["train", "-m", *TINY, f"paths.runs={tmp_path}", "seeds=[0],[1]", "trainer.epochs=1"]) == 0
    for run in (ended, begun):
        assert {path.name for path in run.path.iterdir()} == files


def test_a_run_on_other_data_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether it is finished, goes on, or is evaluated; a run that does not know its data is accepted."""
    done = train(tmp_path, "seeds=[0]", "trainer.epochs=1")
    begun = interrupted(monkeypatch, tmp_path, 1, *FOUR)
    commands = [
        ["train", *TINY, f"paths.runs={tmp_path}", "seeds=[0]", "trainer.epochs=1"],
        ["train", *TINY, f"paths.runs={tmp_path}", *FOUR],
        ["evaluate", str(done.path)],
        ["gradients", str(done.path), "laboratory.images=5", "laboratory.repeats=2"],
    ]
    for run in (done, begun):
        origin = run.provenance()
        assert origin["data"] == load_dataset("digits", Path()).digest
        write_json(run.path / "provenance.json", origin | {"data": {**origin["data"], "sha256": "0123456789abcdef"}})
    capsys.readouterr()
    for command, run in zip(commands, (done, begun, done, done), strict=True):
        assert main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"argmax-vae: {run.path} was trained on data 0123456789abcdef (1200 images to train on)")
    for run in (done, begun):
        write_json(run.path / "provenance.json", {k: v for k, v in run.provenance().items() if k != "data"})
    assert [main(command) for command in commands[:3]] == [0, 0, 0]
