"""Readers of MNIST, Fashion-MNIST and binarized MNIST, from torchvision's folders or the published files."""

import contextlib
import http.client
import io
import logging
import math
import tempfile
import tokenize
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from argmax_vae.data.images import POINT_TO_FILES, Dataset, Images, one_line
from argmax_vae.errors import UsageError

logger = logging.getLogger(__name__)


def load_mnist(directory: Path) -> Dataset:
    """Load MNIST from ``directory/MNIST/raw``, downloading its files if they are absent."""
    return _load_published("mnist", directory)


def load_fashion_mnist(directory: Path) -> Dataset:
    """Load Fashion-MNIST from ``directory/FashionMNIST/raw``, downloading its files if they are absent."""
    return _load_published("fashion_mnist", directory)


def load_binarized_mnist(directory: Path) -> Dataset:
    """Load a fixed binarization of MNIST from ``directory/BinarizedMNIST``.

    The files ``binarized_mnist_{train,valid,test}.npy`` hold uint8 of shape (images, 98): the 784 pixels of
    an image as bits, first pixel in the highest bit (``numpy.packbits``). There are no labels, and nothing is
    downloaded.
    """
    folder = directory / "BinarizedMNIST"
    train, validation, test = (
        Images(_read_packed(folder / f"binarized_mnist_{part}.npy", images), None)
        for part, images in (("train", 50_000), ("valid", 10_000), ("test", 10_000))
    )
    return Dataset("binarized_mnist", (1, 28, 28), train, validation, test, binary=True)


PUBLISHED = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
"""Data sets that torchvision downloads, and its names for them."""


def _load_published(name: str, directory: Path) -> Dataset:
    """Load torchvision's data set ``PUBLISHED[name]``, the last 10,000 of its 60,000 training images as validation."""
    kind = PUBLISHED[name]
    folder = directory / kind / "raw"
    _obtain(kind, directory, folder)
    pixels, labels = _read_idx_pair(folder, "train", 60_000)
    train = Images(pixels[:50_000], labels[:50_000])
    validation = Images(pixels[50_000:], labels[50_000:])
    test = Images(*_read_idx_pair(folder, "t10k", 10_000))
    return Dataset(name, (1, 28, 28), train, validation, test, binary=False)


def _archives(kind: str) -> dict[str, str]:
    """The archives of ``torchvision.datasets.<kind>`` with their md5."""
    from torchvision import datasets as published

    return dict(getattr(published, kind).resources)


def _extracted(kind: str, folder: Path) -> bool:
    """Whether ``folder`` has a file of every archive of ``torchvision.datasets.<kind>``."""
    return all((folder / archive).with_suffix("").is_file() for archive in _archives(kind))


def _obtain(kind: str, directory: Path, folder: Path) -> None:
    """Make sure that the extracted files of ``torchvision.datasets.<kind>`` stand in ``folder``.

    torchvision verifies archives but not what it extracted, and takes any extracted file for a whole one. It
    therefore works in a staging folder, and only whole files are renamed into place: an interrupted call
    leaves nothing that a later one, or one running at the same time, could mistake for data.
    """
    from torchvision import datasets as published
    from torchvision.datasets.utils import check_integrity

    archives = _archives(kind)
    with contextlib.ExitStack() as stack:
        try:
            if _extracted(kind, folder):
                return
            stack.callback(_remove_empty, _missing(folder))
            folder.mkdir(parents=True, exist_ok=True)
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".incomplete-", dir=folder)))
            staging = root / kind / "raw"
            staging.mkdir(parents=True)
            present = [archive for archive in archives if (folder / archive).exists()]
            whole = [archive for archive in present if check_integrity(folder / archive, archives[archive])]
            for archive in whole:
                (staging / archive).symlink_to((folder / archive).resolve())
        except OSError as error:
            raise UsageError(
                f"data directory {directory} cannot be used to extract {kind} ({one_line(error)}): "
                f"make it readable and writable, or {POINT_TO_FILES}"
            ) from error
        logger.info("extracting %s into %s, downloading what is missing", kind, folder)
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                getattr(published, kind)(root, train=False, download=True)
            for path in staging.iterdir():
                if not path.is_symlink():
                    path.replace(folder / path.name)
        except (RuntimeError, OSError, http.client.HTTPException) as error:
            damaged = [archive for archive in present if archive not in whole]
            advice = f"delete {', '.join(damaged)} there (damaged: wrong md5), or " if damaged else ""
            raise UsageError(
                f"{folder} does not hold all files of {kind}, and downloading and extracting them failed "
                f"({one_line(error)}): {advice}{POINT_TO_FILES}"
            ) from error


def _missing(folder: Path) -> list[Path]:
    """Those of a folder and the ones around it that do not exist, the innermost first."""
    return [each for each in (folder, *folder.parents) if not each.exists()]


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the innermost first, as far as they are empty."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _read_idx_pair(folder: Path, part: str, images: int) -> tuple[UInt8[Tensor, "images 784"], Int64[Tensor, "images"]]:
    """Read the extracted image and label files of one part, ``train`` or ``t10k``."""
    from torchvision.datasets.mnist import read_image_file, read_label_file

    pixels = _read_idx(read_image_file, folder / f"{part}-images-idx3-ubyte", (images, 28, 28))
    labels = _read_idx(read_label_file, folder / f"{part}-labels-idx1-ubyte", (images,))
    return pixels.flatten(start_dim=1), labels


def _read_idx(read: Callable[[Path], Tensor], path: Path, shape: tuple[int, ...]) -> Tensor:
    """Read an extracted file by torchvision's ``read`` and insist on its shape."""
    try:
        found = read(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({one_line(error)}): {POINT_TO_FILES}") from error
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is damaged, not an idx file of shape {shape}: delete it and run again") from error
    if found.shape != shape:
        raise UsageError(f"{path} holds an array of shape {tuple(found.shape)}, not {shape}: delete it and run again")
    return found


def _read_packed(path: Path, images: int) -> UInt8[Tensor, "images 784"]:
    """Read 784 bits an image as pixels 0 or 255."""
    try:
        with path.open("rb") as stream:
            packed = read_npy(stream, (images, 98))
    except FileNotFoundError as error:
        raise UsageError(f"{path} is missing and cannot be downloaded: {POINT_TO_FILES}") from error
    except OtherArrayError as error:
        raise UsageError(f"{path} holds {error}: delete it and put the right file in its place") from error
    except (ValueError, tokenize.TokenError) as error:
        raise UsageError(f"{path} is damaged, not a npy file: delete it and put a whole copy in its place") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({one_line(error)}): {POINT_TO_FILES}") from error
    return torch.from_numpy(np.unpackbits(packed, axis=1)[:, :784] * np.uint8(255))


class OtherArrayError(ValueError):
    """A npy file holds another array than the one that belongs there."""


def read_npy(stream: io.BufferedReader, shape: tuple[int, ...]) -> np.ndarray:
    """Read bytes of this shape from a npy file, none before its header says that they are what it holds.

    Raises OtherArrayError, and ValueError or tokenize.TokenError for a damaged file.
    """
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    found, in_columns, dtype = read_header(stream)
    if dtype.hasobject:
        raise ValueError("the file holds pickled objects")
    if (found, dtype) != (shape, np.dtype(np.uint8)):
        raise OtherArrayError(f"{dtype} of shape {found}, not uint8 of shape {shape}")
    values = np.empty(math.prod(shape), dtype=np.uint8)
    if stream.readinto(values.data) != values.nbytes:
        raise ValueError("the file ends early")
    return values.reshape(shape, order="F" if in_columns else "C")
