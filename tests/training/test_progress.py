"""The line that tells how far a run is."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from argmax_vae.cli import main
from argmax_vae.training import progress
from argmax_vae.training.progress import Progress, fitting
from helpers import TINY, train

NUMBER = r"-?\d+(\.\d+)?(e[+-]\d+)?"


class Terminal:
    """Standard error that says it is a terminal and keeps what is written."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_off_a_terminal_the_path_the_first_and_the_last_epoch_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 1e9)
    monkeypatch.setattr(progress.time, "monotonic", iter(range(2_000_000_000, 2_100_000_000)).__next__)
    run = train(tmp_path, "trainer.epochs=4")
    out, err = capsys.readouterr()
    path, *lines = err.splitlines()
    assert out == ""
    assert re.fullmatch(rf"{run.path.name} on cpu: candidates: [a-z ]+; eager; step by step", path)
    assert [line.split(",")[0] for line in lines] == [f"{run.path.name} epoch {epoch}/4" for epoch in (1, 4)]
    told = rf", train bound {NUMBER}, validation bound {NUMBER}, KL {NUMBER}, ε {NUMBER}"
    assert re.search(f"{told}$", lines[0]), lines[0]
    assert re.search(told + r", \d+ steps/s, \d+ s left$", lines[1]), lines[1]
    assert lines[-1].endswith(" 0 s left")
    assert "\033" not in err
    assert "\r" not in err


def test_gumbel_softmax_tells_its_temperature(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, "estimator=gumbel_softmax", "trainer.epochs=1")
    assert re.search(rf", τ {NUMBER}$", capsys.readouterr().err, re.MULTILINE)


def test_a_terminal_has_one_line_that_is_rewritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    train(tmp_path, "trainer.epochs=3")
    assert terminal.text.count("\r\033[K") == 3
    assert terminal.text.count("\n") == 2
    assert terminal.text.endswith("0 s left\n")


def test_speed_and_time_left_count_behind_the_first_epoch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run goes on after 6 of 16 epochs of 100 steps: the first takes 60 s, of which most compile, the others 12 s."""
    monkeypatch.setattr(progress, "DiscreteVAE", SimpleNamespace)
    monkeypatch.setattr(progress.time, "monotonic", iter([100.0, 160.0, 172.0, 184.0]).__next__)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    device = SimpleNamespace(type="cpu")
    module: Any = SimpleNamespace(steps_done=torch.tensor(600), device=device, path="compiled")
    trainer: Any = SimpleNamespace(current_epoch=6, callback_metrics={"train_bound": torch.tensor(98.76543)})
    told = Progress("run", 16, "run 2 of 5", 3)
    told.on_train_start(trainer, module)
    for epoch in (6, 7, 8):
        trainer.current_epoch = epoch
        module.steps_done += 100
        told.on_train_epoch_end(trainer, module)
    assert capsys.readouterr().err.splitlines() == [
        "run 2 of 5: run on cpu: compiled",
        "run 2 of 5: run epoch 7/16, train bound 98.77",
        "run 2 of 5: run epoch 8/16, train bound 98.77, 8 steps/s, 96 s left (11 min of the sweep)",
        "run 2 of 5: run epoch 9/16, train bound 98.77, 8 steps/s, 84 s left (11 min of the sweep)",
    ]


def test_a_line_fits_the_terminal() -> None:
    name = "mnist-linear-20x10-direct-kl_analytic-0123456789"
    line = f"run 2 of 12: {name} epoch 8/16, train bound 98.77, KL 12.3, ε 0.1, 8 steps/s, 100 s left"
    assert fitting(line, name, 500) == line
    shorter = fitting(line, name, 110)
    assert shorter == line.replace(name, "…0123456789")
    shortest = fitting(line, name, 50)
    assert shortest == "run 2 of 12: …0123456789 epoch 8/16, 100 s left"
    assert [len(fitting(line, name, columns)) <= columns for columns in range(1, 150)] == [True] * 149


def test_a_collapsed_posterior_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    told = Progress("run", 16)
    for kl in (3.0, 0.004, 0.002):
        told.tell_collapse(SimpleNamespace(callback_metrics={"validation_kl": torch.tensor(kl)}))  # type: ignore[arg-type]
    assert capsys.readouterr().err == (
        "argmax-vae: run: KL 0.004 nats on validation, the posterior has collapsed onto the prior\n"
    )


def test_runs_of_a_sweep_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = [*TINY, "seeds=[0],[1]", f"paths.runs={tmp_path}"]
    assert main(["train", "-m", *sweep]) == 0
    places = re.findall(r"^(run \d of \d): .* on cpu", capsys.readouterr().err, re.MULTILINE)
    assert places == ["run 1 of 2", "run 2 of 2"]
