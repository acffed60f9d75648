"""Files are whole or absent."""

import errno
import json
import os
from pathlib import Path

import pandas as pd
import pytest

from argmax_vae.errors import UsageError
from argmax_vae.files import (
    claimed,
    csv_text,
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
