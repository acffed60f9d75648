"""The scripts for a machine with a GPU and no network: their lists, and a rehearsal on the CPU with digits."""

import os
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest
import yaml

from argmax_vae.commands import sweep
from argmax_vae.config import compose, options
from argmax_vae.config.overrides import unfolded
from helpers import TINY

TOP = Path(__file__).parents[1]
LISTS = sorted((TOP / "scripts" / "gpu").glob("*.txt"))
CELLS = {
    "benchmark": 75,
    "benchmark_search": 45,
    "estimators": 23,
    "figure2": 19,
    "figure3": 40,
    "figure3_2019": 20,
    "figure4": 6,
    "figure6": 19,
    "section61": 8,
}


SEARCHED = {"optim.learning_rate"}
"""What a line of a list of searches leaves to its config."""


def swept(name: str) -> dict[str, set[str]]:
    """The values of every key that a primary config sweeps over."""
    _, rows = options.split_rows(name)
    return {
        key: {value.strip() for value in values.split(",")} for key, _, values in (row.partition("=") for row in rows)
    }


def test_lists_are_there() -> None:
    assert {path.stem for path in LISTS} == set(CELLS)


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_lists_have_cells_of_their_tables(path: Path) -> None:
    """Every line is one cell of what its config sweeps over, none twice; the first composes as others then do.

    A line of searches has the cells of all values that are searched.
    """
    lines = sweep.lines_of(str(path), [])
    assert len(lines) == len({(table, *words) for table, words in lines}) == CELLS[path.stem]
    for name, words in lines:
        chosen = dict(piece.split("=", 1) for word in words for piece in unfolded(word, options.groups()))
        sweeps = {key: values for key, values in swept(name).items() if key != "trainer.epochs"}
        chosen = {**{key: next(iter(values)) for key, values in sweeps.items() if len(values) == 1}, **chosen}
        left = SEARCHED if path.stem.endswith("_search") else set()
        assert set(chosen) == {*sweeps, "trainer.epochs", "seeds"} - left, words
        assert all(chosen[key] in values for key, values in sweeps.items() if key not in {*left, "seeds"}), words
        assert int(chosen["trainer.epochs"]) % 5 == 0
    name, words = lines[0]
    cell, *others = compose.cells(name, words)
    assert len(others) == (2 if left else 0)
    assert (cell.config.table, len(cell.config.seeds)) == (path.stem, len(yaml.safe_load(words[-1].split("=")[1])))


def test_figure2_is_listed_whole() -> None:
    lines = sweep.lines_of(str(TOP / "scripts" / "gpu" / "figure2.txt"), [])
    listed = {(name, *words[:-2]) for name, words in lines}
    sizes = swept("figure2")["model.latents"]
    expected = {
        ("figure2", f"experiment={experiment}_{estimator}", f"model.latents={size}")
        for experiment in swept("figure2")["experiment"]
        for estimator in swept("figure2")["estimator"]
        for size in sizes
    }
    binary = {
        ("figure2_control_variates", f"experiment={experiment}_{estimator}")
        for experiment in swept("figure2_control_variates")["experiment"]
        for estimator in swept("figure2_control_variates")["estimator"]
    }
    descendant = {("figure2_imle", f"model.latents={size}") for size in swept("figure2_imle")["model.latents"]}
    assert listed == expected | binary | descendant


def script(name: str, *arguments: object, **environment: object) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own, on a CPU, without checks and benchmark."""
    small = {"CHECKS": 0, "BENCH": 0, "PROCESSES": 1, "PYTHON": sys.executable, "ARGMAX_VAE_COMMIT": "", **environment}
    return subprocess.run(
        ["bash", str(TOP / "scripts" / name), *map(str, arguments)],
        env={**os.environ, **{key: str(value) for key, value in small.items()}},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_rehearsal_on_the_cpu(tmp_path: Path) -> None:
    """One cell, then in a second call the other, by a machine without wheels; both come home, none is trained twice."""
    carry, runs, out = tmp_path / "carry", tmp_path / "runs", tmp_path / "out"
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    assert "holds no *.whl" in script("gpu_pack.sh", "digits", WHEELS=wheels, CARRY=carry).stderr
    (wheels / "empty-1-py3-none-any.whl").touch()
    packed = script("gpu_pack.sh", "digits", WHEELS=wheels, CARRY=carry, LIMIT_MIB=1)
    assert (packed.returncode, carry.exists()) == (2, False)
    assert "more than LIMIT_MIB=1" in packed.stderr
    packed = script("gpu_pack.sh", "digits", WHEELS=wheels, CARRY=carry, LIMIT_MIB=1000)
    assert packed.returncode == 0, packed.stderr
    for wheel in (carry / "wheels").iterdir():
        wheel.unlink()
    (carry / "commit").write_text("0123456789ab-dirty\n")

    small = [word for word in TINY if not word.startswith(("model.", "trainer.epochs="))]
    chosen = [*small, "trainer.epochs=1", "experiment=written_direct", "seeds=[0]"]
    first, both = tmp_path / "first.txt", tmp_path / "both.txt"
    first.write_text("section61 model.latents=3x2 table=rehearsal\n")
    both.write_text(first.read_text() + "section61 model.latents=1x8 table=rehearsal\n")
    for lists, done in ((first, 1), (both, 2)):
        ran = script("gpu_run.sh", lists, *chosen, CARRY=carry, RUNS=runs, OUT=out)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.count("done ") == done, ran.stdout
        assert (out / "log.txt").exists()
        with tarfile.open(out / "runs_0.tar.gz") as archive:
            names = [Path(name).name for name in archive.getnames()]
        assert names.count("done.json") == done
        assert not [name for name in names if name.endswith((".ckpt", ".lock"))]
        assert len(list(runs.glob("*/last.ckpt"))) == done
    assert "resumed" not in "".join(path.read_text() for path in runs.glob("*/provenance.json"))

    home, results = tmp_path / "home", tmp_path / "results"
    merged = script("gpu_merge.sh", out, both, *chosen, RUNS=home, RESULTS=results)
    assert merged.returncode == 0, merged.stderr
    assert "2 runs more; 0 that were not finished stay out" in merged.stdout
    frame = pd.read_csv(results / "runs.csv")
    assert (list(frame["n"]), set(frame["commit"]), set(frame["dirty"])) == ([3, 1], {"0123456789ab"}, {True})
    assert {path.name for path in home.iterdir()} == {path.parent.name for path in runs.glob("*/done.json")}


def test_scripts_say_what_they_lack(tmp_path: Path) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nexec " + shlex.quote(sys.executable) + ' -S "$@"\n')
    (tmp_path / "python").chmod(0o700)
    ran = script("gpu_run.sh", PYTHON=tmp_path / "python", OUT=tmp_path / "out", RUNS=tmp_path / "runs", CARRY=tmp_path)
    assert (ran.returncode, ran.stderr.count("this machine lacks")) == (2, 1)
    assert "run gpu_pack.sh where there is a network" in ran.stderr
    assert "holds no runs_*.tar.gz" in script("gpu_merge.sh", tmp_path).stderr
    assert "mnsit: unknown data set" in script("gpu_pack.sh", "mnsit", CARRY=tmp_path / "carry").stderr
