"""The wheel: it holds all that the package reads, and works from an empty directory without the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
PLACES = {"src/argmax_vae": "argmax_vae", "conf": "argmax_vae/conf", "results/paper": "argmax_vae/report/paper"}
"""Directories of the repository, and where the wheel has them."""
PROGRAM = """
import argmax_vae
from argmax_vae.cli import main
from argmax_vae.config.options import config_directory
from argmax_vae.models.native import SOURCE
from argmax_vae.report.page import page
from argmax_vae.report.records import published_values

for path in (config_directory() / "train.yaml", SOURCE, published_values() / "figure2.csv"):
    assert path.is_file() and path.is_relative_to(argmax_vae.__path__[0]), path
assert main(["reproduce", "section61", "--dry-run"]) == 0
page.render([])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    builders = pytest.importorskip("hatchling.builders.wheel", reason="hatchling, which builds it, is not installed")
    directory = tmp_path_factory.mktemp("wheel")
    return Path(next(builders.WheelBuilder(str(TOP)).build(directory=str(directory), versions=["standard"])))


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    expected = {
        f"{inside}/{path.relative_to(TOP / place)}"
        for place, inside in PLACES.items()
        for path in (TOP / place).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == expected
    assert {
        "argmax_vae/py.typed",
        "argmax_vae/models/native/softplus_sums.cpp",
        "argmax_vae/report/page/page.js",
    } < found


def test_the_wheel_works_from_an_empty_directory(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path / "empty",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 8
    assert list((tmp_path / "empty").iterdir()) == []
