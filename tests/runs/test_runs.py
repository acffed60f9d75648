"""Runs on disk: their names, states and rows of record."""

import errno
import hashlib
import json
import subprocess
from pathlib import Path

import filelock
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from argmax_vae import __version__, files
from argmax_vae.errors import UsageError
from argmax_vae.files import write_text
from argmax_vae.runs import provenance
from argmax_vae.runs.directory import RunDirectory, identity, run_name, scan
from helpers import cell


def test_identity_is_a_hash_of_what_decides_the_numbers() -> None:
    config_dict = {"seeds": [0], "data": {"b": 1, "a": 0.1}, "runtime": {"device": "cpu"}, "table": "x"}
    text = '{"data": {"a": 0.1, "b": 1}, "seeds": [0]}'
    assert identity(config_dict) == hashlib.sha256(text.encode()).hexdigest()[:10]


def test_a_run_is_named_by_its_choices_and_identity(tmp_path: Path) -> None:
    config_dict = cell(tmp_path).config_dict
    assert run_name(config_dict) == f"digits-linear-3x4-direct-kl_analytic-{identity(config_dict)}"
    assert RunDirectory.of(config_dict).path == tmp_path / run_name(config_dict)
    assert RunDirectory.of(config_dict).status == "missing"


def test_states_follow_each_other(tmp_path: Path) -> None:
    config_dict = cell(tmp_path).config_dict
    run = RunDirectory.of(config_dict)
    run.start(config_dict)
    assert run.status == "interrupted"
    assert run.config() == config_dict
    run.fail("Traceback\n  line\nValueError: too bad\n")
    assert (run.status, run.reason) == ("failed", "ValueError: too bad")
    run.start(config_dict)
    assert (run.status, run.reason) == ("interrupted", "")
    for marker in ("", "{", "{}", '"done"', '{"status": "else"}'):
        write_text(run.path / "done.json", marker)
        assert (run.status, run.has_ended, run.outcome) == ("interrupted", False, {})
    for status in ("done", "diverged"):
        files.write_json(run.path / "done.json", {"status": status})
        assert (run.status, run.has_ended) == (status, True)
    assert scan(tmp_path) == [run]


def test_what_is_no_run_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no run"):
        RunDirectory(tmp_path).config()
    (tmp_path / "config.yaml").write_text("just text")
    with pytest.raises(UsageError, match="damaged"):
        RunDirectory(tmp_path).config()


def test_a_finished_run_without_its_configuration_is_found_and_named(tmp_path: Path) -> None:
    write_text(tmp_path / "lost" / "done.json", '{"status": "done"}')
    (run,) = scan(tmp_path)
    with pytest.raises(UsageError, match=r"lost/config.yaml is missing; remove the directory and train again"):
        run.config()


def test_provenance_names_commit_and_versions() -> None:
    found = provenance.provenance()
    assert found["version"] == __version__
    assert set(found["packages"]) >= {"torch", "numpy"}
    assert json.loads(json.dumps(found)) == found


def test_without_git_the_commit_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*arguments: object, **options: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.delenv("ARGMAX_VAE_COMMIT", raising=False)
    monkeypatch.setattr(subprocess, "run", absent)
    assert provenance.commit.__wrapped__() == ("", False)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("0123abc", ("0123abc", False)), (40 * "a", (12 * "a", False)), ("0123456789ab-dirty", ("0123456789ab", True))],
)
def test_the_environment_names_the_commit_of_files_without_a_repository(
    given: str, expected: tuple[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARGMAX_VAE_COMMIT", given)
    assert provenance.commit.__wrapped__() == expected


def test_what_is_no_commit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGMAX_VAE_COMMIT", "main, v1")
    with pytest.raises(UsageError, match="ARGMAX_VAE_COMMIT=main, v1 must be a commit's 7 to 40 digits"):
        provenance.commit.__wrapped__()


def test_only_a_repository_that_tracks_the_package_names_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed package lies inside somebody's repository, which later tracks it, and then has changes."""
    monkeypatch.delenv("ARGMAX_VAE_COMMIT", raising=False)
    installed = tmp_path / "environment" / "__init__.py"
    write_text(installed, "")
    write_text(tmp_path / "own.py", "")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "environment" / "runs" / "provenance.py"))

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "--quiet")
    git("add", "own.py")
    git("commit", "--quiet", "-m", "theirs")
    assert provenance.commit.__wrapped__() == ("", False)
    git("add", ".")
    git("commit", "--quiet", "-m", "ours")
    assert provenance.commit.__wrapped__() == (git("rev-parse", "--short=12", "HEAD"), False)
    write_text(installed, "changed = True")
    assert provenance.commit.__wrapped__()[1]


def test_tables_and_pictures_come_back(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.write_table("table.csv", [{"a": 0.1 + 0.2, "b": "x, y"}])
    assert pd.read_csv(tmp_path / "table.csv").to_dict("records") == [{"a": 0.1 + 0.2, "b": "x, y"}]
    run.write_table("empty.csv", [], columns=["a", "b"])
    assert list(pd.read_csv(tmp_path / "empty.csv").columns) == ["a", "b"]
    run.write_picture("picture.png", np.array([[0.0, 0.5], [1.0, 0.2]]))
    assert np.asarray(Image.open(tmp_path / "picture.png")).tolist() == [[0, 128], [255, 51]]


def test_in_a_directory_that_cannot_be_written_nobody_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(tmp_path / "run")
    write_text(run.path / "config.yaml", "{}")
    write_text(run.claim, "")

    def refuse(*arguments: object, **others: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    assert run.status == "interrupted"
