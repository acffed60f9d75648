"""Omniglot (Lake, Salakhutdinov and Tenenbaum 2015): handwritten characters of 50 alphabets, bright on dark, 28 x 28.

The images are the first of these that is found below the data directory. Nothing is downloaded; there are no labels.

| files | train / validation / test |
|---|---|
| ``Omniglot/chardata.mat``, the 28 x 28 images of Burda et al. 2015 | 23,000 / 1,345 / 8,070 |
| ``omniglot-py/images_background`` and ``images_evaluation``, where torchvision has them | 18,316 / 964 / 13,180 |
| ``Omniglot/images_background`` and ``images_evaluation`` | the same |

Of the MATLAB file the last 1,345 training images are validation, as is the custom. Of the PNG files, in folders or in
``images_background.zip`` and ``images_evaluation.zip``, the background alphabets are train and validation, and the
evaluation alphabets, which share no character with them, test. Each character was drawn by twenty people: the
twentieth drawing is validation. PNG files are 105 x 105, dark on bright: they are inverted, and a pixel is the mean of
those whose centres it covers. The two sources are different data sets; the digest in a run's files tells them apart.
"""

import io
import re
import struct
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from argmax_vae.data.decoded import DAMAGED, decoded, read_member
from argmax_vae.data.images import POINT_TO_FILES, Dataset, Images, one_line
from argmax_vae.errors import UsageError

SIDE, DRAWN = 28, 105
"""Height and width of an image, and of a PNG file."""

MATLAB = {"data": 24_345, "testdata": 8_070}
"""The arrays of chardata.mat, (pixels, images), and how many images each has."""
VALIDATION = 1_345

CHARACTERS = {"images_background": 964, "images_evaluation": 659}
DRAWINGS = 20
FOLDERS = ("omniglot-py", "Omniglot")
LARGEST_IMAGE = 2**20
"""Bytes of a PNG file; the official ones have a thousandth of that."""

IMAGE = re.compile(r"(?:.*/)?([^/]+)/(character\d+)/(\d+_(\d+)\.png)")
REPLACE = "put a whole copy in its place"


def load_omniglot(directory: Path) -> Dataset:
    """Load the images of Omniglot that are found below ``directory``.

    Raises ``UsageError`` for files that are missing, damaged or not whole.
    """
    matlab = directory / FOLDERS[1] / "chardata.mat"
    try:
        if matlab.exists():
            learned, test = _read_matlab(matlab)
            train, validation = learned[:-VALIDATION], learned[-VALIDATION:]
        else:
            train, validation, test = _read_drawings(directory)
    except OSError as error:
        raise UsageError(
            f"{error.filename or directory} cannot be read ({one_line(error)}): make it readable, or {POINT_TO_FILES}"
        ) from error
    whole = [Images(torch.from_numpy(np.ascontiguousarray(pixels)), None) for pixels in (train, validation, test)]
    return Dataset("omniglot", (1, SIDE, SIDE), whole[0], whole[1], whole[2], binary=False)


def _read_matlab(path: Path) -> list[UInt8[np.ndarray, "images pixels"]]:
    """Read the arrays of chardata.mat: an image in each column, its pixels column by column, from 0 to 1."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        with path.open("rb") as stream:
            arrays = loadmat(stream, variable_names=list(MATLAB))
    except (*DAMAGED, IndexError, MatReadError, MemoryError, NotImplementedError, TypeError) as error:
        raise UsageError(f"{path} cannot be read as a MATLAB file ({one_line(error)}): {REPLACE}") from error
    found = []
    for name, images in MATLAB.items():
        shape, array = (SIDE * SIDE, images), np.asarray(arrays.get(name, ()))
        if array.shape != shape or array.dtype.kind not in "fiu":
            held = f"{array.dtype} of shape {array.shape}" if name in arrays else "nothing"
            raise UsageError(f"{path} holds {held} as {name}, not numbers of shape {shape}: {REPLACE}")
        if not ((array >= 0) & (array <= 1)).all():
            raise UsageError(f"{path} holds numbers as {name} that are not from 0 to 1: {REPLACE}")
        pixels = np.rint(255 * array).astype(np.uint8).T.reshape(images, SIDE, SIDE)
        found.append(pixels.transpose(0, 2, 1).reshape(images, SIDE * SIDE))
    return found


def _read_drawings(directory: Path) -> list[UInt8[np.ndarray, "images pixels"]]:
    """Read the PNG files in the splits that the module names."""
    sources = [_find(directory, part) for part in CHARACTERS]
    members = [_list(source, CHARACTERS[part]) for source, part in zip(sources, CHARACTERS, strict=True)]
    background, evaluation = map(_pixels, sources, members)
    is_last = np.array([name.endswith(f"_{DRAWINGS}.png") for name in members[0]])
    return [background[~is_last], background[is_last], evaluation]


def _find(directory: Path, part: str) -> Path:
    """The folder of a part of the PNG files, or else the archive, in the first place that has one."""
    for folder in FOLDERS:
        for source in (directory / folder / part, directory / folder / f"{part}.zip"):
            if source.exists():
                return source
    raise UsageError(
        f"{directory / FOLDERS[1]} holds neither chardata.mat nor {part}, and nothing is downloaded: put chardata.mat "
        f"there, or images_background.zip and images_evaluation.zip, or {POINT_TO_FILES}"
    )


def _list(source: Path, characters: int) -> list[str]:
    """Where the drawings of a folder or archive stand in it, by alphabet, character and drawing."""
    if source.is_dir():
        names = [path.relative_to(source).as_posix() for path in source.glob("*/character*/*.png")]
    else:
        try:
            with zipfile.ZipFile(source) as archive:
                names = archive.namelist()
        except DAMAGED as error:
            raise UsageError(f"{source} cannot be read as a zip file ({one_line(error)}): {REPLACE}") from error
    found = sorted((match for match in map(IMAGE.fullmatch, names) if match), key=lambda match: match.groups()[:3])
    drawings: dict[tuple[str, str], list[int]] = {}
    for match in found:
        drawings.setdefault((match[1], match[2]), []).append(int(match[4]))
    whole = list(range(1, DRAWINGS + 1))
    for (alphabet, character), numbers in drawings.items():
        if sorted(numbers) != whole:
            raise UsageError(f"{source} does not hold drawings 1 to {DRAWINGS} of {alphabet}/{character}: {REPLACE}")
    if len(drawings) != characters:
        raise UsageError(f"{source} holds {len(drawings)} characters, not {characters}: {REPLACE}")
    return [match[0] for match in found]


def _pixels(source: Path, members: list[str]) -> UInt8[np.ndarray, "images pixels"]:
    """The drawings of a folder or archive, decoded or kept from before."""
    files = [source / member for member in members] if source.is_dir() else [source]
    made_of = f"{SIDE} {source.resolve()}"
    return decoded("omniglot", made_of, files, (len(members), SIDE * SIDE), partial(_decode_all, source, members))


def _decode_all(source: Path, members: list[str]) -> UInt8[np.ndarray, "images pixels"]:
    """Decode drawings, bright on dark."""
    pixels = np.empty((len(members), SIDE * SIDE), dtype=np.uint8)
    archive = None if source.is_dir() else zipfile.ZipFile(source)
    try:
        for row, member in zip(pixels, members, strict=True):
            try:
                content = read_member(archive, member, LARGEST_IMAGE) if archive else (source / member).read_bytes()
                row[:] = 255 - _decode(content)
            except (*DAMAGED, SyntaxError, IndexError, TypeError, struct.error) as error:
                told = f"{source} holds {member}, which cannot be read as a drawing ({one_line(error)})"
                raise UsageError(f"{told}: {REPLACE}") from error
    finally:
        if archive:
            archive.close()
    return pixels


def _decode(content: bytes) -> UInt8[np.ndarray, "pixels"]:
    """Decode a PNG file into 28 x 28 pixels."""
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
        if opened.size != (DRAWN, DRAWN):
            raise ValueError(f"{opened.width} x {opened.height} pixels, not {DRAWN} x {DRAWN}")
        image = opened.convert("L")
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX)).ravel()
