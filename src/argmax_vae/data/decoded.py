"""Decoded pixels, kept in the user's cache directory, so that only the first call decodes; members of archives."""

import contextlib
import hashlib
import logging
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from argmax_vae.data.images import one_line
from argmax_vae.data.mnist import read_npy
from argmax_vae.errors import UsageError
from argmax_vae.files import cache_directory, is_own, write_atomic

logger = logging.getLogger(__name__)

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, OSError, RuntimeError, ValueError)
"""What reading a damaged archive or image raises."""


def read_member(archive: zipfile.ZipFile, name: str, largest: int) -> bytes:
    """The content of a member of at most `largest` bytes, as it declares itself. Raises BadZipFile for a larger one."""
    size = archive.getinfo(name).file_size
    if size > largest:
        raise zipfile.BadZipFile(f"{name} would have {size} bytes, at most {largest} are read")
    return archive.read(name)


def decoded(
    name: str,
    made_of: str,
    files: Iterable[Path],
    shape: tuple[int, int],
    decode: Callable[[], UInt8[np.ndarray, "images pixels"]],
) -> UInt8[np.ndarray, "images pixels"]:
    """The pixels of this shape that are kept of a data set or, where there are none, what `decode` returns.

    They are kept by the data set's name, what else they are made of, and the names, sizes and times of the files; where
    they cannot be kept, the next call decodes again.
    """
    stamps = (f"{path.name} {stat.st_size} {stat.st_mtime_ns}" for path in files for stat in [path.stat()])
    content = "\n".join([made_of, *stamps])
    cached = f"{name}-{hashlib.sha256(content.encode(errors='surrogateescape')).hexdigest()[:16]}.npy"
    with contextlib.suppress(OSError, MemoryError, RuntimeError, ValueError, tokenize.TokenError):
        if is_own(kept := cache_directory() / cached):
            with kept.open("rb") as stream:
                return read_npy(stream, shape)
    logger.info("decoding %d images of %s", shape[0], name)
    pixels = decode()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.lib.format.write_array(stream, pixels, allow_pickle=False)

    try:
        write_atomic(kept := cache_directory() / cached, write)
        kept.chmod(0o600)
    except (OSError, RuntimeError, UsageError) as error:
        logger.info("the decoded images are not kept for the next time: %s", one_line(error))
    return pixels
