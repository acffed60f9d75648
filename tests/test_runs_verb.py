"""The verb `runs`: states and reasons of runs, and the cells of a table that are missing."""

import re
from pathlib import Path

import pytest

from argmax_vae.cli import main
from argmax_vae.config import compose
from argmax_vae.runs.directory import RunDirectory
from helpers import train

pytestmark = pytest.mark.usefixtures("empty_directory")


def test_runs_lists_states_and_reasons(empty_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = train(empty_directory / "runs")
    failed, interrupted = (RunDirectory(empty_directory / "runs" / name) for name in ("failed", "interrupted"))
    for run in (failed, interrupted):
        run.path.mkdir()
        (run.path / "config.yaml").write_text("{}")
    failed.fail("Traceback\nRuntimeError: out of ideas\n")
    capsys.readouterr()
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        rf"done +all alike +{done.seeds()['test_bound'][0]:.2f} +1 +2 +\d+ s +{done.path.name}", lines[1]
    )
    assert lines[0].split() == ["state", "what", "differs", "test", "bound", "(nats)", "seeds", "epochs", "time", "run"]
    assert re.fullmatch(r"failed +failed RuntimeError: out of ideas", lines[2])
    assert re.fullmatch(r"interrupted +interrupted", lines[3])
    assert main(["runs", "--failed"]) == 0
    assert "out of ideas" in capsys.readouterr().out.splitlines()[1]
    assert main(["runs", "--format", "word"]) == main(["runs", "--sort", "luck"]) == 2
    capsys.readouterr()
    assert main(["runs", "--runs", "elsewhere"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "argmax-vae: no runs in elsewhere\n")


def test_missing_lists_the_cells_of_a_table_that_are_not_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--missing", "section61"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(compose.cells("section61", []))
