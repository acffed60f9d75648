"""Signals: whenever one comes, the last whole epoch is kept, what is said is true, and the run goes on from there."""

import os
import re
import signal
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import pytest
import pytorch_lightning as pl

from argmax_vae.cli import main
from argmax_vae.config import compose
from argmax_vae.errors import UsageError
from argmax_vae.interruption import interruptible
from argmax_vae.runs.checkpoints import load_checkpoint
from argmax_vae.runs.directory import RunDirectory, scan
from argmax_vae.training import callbacks, progress
from helpers import TINY, cell, metrics, raise_after, seeds, train

OVERRIDES = ("trainer.epochs=4", "seeds=[3,5]", "runtime.chunk=2", "runtime.checkpoint_every=100")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The run that nothing interrupts."""
    return train(tmp_path_factory.mktemp("whole"), *OVERRIDES)


def send_at(
    monkeypatch: pytest.MonkeyPatch, hook: str, epoch: int, sent: signal.Signals, *, swallowed: bool = False
) -> None:
    """Send this process a signal when a callback's hook is called in an epoch, counted from 1."""

    def send(self: pl.Callback, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        if trainer.current_epoch + 1 != epoch:
            return
        try:
            os.kill(os.getpid(), sent)
        except KeyboardInterrupt:
            if not swallowed:
                raise

    monkeypatch.setattr(progress.Progress, hook, send, raising=False)


@pytest.mark.parametrize(
    ("hook", "epoch", "sent", "kept"),
    [
        ("on_train_batch_start", 1, signal.SIGTERM, 0),
        ("on_train_batch_start", 3, signal.SIGTERM, 2),
        ("on_validation_batch_start", 3, signal.SIGINT, 2),
        ("on_train_epoch_start", 4, signal.SIGHUP, 3),
        ("on_test_batch_start", 5, signal.SIGTERM, 4),
    ],
)
def test_the_last_whole_epoch_is_kept_and_said(
    hook: str,
    epoch: int,
    sent: signal.Signals,
    kept: int,
    whole: RunDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = RunDirectory.of(cell(tmp_path, *OVERRIDES).config_dict)
    with monkeypatch.context() as signalled:
        send_at(signalled, hook, epoch, sent)
        assert main(["train", *TINY, *OVERRIDES, f"paths.runs={tmp_path}"]) == 130
    told = f"{run.path} keeps {kept} of 4 epochs, from where the same command goes on"
    told = told if kept else f"{run.path} keeps no epoch, the same command starts with the first epoch"
    assert capsys.readouterr().err.splitlines()[-1] == f"argmax-vae: interrupted; {told}"
    assert run.status == "interrupted"
    assert (load_checkpoint(run.checkpoint)["epoch"] + 1 if run.resumes else 0) == kept
    assert train(tmp_path, *OVERRIDES).has_ended
    pd.testing.assert_frame_equal(metrics(run), metrics(whole), check_exact=True)
    found, expected = (seeds(each).drop(columns="path") for each in (run, whole))
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_a_signal_whose_exception_is_lost_counts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as signalled:
        send_at(signalled, "on_train_batch_start", 2, signal.SIGTERM, swallowed=True)
        assert main(["train", *TINY, *OVERRIDES, f"paths.runs={tmp_path}"]) == 130
    assert "keeps 1 of 4 epochs" in capsys.readouterr().err


def test_a_longer_run_says_where_it_starts(
    whole: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    send_at(monkeypatch, "on_train_batch_start", 5, signal.SIGTERM)
    longer = ["trainer.epochs=5", f"paths.runs={whole.path.parent}"]
    assert main(["train", *TINY, *OVERRIDES, *longer]) == 130
    assert f"keeps no epoch, the same command starts at the end of {whole.path}\n" in capsys.readouterr().err


def test_a_disk_that_is_full_at_the_end_is_said_and_nothing_else_is_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object) -> None:
        raise UsageError("cannot write last.ckpt: No space left on device")

    monkeypatch.setattr(callbacks, "write_keeping", full)
    send_at(monkeypatch, "on_train_batch_start", 2, signal.SIGTERM)
    assert main(["train", *TINY, *OVERRIDES, f"paths.runs={tmp_path}"]) == 130
    lines = capsys.readouterr().err.splitlines()[-2:]
    assert lines[0] == "argmax-vae: cannot write last.ckpt: No space left on device"
    assert re.search("keeps no epoch, the same command starts with the first epoch$", lines[1])


def test_after_the_first_signal_only_ctrl_c_interrupts_again() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with interruptible():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("minutes", "epochs"), [("0", 2), ("1e9", 0)])
def test_checkpoints_are_written_by_time_too(
    minutes: str, epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a failure there is what was on the disk."""
    raise_after(monkeypatch, 2, RuntimeError("node lost"))
    run = train(tmp_path, *OVERRIDES, f"runtime.checkpoint_minutes={minutes}")
    assert run.status == "failed"
    assert (load_checkpoint(run.checkpoint)["epoch"] + 1 if run.resumes else 0) == epochs


def test_minutes_between_checkpoints_are_not_negative(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"runtime\.checkpoint_minutes=-1\.0 must be at least 0"):
        cell(tmp_path, "runtime.checkpoint_minutes=-1")


@pytest.mark.usefixtures("empty_directory")
def test_ctrl_c_is_one_line_and_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*arguments: Any) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(compose, "cells", interrupted)
    monkeypatch.setattr("argmax_vae.commands.sweep.cells", interrupted)
    assert main(["train"]) == 130
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_with_130_and_one_line(
    sent: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    empty_directory: Path,
) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def send(*arguments: object) -> None:
        os.kill(os.getpid(), sent)

    with monkeypatch.context() as signalled:
        signalled.setattr(progress.Progress, "on_train_epoch_end", send)
        code = main(["train", *TINY, "trainer.epochs=500", "trainer.evaluate_every=500"])
    assert code == 130
    (run,) = scan(empty_directory / "runs")
    told = f"argmax-vae: interrupted; {run.path} keeps no epoch, the same command starts with the first epoch\n"
    assert capsys.readouterr() == ("", told.replace(f"{empty_directory}/", ""))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert run.status == "interrupted"
