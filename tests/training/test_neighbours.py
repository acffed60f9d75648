"""Finished runs beside a new one: recognised by their names, read only if they fit, told and left alone if damaged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from argmax_vae.data.datasets import load_dataset
from argmax_vae.files import write_json
from argmax_vae.runs import start
from argmax_vae.runs.directory import RunDirectory, identity
from argmax_vae.training import fit
from helpers import SMALL_MIXTURE, cell, train

MIXTURE = (*SMALL_MIXTURE, "trainer.epochs=1")
DIGEST = load_dataset("digits", Path()).digest


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A finished run of a mixture, which has every kind of file; one epoch, seed 0."""
    return train(tmp_path_factory.mktemp("finished"), *MIXTURE, "seeds=[0]")


@pytest.fixture
def beside(finished: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of it, and a note that has not been said yet."""
    start.say_once.cache_clear()
    return RunDirectory(Path(shutil.copytree(finished.path, tmp_path / finished.path.name)))


def used(runs: Path) -> tuple[RunDirectory | None, list[RunDirectory]]:
    """What a run with more epochs would go on from, and one with more seeds be joined of."""
    longer = cell(runs, *MIXTURE, "seeds=[0]", "trainer.epochs=2").config_dict
    more = cell(runs, *MIXTURE, "seeds=[1,0]").config_dict
    return start.find_shorter_run(longer, DIGEST), list(start.reusable_seeds(more, DIGEST).found)


def flip(content: bytes) -> bytes:
    """Another bit in the middle of the largest array of a checkpoint."""
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :]


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "no configuration": ("config.yaml", lambda content: b""),
    "a foreign configuration": ("config.yaml", lambda content: b"services: {web: {image: nginx}}"),
    "no origin": ("provenance.json", lambda content: b""),
    "a foreign origin": ("provenance.json", lambda content: b"[1, 2]"),
    "no numbers": ("seeds.csv", lambda content: b""),
    "a seed is gone": ("seeds.csv", lambda content: content.splitlines(keepends=True)[0]),
    "another seed": ("seeds.csv", lambda content: content.replace(b",0,done", b",7,done")),
    "no curves": ("metrics.csv", lambda content: b""),
    "a row is gone": ("metrics.csv", lambda content: content.splitlines(keepends=True)[0]),
    "no confusion": ("confusion.csv", lambda content: b""),
    "a bit of a checkpoint": ("last.ckpt", flip),
    "half a checkpoint": ("last.ckpt", lambda content: content[: len(content) // 2]),
}


def test_whole_runs_are_used(beside: RunDirectory) -> None:
    assert used(beside.path.parent) == (beside, [beside])


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_told_and_not_used(
    damage: str, beside: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    name, change = DAMAGES[damage]
    path = beside.path / name
    path.write_bytes(change(path.read_bytes()))
    assert used(beside.path.parent) == (None, [])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("argmax-vae: not used: ")
    assert str(path) in line


@pytest.mark.parametrize("damage", [flip, lambda content: b""])
def test_of_a_run_with_damaged_best_networks_no_seed_is_taken(
    damage: Callable[[bytes], bytes], beside: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    beside.best.write_bytes(damage(beside.best.read_bytes()))
    assert used(beside.path.parent) == (beside, [])
    assert f"{beside.best} is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("marker", ["", "{}", '{"status": "don'])
def test_a_marker_that_is_not_whole_is_none(marker: str, beside: RunDirectory) -> None:
    (beside.path / "done.json").write_text(marker)
    assert beside.status == "interrupted"
    assert used(beside.path.parent) == (None, [])


def test_a_run_on_other_data_is_not_used(beside: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    path = beside.path / "provenance.json"
    origin = json.loads(path.read_text())
    assert origin["data"] == DIGEST
    path.write_text(json.dumps(origin | {"data": {**DIGEST, "sha256": "0" * 16}}))
    assert used(beside.path.parent) == (None, [])
    assert "was trained on data 0000000000000000" in capsys.readouterr().err
    del origin["data"]
    path.write_text(json.dumps(origin))
    assert used(beside.path.parent) == (beside, [beside])


def test_of_many_runs_only_those_that_fit_are_read(beside: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new run beside thousands starts at once: their names say what they are."""
    plain, parsed = beside.config(), []
    for number in range(20):
        other = {**plain, "optim": {**plain["optim"], "learning_rate": 1 + number}}
        run = RunDirectory.of({**other, "paths": {"runs": str(beside.path.parent)}})
        run.start(other)
        write_json(run.path / "done.json", beside.outcome)
    start = RunDirectory.config

    def counting(run: RunDirectory) -> dict:
        parsed.append(run.path.name)
        return start(run)

    monkeypatch.setattr(RunDirectory, "config", counting)
    assert used(beside.path.parent) == (beside, [beside])
    assert set(parsed) == {beside.path.name}
    assert len(parsed) <= 4


def test_damaged_neighbours_spare_nothing_and_refuse_nothing(beside: RunDirectory) -> None:
    """Whatever lies in the directory of runs, a new run is trained as if it were alone."""
    for name in ("config.yaml", "provenance.json", "seeds.csv", "done.json"):
        foreign = beside.path.with_name(f"{beside.path.name.rpartition('-')[0]}-{name.ljust(10, '0')[:10]}")
        shutil.copytree(beside.path, foreign)
        (foreign / name).write_text("")
    stray = beside.path.parent / "notes.txt"
    stray.write_text("a file among runs")
    run = train(beside.path.parent, *MIXTURE, "seeds=[0,1]")
    assert run.status == "done"
    assert run.provenance()["joins"][0]["run"] == beside.path.name


def test_names_end_in_the_identity(beside: RunDirectory) -> None:
    assert start.beside(beside) == {identity(beside.config()): beside}
    assert start.beside(RunDirectory(beside.path / "no" / "run-0123456789")) == {}


def test_a_run_that_has_ended_is_not_taken_for_one_on_other_data(
    beside: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = cell(beside.path.parent, *MIXTURE, "seeds=[0]")
    assert fit.train(chosen) == "done"
