"""Files that are whole or not there: temporary names and renames, locks, csv read row by row."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from argmax_vae.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
import csv
from functools import lru_cache

SECONDS_BEFORE_A_WORD = 5.0
"""How long a command waits for a lock before it says so."""
PRIVATE = 0o700
"""Permissions of what nobody but its owner may read, write or execute."""
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH

TEMPORARY = ".part"


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, sync it to the disk, then rename it to `path`.

    What killed processes left of the same file is removed. Raises UsageError when the directory cannot be written to,
    or the disk is full.
    """
    temporary, handle = None, -1
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        temporary, handle = own_temporary(path)
        write(temporary)
        temporary.chmod(0o666 & ~umask())
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
            os.close(handle)


def own_temporary(path: Path) -> tuple[Path, int]:
    """A new temporary file beside `path`, and the handle by which this process holds its lock."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if (temporary := Path(name)).exists():
            return temporary, handle
        os.close(handle)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of `path` whose process has ended, however it ended: nobody holds their locks."""
    for left in path.parent.glob(f"{escape(f'.{path.name}.')}*{TEMPORARY}"):
        try:
            with left.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
        except OSError:
            continue


def remove_all_leftovers(directory: Path) -> None:
    """Remove the temporary files of all files in a directory whose processes have ended."""
    for left in directory.glob(f".*.*{TEMPORARY}"):
        remove_leftovers(directory / left.name.removesuffix(TEMPORARY)[1:].rpartition(".")[0])


def umask() -> int:
    """The permissions that the user's umask takes from new files; it can only be read by setting it."""
    value = os.umask(0o077)
    os.umask(value)
    return value


def cannot_write(path: Path, error: OSError) -> UsageError:
    """What to say when the operating system refuses to write a file."""
    advice = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another directory"
    return UsageError(f"cannot write {path}: {error.strerror or error}; {advice} (paths.runs, paths.results)")


def write_keeping(path: Path, before: Path, write: Callable[[Path], object]) -> None:
    """As `write_atomic`; what `path` was until then becomes `before`, beside it, without copying where that can be."""

    def write_and_keep(temporary: Path) -> None:
        write(temporary)
        if path.exists():
            write_atomic(before, link)

    def link(temporary: Path) -> None:
        temporary.unlink()
        try:
            temporary.hardlink_to(path)
        except OSError:
            shutil.copyfile(path, temporary)

    write_atomic(path, write_and_keep)


@contextmanager
def claimed(path: Path, seconds: float) -> Iterator[bool]:
    """Hold a lock file; False when another process still holds it after some seconds (-1: wait for it, and say so).

    The operating system releases the lock when its owner dies, however it dies. Raises UsageError when the directory
    cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, mode=0o666 & ~umask())
        acquire(lock, seconds)
    except Timeout:
        yield False
        return
    except OSError as error:
        raise cannot_write(path, error) from None
    try:
        yield True
    finally:
        lock.release()


def acquire(lock: FileLock, seconds: float) -> None:
    """Acquire a lock within some seconds, or raise Timeout; -1: wait, and after a while say for what."""
    if seconds >= 0:
        lock.acquire(timeout=seconds)
        return
    try:
        lock.acquire(timeout=SECONDS_BEFORE_A_WORD)
    except Timeout:
        print(f"argmax-vae: waiting for another process, which holds {lock.lock_file}", file=sys.stderr, flush=True)
        lock.acquire(timeout=-1)


def require_writable(directory: Path) -> None:
    """Raise UsageError when the directory can be neither written to nor created; touches nothing."""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        reason = "is not writable" if existing.is_dir() else "is no directory"
        raise UsageError(
            f"cannot write to {directory}: {existing} {reason}; choose another directory (paths.runs, paths.results)"
        )


LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Bytes that file systems allow."""


def usable_path(given: str | Path, key: str) -> Path:
    """A path as it was meant, a `~` in front expanded. Raises UsageError for one that no file system can have."""
    try:
        path = Path(given).expanduser()
    except RuntimeError:
        raise UsageError(f"{key}={given}: this machine knows no such user's home directory") from None
    if "\0" in str(path):
        raise UsageError(f"{key}={str(path)!r} must have no zero byte")
    longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    if longest > LONGEST_NAME or len(os.fsencode(path)) > LONGEST_PATH:
        raise UsageError(f"{key}={str(path)[:60]}… must have names of at most {LONGEST_NAME} bytes")
    return path


def require_working_directory() -> None:
    """Raise UsageError when the directory that the command was started in was removed."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UsageError("the working directory no longer exists; change to one that does") from None


def require_file_name(path: Path, key: str) -> None:
    """Raise UsageError when a file cannot be written there: it is a directory, or nothing can be written beside it."""
    if path.is_dir():
        raise UsageError(f"{key}={path}: is a directory; name a file")
    require_writable(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically; bytes of a file's name that are no text are written as escapes."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="backslashreplace"))


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a table as csv atomically, no text in it a formula."""
    plain = without_formulas(frame)
    write_atomic(path, lambda temporary: plain.to_csv(temporary, index=False))


def csv_text(frame: pd.DataFrame) -> str:
    """A table as csv, no text in it a formula."""
    return without_formulas(frame).to_csv(index=False, lineterminator="\n")


def without_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with all text as `without_formula`: a spreadsheet would execute what starts with =, +, - or @."""
    plain = frame.rename(columns=without_formula)
    for name in plain.columns:
        if plain[name].dtype.kind not in "biuf":
            changed = {value: text for value in plain[name].unique() if (text := without_formula(value)) is not value}
            if changed:
                plain[name] = [changed.get(value, value) for value in plain[name]]
    return plain


def without_formula(value: Any) -> Any:
    """The value itself, or with an apostrophe in front if it is text that starts like a formula and is no number."""
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in their order."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


RESTORE = "restore the file or move it away, then run the same command again"


def csv_rows(path: Path, advice: str = RESTORE) -> Iterator[list[str]]:
    """The header and then every row of a csv file as text.

    Raises UsageError when the file is missing or empty, has a column without a name or two with the same one, a row
    with more or fewer fields than the header, a quote that is not closed, or is not in UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if not header:
                raise csv.Error("it is empty")
            if "" in header or len(set(header)) < len(header):
                raise csv.Error("its first line does not name every column once")
            yield header
            for row in reader:
                if len(row) != len(header):
                    raise csv.Error(f"line {reader.line_num} has {len(row)} fields, the first line {len(header)}")
                yield row
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; {advice}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a csv file ({' '.join(str(error).split())}); {advice}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); {advice}") from None


@lru_cache(maxsize=2**16)
def whole(text: str) -> str:
    """A whole number without a fraction or spaces: `3` for ` 3.0`. Raises ValueError for other text."""
    value = text.strip()
    number = float(value)
    if not number.is_integer():
        raise ValueError(text)
    return value if value.isdecimal() else str(int(number))


def cache_directory() -> Path:
    """A folder of this user's own for what is built or decoded once: `$XDG_CACHE_HOME/argmax-vae`, by default
    `~/.cache/argmax-vae`; where that is another user's, `argmax-vae-UID` beside it.

    Nobody else can write to it or read from it; `is_own` says of a file whether others left it there before. Raises
    PermissionError when neither folder is this user's, and RuntimeError without a home folder.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    parent = given if given.is_absolute() else Path.home() / ".cache"
    parent.mkdir(parents=True, exist_ok=True)
    user = os.geteuid()
    for folder in (parent / "argmax-vae", parent / f"argmax-vae-{user}"):
        with suppress(FileExistsError):
            folder.mkdir(mode=PRIVATE)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == user:
            if stat.S_IMODE(found.st_mode) != PRIVATE:
                folder.chmod(PRIVATE)
            return folder
    raise PermissionError(errno.EPERM, f"{folder} is another user's; set XDG_CACHE_HOME to a folder of your own")


def is_own(path: Path) -> bool:
    """Whether a file, no link, belongs to this user, and nobody else may write to it."""
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & OTHERS_MAY_WRITE
