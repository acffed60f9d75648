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

from argmax_vae import __version__, runs
from argmax_vae.errors import UsageError
from argmax_vae.files import write_text
from argmax_vae.runs import RunDirectory, identity, merge_into, run_name, scan
from helpers import cell, metrics, train


def test_identity_is_a_hash_of_what_decides_the_numbers() -> None:
    plain = {"seeds": [0], "data": {"b": 1, "a": 0.1}, "runtime": {"device": "cpu"}, "table": "x"}
    text = '{"data": {"a": 0.1, "b": 1}, "seeds": [0]}'
    assert identity(plain) == hashlib.sha256(text.encode()).hexdigest()[:10]


def test_a_run_is_named_by_its_choices_and_identity(tmp_path: Path) -> None:
    plain = cell(tmp_path).plain
    assert run_name(plain) == f"digits-linear-3x4-direct-kl_analytic-{identity(plain)}"
    assert RunDirectory.of(plain).path == tmp_path / run_name(plain)
    assert RunDirectory.of(plain).status == "missing"


def test_states_follow_each_other(tmp_path: Path) -> None:
    plain = cell(tmp_path).plain
    run = RunDirectory.of(plain)
    run.start(plain)
    assert run.status == "interrupted"
    assert run.config() == plain
    run.fail("Traceback\n  line\nValueError: too bad\n")
    assert (run.status, run.reason) == ("failed", "ValueError: too bad")
    run.start(plain)
    assert (run.status, run.reason) == ("interrupted", "")
    runs.write_json(run.path / "done.json", {})
    assert run.status == "done"
    assert scan(tmp_path) == [run]


def test_what_is_no_run_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no run"):
        RunDirectory(tmp_path).config()
    (tmp_path / "config.yaml").write_text("just text")
    with pytest.raises(UsageError, match="damaged"):
        RunDirectory(tmp_path).config()


def test_provenance_names_commit_and_versions() -> None:
    found = runs.provenance()
    assert found["version"] == __version__
    assert set(found["packages"]) >= {"torch", "numpy"}
    assert json.loads(json.dumps(found)) == found


def test_without_git_the_commit_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*arguments: object, **options: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.delenv("ARGMAX_VAE_COMMIT", raising=False)
    monkeypatch.setattr(subprocess, "run", absent)
    assert runs.commit.__wrapped__() == ("", False)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("0123abc", ("0123abc", False)), (40 * "a", (12 * "a", False)), ("0123456789ab-dirty", ("0123456789ab", True))],
)
def test_the_environment_names_the_commit_of_files_without_a_repository(
    given: str, expected: tuple[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARGMAX_VAE_COMMIT", given)
    assert runs.commit.__wrapped__() == expected


def test_what_is_no_commit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGMAX_VAE_COMMIT", "main, v1")
    with pytest.raises(UsageError, match="ARGMAX_VAE_COMMIT=main, v1 must be a commit's 7 to 40 digits"):
        runs.commit.__wrapped__()


def test_only_a_repository_that_tracks_the_package_names_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed package lies inside somebody's repository, which later tracks it, and then has changes."""
    monkeypatch.delenv("ARGMAX_VAE_COMMIT", raising=False)
    installed = tmp_path / "environment" / "runs.py"
    write_text(installed, "")
    write_text(tmp_path / "own.py", "")
    monkeypatch.setattr(runs, "__file__", str(installed))

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "--quiet")
    git("add", "own.py")
    git("commit", "--quiet", "-m", "theirs")
    assert runs.commit.__wrapped__() == ("", False)
    git("add", ".")
    git("commit", "--quiet", "-m", "ours")
    assert runs.commit.__wrapped__() == (git("rev-parse", "--short=12", "HEAD"), False)
    write_text(installed, "changed = True")
    assert runs.commit.__wrapped__()[1]


def test_tables_and_pictures_come_back(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.write_table("table.csv", [{"a": 0.1 + 0.2, "b": "x, y"}])
    assert pd.read_csv(tmp_path / "table.csv").to_dict("records") == [{"a": 0.1 + 0.2, "b": "x, y"}]
    run.write_table("empty.csv", [], columns=["a", "b"])
    assert list(pd.read_csv(tmp_path / "empty.csv").columns) == ["a", "b"]
    run.write_picture("picture.png", np.array([[0.0, 0.5], [1.0, 0.2]]))
    assert np.asarray(Image.open(tmp_path / "picture.png")).tolist() == [[0, 128], [255, 51]]


def test_rows_of_record_hold_choices_numbers_and_origin(tmp_path: Path) -> None:
    run = train(tmp_path, "seeds=[2,3]")
    record = runs.record(run, "figure2", "as written")
    seeds = pd.read_csv(run.path / "seeds.csv")
    assert len(record) == 2
    pd.testing.assert_frame_equal(record[list(seeds.columns)], seeds)
    first = record.iloc[0]
    plain = run.config()
    assert (first["table"], first["protocol"], first["run"]) == ("figure2", "as written", run.path.name)
    assert (first["latents"], first["estimator"], first["kl"], first["data"]) == (
        "3x4",
        "direct",
        "analytic",
        "digits",
    )
    assert first["config_hash"] == identity(plain)
    assert first["commit"] == runs.commit()[0]
    assert first["samples"] == plain["trainer"]["final_samples"]

    curves = runs.curves(run, "figure2", "as written")
    assert list(curves["seed"]) == [2, 3, 2, 3]
    assert list(curves["epoch"]) == [1, 1, 2, 2]
    assert list(curves["validation_bound"]) == list(metrics(run)["validation_bound"].round(4))
    assert set(zip(curves["n"], curves["k"], strict=True)) == {(3, 4)}


def rows(value: float, **choices: object) -> pd.DataFrame:
    row = {"table": "t", "protocol": "", "estimator": "direct", "n": 20, "k": 2, "config_hash": "12e45678"}
    return pd.DataFrame([{**row, **choices, "seed": seed, "test_bound": value + seed} for seed in (0, 1)])


def test_merging_replaces_the_same_cells_and_keeps_all_others(tmp_path: Path) -> None:
    path = tmp_path / "results" / "runs.csv"
    merge_into(path, rows(1))
    others = [{"table": "u"}, {"protocol": "p"}, {"estimator": "exact"}, {"n": 1}, {"k": 10}]
    for number, choice in enumerate(others):
        merge_into(path, rows(10 * number, **choice))
    before = pd.read_csv(path, keep_default_na=False, dtype=str)
    assert len(before) == 12
    merge_into(path, rows(0.1, seed_set="new"))
    after = pd.read_csv(path, keep_default_na=False, dtype=str)
    assert len(after) == 12
    pd.testing.assert_frame_equal(after[:10][list(before.columns)], before[2:].reset_index(drop=True))
    assert list(after["test_bound"][10:]) == ["0.1", "1.1"]
    assert set(after["config_hash"]) == {"12e45678"}
    content = path.read_bytes()
    merge_into(path, rows(0.1, seed_set="new"))
    assert path.read_bytes() == content


def test_every_value_of_a_search_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    for value, run in ((1, "a"), (10, "b"), (2, "a")):
        merge_into(path, rows(value, table="figure2_search", run=run))
    assert list(pd.read_csv(path)["test_bound"]) == [10, 11, 2, 3]
    for run in ("a", "b"):
        merge_into(path, rows(3, table="figure2", run=run))
    assert list(pd.read_csv(path)["run"]) == ["b", "b", "a", "a", "b", "b"]


def test_an_error_while_merging_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs.csv"
    merge_into(path, rows(1))
    content = path.read_bytes()

    def broken(self: pd.DataFrame, target: Path, **options: object) -> None:
        Path(target).write_text("half a li")
        raise OSError("No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", broken)
    with pytest.raises(UsageError, match="No space"):
        merge_into(path, rows(2))
    assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs.csv"]


def test_in_a_directory_that_cannot_be_written_nobody_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(tmp_path / "run")
    write_text(run.path / "config.yaml", "{}")
    write_text(run.claim, "")

    def refuse(*arguments: object, **others: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    assert run.status == "interrupted"
