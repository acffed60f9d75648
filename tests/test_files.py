"""Files are whole or absent."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import filelock
import pandas as pd
import pytest

from argmax_vae import files
from argmax_vae.errors import UsageError
from argmax_vae.files import (
    claimed,
    csv_text,
    remove_all_leftovers,
    require_writable,
    write_atomic,
    write_csv,
    write_json,
    write_keeping,
    write_text,
)


def test_text_and_json_come_back(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "text", "ε = 1\n")
    assert (tmp_path / "new" / "text").read_text(encoding="utf-8") == "ε = 1\n"
    write_json(tmp_path / "value.json", {"b": 1, "a": ["τ"]})
    content = (tmp_path / "value.json").read_text(encoding="utf-8")
    assert json.loads(content) == {"b": 1, "a": ["τ"]}
    assert content.index('"b"') < content.index('"a"')


def test_a_failing_writer_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_atomic(path, fail)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_the_temporary_lies_beside_its_file(tmp_path: Path) -> None:
    seen = []
    write_atomic(tmp_path / "file", lambda temporary: (seen.append(temporary), temporary.write_text("x")))
    assert seen[0].parent == tmp_path
    assert not seen[0].exists()


def test_a_directory_that_cannot_be_made_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file")
    below = tmp_path / "occupied" / "runs"
    with pytest.raises(UsageError, match="choose another directory"):
        write_text(below / "file", "text")
    with pytest.raises(UsageError, match="occupied is no directory"):
        require_writable(below)


def test_require_writable_touches_nothing(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b")
    require_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_usage_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")

    def fill(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(UsageError, match="No space left on device; make room"):
        write_atomic(tmp_path / "file", fill)
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("file", "old")]


def test_what_a_file_was_is_kept_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, before = tmp_path / "last", tmp_path / "previous"

    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "no links here")

    def fail(temporary: Path) -> None:
        raise OSError(errno.ENOSPC, "no space")

    write_keeping(path, before, lambda temporary: temporary.write_text("0"))
    assert not before.exists()
    for content, links in (("1", True), ("2", False), ("3", True)):
        with monkeypatch.context() as context:
            if not links:
                context.setattr(Path, "hardlink_to", refuse)
            write_keeping(path, before, lambda temporary, text=content: temporary.write_text(text))
        assert (path.read_text(), before.read_text()) == (content, str(int(content) - 1))
        assert not path.samefile(before)
    with pytest.raises(UsageError):
        write_keeping(path, before, fail)
    assert {entry.name: entry.read_text() for entry in tmp_path.iterdir()} == {"last": "3", "previous": "2"}


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_permissions_that_the_umask_leaves(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "text", "x")
        with claimed(tmp_path / "lock", 0):
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert modes == {"text": mode, "lock": mode}


def test_text_is_no_formula_in_csv_and_numbers_stay(tmp_path: Path) -> None:
    texts = ["=1+1", "+cmd", "-x", "@sum", "\t=1", "−3", "plain", "", "-1e5", "+0.5", "-inf", "'=1"]
    frame = pd.DataFrame({"text": texts, "number": -0.5, "=head": 1})
    write_csv(tmp_path / "table.csv", frame)
    read = pd.read_csv(tmp_path / "table.csv", dtype=str, keep_default_na=False)
    expected = ["'=1+1", "'+cmd", "'-x", "'@sum", "'\t=1", "−3", "plain", "", "-1e5", "+0.5", "-inf", "'=1"]
    assert read.columns.tolist() == ["text", "number", "'=head"]
    assert read["text"].tolist() == expected
    assert set(read["number"]) == {"-0.5"}
    assert csv_text(read) == (tmp_path / "table.csv").read_text(encoding="utf-8")
    assert frame["text"].tolist() == texts


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = []
    sync, rename = os.fsync, Path.replace

    def syncing(handle: int) -> None:
        events.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        sync(handle)

    def renaming(self: Path, target: Path) -> Path:
        events.append("renamed")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(Path, "replace", renaming)
    write_text(tmp_path / "file", "text")
    synced, renamed = events
    assert synced.startswith(str(tmp_path / ".file."))
    assert renamed == "renamed"


def killed_while_writing(path: Path) -> list[Path]:
    """The temporary files that a killed process leaves in a directory."""
    code = (
        "import os, signal, sys; from pathlib import Path; from argmax_vae.files import write_atomic\n"
        "write_atomic(Path(sys.argv[1]), lambda temporary: os.kill(os.getpid(), signal.SIGKILL))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -signal.SIGKILL
    return list(path.parent.glob(".*.part"))


def test_what_killed_processes_left_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a [file].csv"
    assert len(killed_while_writing(path)) == 1
    beside = []

    def look(temporary: Path) -> None:
        remove_all_leftovers(tmp_path)
        beside.extend(tmp_path.glob(".*.part"))

    write_atomic(path, look)
    assert len(beside) == 1, "the one of a process that is alive stays"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert len(killed_while_writing(tmp_path / "other")) == 1
    (tmp_path / ".notes.original").write_text("not ours")
    remove_all_leftovers(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".notes.original", path.name]


def test_a_lock_that_is_not_freed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a while, and then the command goes on waiting: here until the second look at the lock."""
    tries = []

    def acquire(lock: filelock.FileLock, timeout: float) -> None:
        tries.append(timeout)
        if len(tries) == 1:
            raise filelock.Timeout(lock.lock_file)

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with claimed(tmp_path / "lock", -1) as mine:
        assert mine
    assert tries == [files.SECONDS_BEFORE_A_WORD, -1]
    line = f"argmax-vae: waiting for another process, which holds {tmp_path / 'lock'}\n"
    assert capsys.readouterr().err == line
