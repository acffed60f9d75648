"""Sweeps: what is launched, what is skipped, and what one cell's failure means for the others."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from argmax_vae.cli import main
from argmax_vae.commands import sweep
from argmax_vae.config import compose, options
from argmax_vae.config.schema import Config
from argmax_vae.files import claimed
from argmax_vae.runs.directory import RunDirectory, identity, scan
from argmax_vae.training import fit, prerequisites
from helpers import TINY, raise_after

pytestmark = pytest.mark.usefixtures("empty_directory")

SWEEP = (*TINY, "trainer.epochs=1", "model.latents=2x2,3x2", "estimator=direct,gumbel_softmax")


def runs_of(overrides: tuple[str, ...]) -> list[RunDirectory]:
    return [cell.run for cell in compose.cells("train", list(overrides))]


def fail_for(monkeypatch: pytest.MonkeyPatch, latents: str, error: BaseException) -> list[str]:
    """Let cells of this size raise; returns a list that fills with the cells that were built."""
    original = fit.build
    built = []

    def build_module(chosen: Config, *others: Any) -> Any:
        built.append(f"{chosen.model.latents} {chosen.estimator.name}")
        if chosen.model.latents == latents:
            raise error
        return original(chosen, *others)

    monkeypatch.setattr(fit, "build", build_module)
    return built


def test_a_failing_cell_stops_no_other_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as broken:
        fail_for(broken, "2x2", RuntimeError("no memory"))
        assert main(["train", "-m", *SWEEP]) == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err
    states = {run.path.name.split("-")[2]: run.status for run in runs_of(SWEEP)}
    assert states == {"2x2": "failed", "3x2": "done"}
    failed = [run for run in runs_of(SWEEP) if run.status == "failed"]
    for run in failed:
        assert f"argmax-vae: failed: {run.path}: RuntimeError: no memory" in err.splitlines()
        error = (run.path / "error.txt").read_text(encoding="utf-8")
        assert error.startswith("Traceback (most recent call last):")
        assert "RuntimeError: no memory" in error
        assert not (run.path / "done.json").exists()

    with monkeypatch.context() as watched:
        built = fail_for(watched, "none", RuntimeError())
        assert main(["train", "-m", *SWEEP]) == 0
        assert sorted(built) == ["2x2 direct", "2x2 gumbel_softmax"]
    assert {run.status for run in runs_of(SWEEP)} == {"done"}
    assert not any((run.path / "error.txt").exists() for run in failed)
    assert len(scan(Path("runs"))) == 4


def test_ctrl_c_stops_a_sweep_and_the_same_command_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = (*TINY, "runtime.checkpoint_every=1", "seeds=[0],[1]")
    with monkeypatch.context() as interrupted:
        raise_after(interrupted, 1, KeyboardInterrupt())
        assert main(["train", "-m", *overrides]) == 130
    assert "argmax-vae: interrupted" in capsys.readouterr().err
    assert sorted(run.status for run in runs_of(overrides)) == ["interrupted", "missing"]
    assert main(["train", "-m", *overrides]) == 0
    assert [run.status for run in runs_of(overrides)] == ["done", "done"]


def test_a_usage_error_of_one_cell_is_a_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = (*TINY, "seeds=[0],[1]")
    first, second = runs_of(overrides)
    first.path.mkdir(parents=True)
    first.checkpoint.write_bytes(b"garbage")
    assert main(["train", "-m", *overrides]) == 1
    err = capsys.readouterr().err
    assert f"argmax-vae: {first.checkpoint} is damaged" in err
    assert "Traceback" not in err
    assert second.status == "done"


def test_reproduce_writes_rows_of_record_and_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], empty_directory: Path
) -> None:
    paper = options.config_directory().parent / "results" / "paper"
    (empty_directory / "results").mkdir()
    (empty_directory / "results" / "paper").symlink_to(paper)
    small = [word for word in TINY if not word.startswith("model.")]
    chosen = [
        "reproduce",
        "section61",
        *small,
        "model.latents=3x2,1x8",
        "experiment=written_direct",
        "seeds=[0,1]",
    ]
    assert main([*chosen, "--dry-run"]) == 0
    before = capsys.readouterr().out.splitlines()
    assert len(before) == 2
    assert not (empty_directory / "runs").exists()
    assert main(chosen) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == before
    assert all(Path(line).is_file() for line in out[2:])
    assert {Path(line).suffix for line in out[2:]} == {".svg", ".md", ".tex", ".csv"}

    frame = pd.read_csv("results/runs.csv")
    assert len(frame) == 4
    assert set(frame["table"]) == {"section61"}
    assert set(frame["protocol"]) == {"as written"}
    curves = pd.read_csv("results/curves.csv")
    assert len(curves) == 2 * 2 * 2
    assert main(["report", "section61", "--check"]) == 0
    assert main(["report", "section61", "--format", "csv"]) == 0
    printed = capsys.readouterr().out
    assert printed == Path("results/section61.csv").read_text(encoding="utf-8")

    def never(*arguments: Any) -> Any:
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr(fit, "fit", never)
    assert main(chosen) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("done")
    pd.testing.assert_frame_equal(pd.read_csv("results/runs.csv"), frame)

    listed = sweep.missing("section61", [], Path("runs"))
    assert len(listed) == len(compose.cells("section61", []))


def test_rows_of_more_epochs_or_seeds_are_not_replaced(
    capsys: pytest.CaptureFixture[str], empty_directory: Path
) -> None:
    paper = options.config_directory().parent / "results" / "paper"
    (empty_directory / "results").mkdir()
    (empty_directory / "results" / "paper").symlink_to(paper)
    small = [word for word in TINY if not word.startswith("model.")]
    chosen = ["reproduce", "section61", *small, "experiment=written_direct"]
    assert main([*chosen, "model.latents=3x2,1x8", "seeds=[0,1]"]) == 0
    record, curves = Path("results/runs.csv"), Path("results/curves.csv")
    before = record.read_bytes(), curves.read_bytes()
    chosen.append("model.latents=3x2")
    shorter = [*chosen, "seeds=[0,1]", "trainer.epochs=1"]
    for asked, counts in ((shorter, "1 epochs of 2 seeds"), ([*chosen, "seeds=[0]"], "2 epochs of 1 seeds")):
        capsys.readouterr()
        assert main(asked) == 0
        out, err = capsys.readouterr()
        (line,) = [line for line in err.splitlines() if line.startswith("argmax-vae: ")]
        assert line == (
            f"argmax-vae: {record}: section61 as written direct digits 3 2: 2 epochs of 2 seeds stay, not replaced by "
            f"{counts}; to replace them, remove their rows there"
        )
        assert (record.read_bytes(), curves.read_bytes()) == before
        assert "results/section61.md" in out
    rows = pd.read_csv(record)
    rows[rows["n"] != 3].to_csv(record, index=False)
    assert main(shorter) == 0
    (run,) = set(pd.read_csv(record).query("n == 3")["run"])
    replaced = pd.read_csv(curves).query("n == 3")
    assert (set(replaced["run"]), set(replaced["epoch"])) == ({run}, {1})


def test_finished_cells_are_collected_from_another_directory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], empty_directory: Path
) -> None:
    overrides = [*TINY, "table=tiny", "seeds=[0],[1]", "paths.runs=elsewhere"]
    assert main(["train", *[word.replace("[0],[1]", "[0]") for word in overrides]]) == 0
    capsys.readouterr()
    monkeypatch.setattr(sweep, "cells", lambda table, others: compose.cells("train", overrides))
    assert main(["runs", "--collect", "tiny", "--runs", "elsewhere", "--results", "gathered"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert list(pd.read_csv("gathered/runs.csv")["seed"]) == [0]
    assert main(["runs", "--collect", "tiny", "--runs", "nowhere"]) == 2
    assert "no cell of tiny is finished in nowhere" in capsys.readouterr().err
    assert not Path("nowhere").exists()


def test_rows_of_no_table_are_not_collected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], empty_directory: Path
) -> None:
    overrides = [*TINY, "paths.runs=elsewhere"]
    assert main(["train", *overrides]) == 0
    monkeypatch.setattr(sweep, "cells", lambda table, others: compose.cells("train", overrides))
    assert main(["runs", "--collect", "train", "--runs", "elsewhere", "--results", "gathered"]) == 2
    assert "config train names no table" in capsys.readouterr().err
    assert not Path("gathered").exists()


def test_a_list_of_cells_is_trained_in_its_order_and_comes_home_without_checkpoints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Collected with what its lines say, other seeds than the config's, and not trained again."""
    Path("cells.txt").write_text(
        "# worth most first\nsection61 model.latents=3x2 seeds=[7,8]\n\nsection61 'model.latents=1x8'  # behind\n"
    )
    small = [word for word in TINY if not word.startswith(("model.", "trainer.epochs="))]
    listed = ["cells.txt", *small, "experiment=written_direct", "trainer.epochs=1", "seeds=[7,8]", "table=tiny"]
    assert main(["reproduce", *listed, "paths.results=there"]) == 0
    assert [line.split()[3] for line in capsys.readouterr().out.splitlines()[:2]] == ["3x2", "1x8"]
    for checkpoint in Path("runs").glob("*/*.ckpt"):
        checkpoint.unlink()

    def never(*arguments: Any) -> Any:
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr(fit, "fit", never)
    assert main(["runs", "--missing", *listed]) == 0
    assert capsys.readouterr().out == ""
    assert main(["runs", "--collect", *listed]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["done", "done"]
    frame = pd.read_csv("results/runs.csv")
    assert list(zip(frame["n"], frame["seed"], strict=True)) == [(3, 7), (3, 8), (1, 7), (1, 8)]
    assert main(["reproduce", *listed]) == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["reproduce", "nowhere.txt"], "nowhere.txt cannot be read as a list of cells"),
        (["reproduce", "empty.txt"], "empty.txt lists no cell: write a config and overrides in each line"),
        (["reproduce", "quote.txt"], "quote.txt cannot be read as a list of cells: No closing quotation"),
        (["runs", "--collect", "wrong.txt"], "no config named 'figure22'"),
        (["reproduce", "untabled.txt"], "config train names no table"),
        (["runs", "trainer.epochs=1"], "runs: trainer.epochs=1 needs --missing TABLE or --collect TABLE"),
        (["runs", "--collect", "figure2", "paths.runs=x"], "paths.runs=x: give --runs and --results instead"),
    ],
)
def test_lists_and_overrides_that_select_nothing(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (
        ("empty", "# no\n"),
        ("quote", "a 'b"),
        ("wrong", "figure22"),
        ("untabled", "train data=digits"),
    ):
        Path(f"{name}.txt").write_text(text)
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert problem in line


def test_a_run_that_another_process_trains_is_left_to_it(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = (*TINY, "seeds=[0],[1]")
    first, second = runs_of(overrides)
    with claimed(first.claim, 0) as mine:
        assert mine
        assert first.status == "running"
        assert main(["train", "-m", *overrides]) == 0
        assert (first.path.exists(), second.status) == (False, "done")
        assert f"argmax-vae: another process is training {first.path}\n" in capsys.readouterr().err
    assert first.status == "missing"
    assert main(["train", "-m", *overrides]) == 0
    assert first.status == "done"


def test_a_run_whose_process_gives_up_meanwhile_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = (*TINY, "seeds=[0],[1]")
    first, second = runs_of(overrides)
    original = fit.build
    with claimed(first.claim, 0):

        def build_module(*arguments: Any) -> Any:
            monkeypatch.setattr(RunDirectory, "is_running", False)
            monkeypatch.setattr(RunDirectory, "claim", property(lambda run: run.path.parent / f"{run.path.name}.lock"))
            return original(*arguments)

        monkeypatch.setattr(fit, "build", build_module)
        assert main(["train", "-m", *overrides]) == 0
    assert (first.has_ended, second.has_ended) == (True, True)


@pytest.mark.parametrize(
    ("overrides", "checked"),
    [
        (("optim.learning_rate=0.1,0.2",), 1),
        (("seeds=[0],[1]",), 2),
        (("data.binarization=threshold,dynamic",), 2),
        (("model=linear,one_hidden",), 2),
        (("runtime.processes=1,2",), 2),
    ],
)
def test_cells_that_need_something_else_are_checked_too(
    overrides: tuple[str, ...], checked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Config] = []
    monkeypatch.setattr(prerequisites, "prerequisites", seen.append)
    sweep.check_prerequisites(compose.cells("train", [*TINY, *overrides]))
    assert len(seen) == checked


def test_a_cell_that_is_done_is_not_checked_in_place_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = found = compose.cells("train", [*TINY, "optim.learning_rate=0.1,0.2"])
    run = first.run
    run.start(first.config_dict)
    (run.path / "done.json").write_text('{"status": "done"}')
    seen: list[Config] = []
    monkeypatch.setattr(prerequisites, "prerequisites", seen.append)
    sweep.check_prerequisites(found)
    assert seen == [second.config]


def test_two_processes_share_a_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    """This one begins when the other has; each of the cells is trained by one of them."""
    overrides = [*TINY, "seeds=[0],[1],[2],[3]"]
    command = [sys.executable, "-m", "argmax_vae", "train", "-m", *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    other = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    while not list(Path("runs").glob("*/config.yaml")) and other.poll() is None:
        time.sleep(0.01)
    code = main(["train", "-m", *overrides])
    lines = other.communicate()[1] + capsys.readouterr().err
    assert (code, other.returncode) == (0, 0), lines
    for run in runs_of(tuple(overrides)):
        assert run.has_ended
        assert lines.count(f"{run.path.name} on cpu") == 1


def test_a_finished_run_that_is_damaged_costs_no_other_its_rows(
    capsys: pytest.CaptureFixture[str], empty_directory: Path
) -> None:
    chosen = ["reproduce", "train", *TINY, "table=demo", "trainer.epochs=1", "seeds=[0]", "model.latents=2x2,3x2"]
    chosen += ["paths.runs=runs", "paths.results=results"]
    assert main(chosen) == 0
    damaged, whole = sorted(scan(Path("runs")), key=lambda run: run.path.name)
    (damaged.path / "seeds.csv").write_text("")
    Path("results/runs.csv").unlink()
    Path("results/curves.csv").unlink()
    capsys.readouterr()
    assert main(chosen) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "seeds.csv" in line]
    assert line.startswith(f"argmax-vae: {damaged.path / 'seeds.csv'}: not a csv file (it is empty)")
    for name in ("runs.csv", "curves.csv"):
        assert set(pd.read_csv(f"results/{name}")["run"]) == {whole.path.name}


def test_rows_of_two_processes_do_not_overwrite_each_other(tmp_path: Path) -> None:
    """Three writers at once, each merging ten rows of its own."""
    code = (
        "import sys, pandas as pd; from pathlib import Path; from argmax_vae.commands import records; "
        "from argmax_vae.files import claimed; results = Path(sys.argv[1])\n"
        "for index in range(int(sys.argv[2]), int(sys.argv[2]) + 10):\n"
        "    row = dict.fromkeys(records.COLUMNS['runs.csv'], 't') | {'n': index, 'k': 2, 'seed': 0, 'epochs': 1}\n"
        "    point = dict.fromkeys(records.COLUMNS['curves.csv'], 't') | {'n': index, 'k': 2, 'seed': 0, 'epoch': 1}\n"
        "    with claimed(results / '.lock', -1):\n"
        "        entry = records.Entry({}, pd.DataFrame([row]), pd.DataFrame([point | {'run': str(index)}]))\n"
        "        records.merge([entry], results)\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(start)]) for start in (0, 10, 20)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    for name in ("runs.csv", "curves.csv"):
        assert sorted(pd.read_csv(tmp_path / name)["n"]) == list(range(30))


def test_results_that_cannot_be_written_are_refused_before_anything_is_trained(
    capsys: pytest.CaptureFixture[str], empty_directory: Path
) -> None:
    (empty_directory / "occupied").write_text("a file")
    small = [word for word in TINY if not word.startswith("model.")]
    chosen = ["reproduce", "section61", *small, "model.latents=3x2", "experiment=written_direct"]
    assert main([*chosen, "paths.results=occupied/results"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("argmax-vae: cannot write to occupied/results: ")
    assert "occupied is no directory" in line
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("table", "override", "problem"),
    [
        ("figure3", "data=fashion_mnist", "data.name=fashion_mnist does not fit table=figure3, which is of mnist;"),
        ("figure3_2019", "model.gaussian=20", "model.gaussian=20 does not fit table=figure3_2019, which is of 30;"),
        ("figure3", "supervision.select=bound", "supervision.select=bound does not fit table=figure3, which is of"),
    ],
)
def test_runs_that_are_not_what_a_table_says_have_no_place_in_it(
    table: str, override: str, problem: str, capsys: pytest.CaptureFixture[str], empty_directory: Path
) -> None:
    assert main(["reproduce", table, override, "paths.results=results"]) == 2
    assert problem in capsys.readouterr().err
    assert main(["reproduce", table, override, "table=other", "--dry-run"]) == 0
    assert not Path("results").exists()


def test_cells_on_record_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of which every seed has a row, wherever it was trained."""
    monkeypatch.chdir(tmp_path)
    words = ["seeds=[0,1]", "trainer.epochs=5"]
    first, *others = sweep.cells("figure2", words)
    rows = [(identity(first.config_dict), 0), (identity(first.config_dict), 1), (identity(others[0].config_dict), 0)]
    Path("results").mkdir()
    pd.DataFrame(rows, columns=["config_hash", "seed"]).to_csv("results/runs.csv", index=False)
    assert main(["reproduce", "figure2", *words, "--dry-run", "--unrecorded"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == [cell.run.path.name for cell in others]
    one = f"model.latents={first.config.model.latents}", f"experiment={first.overrides[0].split('=')[1]}"
    assert main(["reproduce", "figure2", *words, *one, f"estimator={first.config.estimator.name}", "--unrecorded"]) == 0
    assert "nothing to train: all cells of figure2 are on record" in capsys.readouterr().err
