"""Sweeps on other engines: the same rows, exit codes and lines as in one process."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from argmax_vae import errors
from argmax_vae.cli import main
from argmax_vae.commands import sweep
from argmax_vae.config import compose, launchers, options
from argmax_vae.runs.directory import run_name
from helpers import TINY, same_numbers

pytestmark = pytest.mark.usefixtures("empty_directory")

ACCEPTANCE = Path(__file__).parents[1] / "acceptance"
PRESETS = sorted(path.stem for path in options.config_directory().glob("hydra/launcher/*.yaml"))


def needs(plugin: str) -> None:
    """Skip a test without a plugin."""
    try:
        version(plugin)
    except PackageNotFoundError:
        pytest.skip(f"{plugin} is not installed")


@pytest.mark.parametrize("engine", sorted(launchers.EXTRAS))
def test_an_engine_without_its_plugin_is_a_line(
    engine: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(launchers, "version", absent)
    assert main(["train", "-m", *TINY, "seeds=[0],[1]", f"hydra/launcher={engine}"]) == 2
    line = (
        f"argmax-vae: hydra/launcher={engine} needs the extra: pip install 'argmax-vae[{launchers.EXTRAS[engine]}]'\n"
    )
    assert capsys.readouterr().err == line


def test_an_unknown_engine_and_two_engines_are_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *TINY, "hydra/launcher=basicc"]) == 2
    assert "hydra/launcher=basicc: no such option; did you mean 'basic'?" in capsys.readouterr().err
    assert main(["train", "-m", *TINY, "hydra/launcher=basic,joblib"]) == 2
    assert capsys.readouterr().err == "argmax-vae: hydra/launcher=basic,joblib: name one engine for the whole sweep\n"


@pytest.mark.parametrize("engine", sorted({*launchers.EXTRAS, *PRESETS}))
def test_every_engine_composes_and_is_no_part_of_the_identity(engine: str) -> None:
    needs(launchers.PLUGINS[launchers.EXTRAS[engine]])
    (here,) = compose.cells("train", [*TINY])
    (there,) = compose.cells("train", [*TINY, f"hydra/launcher={engine}"])
    assert run_name(here.config_dict) == run_name(there.config_dict)
    assert here.config_dict == there.config_dict
    with initialize_config_dir(str(options.config_directory()), version_base="1.3"):
        hydra = hydra_compose("train", [*TINY, f"hydra/launcher={engine}"], return_hydra_config=True).hydra
    assert hydra.launcher._target_.startswith("hydra_plugins.")


@pytest.mark.parametrize(
    "engine",
    [
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
        pytest.param(["hydra/launcher=submitit_local"], marks=pytest.mark.slow),
    ],
    ids=["joblib", "submitit"],
)
def test_a_sweep_on_an_engine_gives_the_runs_of_one_process(
    engine: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], empty_directory: Path
) -> None:
    """One cell of three is refused: its line comes to the one who started the sweep, the others are trained."""
    needs("hydra-joblib-launcher" if "joblib" in engine[0] else "hydra-submitit-launcher")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    overrides = [*TINY, "seeds=[0],[1],[2]"]
    there = [cell.run for cell in compose.cells("train", [*overrides, "paths.runs=there"])]
    there[2].path.mkdir(parents=True)
    there[2].checkpoint.write_bytes(b"garbage")
    assert main(["train", "-m", *overrides, "paths.runs=there", *engine]) == 1
    assert f"argmax-vae: {there[2].checkpoint} is damaged" in capfd.readouterr().err
    assert [run.status for run in there] == ["done", "done", "interrupted"]
    assert [run.provenance()["command"] for run in there[:2]] == [" ".join(sys.argv)] * 2
    assert {path.name for path in empty_directory.iterdir()} == {"there"} | (
        set() if "joblib" in engine[0] else {".submitit"}
    )

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert main(["train", "-m", *overrides]) == 0
    finally:
        torch.set_num_threads(before)
    for cell, run in zip(compose.cells("train", overrides), there[:2], strict=False):
        same_numbers(cell.run, run)


def test_finished_cells_are_not_submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    submitted = []

    def launch(
        configs: Path, name: str, jobs: list[tuple[str, ...]], call: object
    ) -> tuple[list[tuple[str, str]], str]:
        submitted.append([word for job in jobs for word in job if word.startswith("seeds")])
        return [("done", "")] * len(jobs), ""

    first, _ = compose.cells("train", [*TINY, "seeds=[0],[1]"])
    done = first.run.path / "done.json"
    done.parent.mkdir(parents=True)
    done.write_text('{"status": "done"}')
    monkeypatch.setattr(launchers, "launch", launch)
    assert main(["train", "-m", *TINY, "seeds=[0],[1]"]) == 1
    assert submitted == [["seeds=[1]"]]


def test_a_broken_engine_is_a_line_and_the_states_of_all_cells(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("hydra-joblib-launcher")
    name = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
    launcher = Plugins.instance().class_name_to_class[name]

    def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("a worker died\nof something long")

    monkeypatch.setattr(launcher, "launch", broken)
    assert main(["train", "-m", *TINY, "seeds=[0],[1]", "hydra/launcher=joblib"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "argmax-vae: hydra/launcher=joblib: a worker died"
    assert [line.split(":")[1] for line in lines[1:]] == [" missing", " missing"]


def test_devices_of_other_machines_are_not_looked_for_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = compose.cells("train", [*TINY, "runtime.device=cuda"])
    sweep.check_prerequisites(found, on_this_machine=False)
    with pytest.raises(errors.UsageError, match="no CUDA device"):
        sweep.check_prerequisites(found)


def test_gpus_without_a_gpu_are_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    needs("hydra-joblib-launcher")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert main(["train", *TINY, "hydra/launcher=gpus"]) == 2
    assert "argmax-vae: hydra/launcher=gpus: this machine has no CUDA device" in capsys.readouterr().err


def test_names_of_devices_are_those_that_cuda_may_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert launchers.cuda_devices() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert launchers.cuda_devices() == ["3", "5"]


def test_every_process_takes_a_device_of_its_own_and_keeps_it(empty_directory: Path) -> None:
    code = (
        "import os, sys; from argmax_vae.config import launchers\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        launchers.take_device(['3', '5'])\n"
        "        print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True)\n"
        "    except launchers.UsageError as error:\n"
        "        print(error, flush=True)\n"
        "sys.stdin.read()\n"
    )
    environment = {**os.environ, "TMPDIR": str(empty_directory)}
    processes = []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert process.stdout is not None
        processes.append((process, [process.stdout.readline().strip() for _ in range(2)]))
    for process, _ in processes:
        process.communicate()
    taken = [lines for _, lines in processes]
    assert taken[:2] == [["3", "3"], ["5", "5"]]
    assert all("other sweeps use every CUDA device" in line for line in taken[2])


def test_same_rows_finds_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ACCEPTANCE))
    import same_rows

    row = {"run": "a", "seed": 0, "test_bound": 1.0, "seconds": 1, "steps_per_second": 2, "device": "x", "threads": 1}
    row |= {"path": "eager", "commit": "c", "dirty": False}

    def differences(*rows: dict[str, object]) -> list[str]:
        pd.DataFrame([row, {**row, "seed": 1}]).to_csv(tmp_path / "one.csv", index=False)
        pd.DataFrame(rows).to_csv(tmp_path / "other.csv", index=False)
        return same_rows.differences(tmp_path / "one.csv", tmp_path / "other.csv")

    assert differences({**row, "seed": 1, "seconds": 9, "device": "y"}, row) == []
    assert differences(row) == ["only one of them has row a seed 1"]
    assert differences({**row, "test_bound": 1.5}, {**row, "seed": 1}) == ["a seed 0: test_bound is 1.0 and 1.5"]
    more = differences({**row, "accuracy": 1}, {**row, "seed": 1, "accuracy": 1})
    assert more == ["only one of them has column accuracy"]


def test_same_rows_keeps_a_row_for_every_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ACCEPTANCE))
    import same_rows

    table = tmp_path / "engines.md"
    for row in ("| SLURM | old |", "| Ray | a |", "| SLURM | new |"):
        same_rows.record(table, row)
    lines = table.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("|")] == [*same_rows.HEADER, "| Ray | a |", "| SLURM | new |"]


@pytest.mark.parametrize(
    ("config_name", "overrides"),
    [
        ("train", ["experiment=released_mixture_direct", "estimator.epsilon.first=2"]),
        (
            "train",
            ["experiment=released_mixture_gumbel_softmax", "estimator.temperature.first=2", "supervision.weight=3"],
        ),
        ("benchmark", ["experiment=binary,categorical", "estimator=direct,rebar"]),
    ],
)
def test_a_worker_composes_what_the_experiment_has_for_the_estimator(config_name: str, overrides: list[str]) -> None:
    """Hydra does so by itself, from the job alone; a given value comes last, also of a schedule that was tuned."""
    for cell in compose.cells(config_name, overrides):
        with initialize_config_dir(str(cell.home), version_base="1.3"):
            composed = hydra_compose(cell.config_name, cell.job)
        for section in ("estimator", "supervision", "objective", "model"):
            assert OmegaConf.to_container(composed[section], resolve=True) == cell.config_dict[section]
