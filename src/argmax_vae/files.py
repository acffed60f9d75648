"""Files that are either whole or not there: written under a temporary name, then renamed."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from argmax_vae.errors import UsageError


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`.

    Raises UsageError when the directory cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}; choose another directory (paths.runs, paths.results)"
        ) from None
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def claimed(path: Path, seconds: float) -> Iterator[bool]:
    """Hold a lock file; False when another process still holds it after some seconds (-1: wait for it).

    The operating system releases the lock when its owner dies, however it dies. Raises UsageError when the directory
    cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        lock.acquire(timeout=seconds)
    except Timeout:
        yield False
        return
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}; choose another directory (paths.runs, paths.results)"
        ) from None
    try:
        yield True
    finally:
        lock.release()


def require_writable(directory: Path) -> None:
    """Raise UsageError when the directory can be neither written to nor created; touches nothing."""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        reason = "is not writable" if existing.is_dir() else "is no directory"
        raise UsageError(
            f"cannot write to {directory}: {existing} {reason}; choose another directory (paths.runs, paths.results)"
        )


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in their order."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
