"""Checkpoints as they are read: plain dicts of tensors and values, nothing in them is executed."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from argmax_vae.errors import UsageError


def load_checkpoint(path: Path, advice: str = "remove it and run the same command again") -> dict[str, Any]:
    """A checkpoint's plain dict, loaded without executing pickles.

    Raises UsageError, with the advice, when it is missing or damaged, be it in a single bit: the archive's checksums
    are compared.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist; {advice}")
    try:
        refuse_more_than_is_there(path)
        with zipfile.ZipFile(path) as archive:
            if (member := archive.testzip()) is not None:
                raise zipfile.BadZipFile(member)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        raise UsageError(f"{path} is damaged; {advice}") from None
    if not isinstance(loaded, dict):
        raise UsageError(f"{path} is no checkpoint of argmax-vae")
    return loaded


def refuse_more_than_is_there(path: Path) -> None:
    """Raise BadZipFile when an archive's members claim more bytes than it has: checkpoints are not compressed."""
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
            raise zipfile.BadZipFile(f"{path} would grow when it is read")
