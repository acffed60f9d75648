"""CelebA (Liu et al. 2015): faces as 64 x 64 colour images, labelled by a combination of binary attributes.

The images are the first of these that is found below the data directory, each with ``list_attr_celeba.txt`` (or
``list_attr_celeba.zip`` around it) and ``list_eval_partition.txt`` beside it:

| images | what they are |
|---|---|
| ``celeba/img_align_celeba/*.jpg`` | the full set where ``torchvision.datasets.CelebA`` extracts it |
| ``CelebA/img64.zip`` | JPEG files, as a rule a subset at 64 x 64 |
| ``CelebA/img64/*.jpg``, ``CelebA/img_align_celeba/*.jpg`` | the same, extracted |

torchvision's own class is not used: it insists on three more files, of which nothing is needed here, and on the
md5 of each. Decoded pixels are kept in the user's cache directory, so that only the first call decodes.
"""

import contextlib
import difflib
import io
import itertools
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from argmax_vae.data.decoded import DAMAGED, decoded, read_member
from argmax_vae.data.images import POINT_TO_FILES, Dataset, Images, one_line
from argmax_vae.errors import UsageError

ATTRIBUTES = ("Eyeglasses", "Smiling", "Male")
"""What the images of the paper's Figure 4 differ in: with or without glasses, smiling or not, man or woman."""

SIDE, CROP = 64, 148
"""Height and width of an image, and of the central square of a larger one that is scaled down to it."""

LARGEST_TEXT, LARGEST_IMAGE, LARGEST_AREA = 2**28, 2**26, 2**26
"""Bytes of the attributes' file and of an image, and an image's pixels; the official ones have a fraction of that."""

SOURCES = ("celeba/img_align_celeba", "CelebA/img64.zip", "CelebA/img64", "CelebA/img_align_celeba")
IMAGE = re.compile(r"(?:.*/)?((\d+)\.jpg)")
SPLITS = ("train", "validation", "test")
REPLACE = "put a whole copy in its place"


def load_celeba(directory: Path, attributes: Sequence[str]) -> Dataset:
    """Load the images of CelebA that are found below ``directory``, in the splits of the official partition.

    Pixels are flattened channel by channel, row by row, and each split follows the image numbers. The label is
    the number whose binary digits are the ``attributes``, the first in the highest bit: ``combination_names``
    lists what the labels mean. An image that is not 64 x 64 is reduced to its central square of side 148, or of
    its shorter side if that is less, and scaled (bilinear, antialiased).

    Raises ``UsageError`` for attributes that are unknown, repeated or none at all, and for files that are
    missing, damaged or do not fit together.
    """
    if not attributes:
        raise UsageError(f"celeba needs at least one attribute, for example {', '.join(ATTRIBUTES)}; none is given")
    try:
        source = _find(directory)
        names, members = _list(source)
        labels = _labels(source.parent, names, attributes)
        partition = _partition(source, names)
        pixels = _pixels(source, members)
    except OSError as error:
        raise UsageError(
            f"{error.filename or directory} cannot be read ({one_line(error)}): make it readable, or {POINT_TO_FILES}"
        ) from error
    order = np.argsort(partition, kind="stable")
    if (np.diff(order) < 0).any():  # not so for the official partition, and its pixels take gigabytes
        pixels, labels = pixels[order], labels[order]
    sizes = np.bincount(partition, minlength=len(SPLITS)).tolist()
    train, validation, test = map(Images, torch.from_numpy(pixels).split(sizes), torch.from_numpy(labels).split(sizes))
    return Dataset("celeba", (3, SIDE, SIDE), train, validation, test, binary=False)


def combination_names(attributes: Sequence[str]) -> list[str]:
    """Return what each label means, in the order of the labels: 2 is "no Eyeglasses, Smiling, no Male"."""
    names = [attribute.replace("_", " ") for attribute in attributes]
    return [", ".join(words) for words in itertools.product(*((f"no {name}", name) for name in names))]


def _find(directory: Path) -> Path:
    """Return the first of ``SOURCES`` that is there: an archive, or a folder with images in it."""
    for source in (directory / name for name in SOURCES):
        if source.is_file() if source.suffix == ".zip" else any(source.glob("[0-9]*.jpg")):
            return source
    folder = directory / "CelebA"
    raise UsageError(
        f"{folder} {'holds no images' if folder.is_dir() else 'is missing'} and cannot be downloaded: put img64.zip, "
        f"img64/*.jpg or img_align_celeba/*.jpg there, or {POINT_TO_FILES}"
    )


def _list(source: Path) -> tuple[list[str], list[str]]:
    """Return the images of an archive or folder in order: their names, and where they stand in ``source``."""
    if source.suffix == ".zip":
        try:
            with zipfile.ZipFile(source) as archive:
                found = archive.namelist()
        except DAMAGED as error:
            raise UsageError(f"{source} cannot be read as a zip file ({one_line(error)}): {REPLACE}") from error
    else:
        found = [path.name for path in source.iterdir()]
    images = sorted((match for match in map(IMAGE.fullmatch, found) if match), key=lambda match: int(match[2]))
    if not images:
        raise UsageError(f"{source} holds no images: put *.jpg there, numbered as the official files are")
    return [match[1] for match in images], [match[0] for match in images]


def _labels(folder: Path, names: list[str], attributes: Sequence[str]) -> Int64[np.ndarray, "images"]:
    """Read the attributes of the images ``names`` and return which combination each image shows."""
    text, archive = folder / "list_attr_celeba.txt", folder / "list_attr_celeba.zip"
    path = text if text.exists() or not archive.exists() else archive
    try:
        if path == text:
            content = text.read_bytes()
        else:
            with zipfile.ZipFile(archive) as opened:
                content = read_member(opened, text.name, LARGEST_TEXT)
    except FileNotFoundError as error:
        raise UsageError(f"{text} or {archive.name} is missing: put one there, or {POINT_TO_FILES}") from error
    except DAMAGED as error:
        raise UsageError(f"{path} cannot be read ({one_line(error)}): {REPLACE}") from error
    count, header, *rows = [*content.decode("ascii", errors="replace").splitlines(), "", ""]
    known = header.split()
    if not count.strip().isdigit() or not known:
        raise UsageError(f"{path} is damaged, it does not start with a number and names of attributes: {REPLACE}")
    for attribute in attributes:
        if attribute not in known:
            nearest = difflib.get_close_matches(attribute, known, n=1, cutoff=0)[0]
            raise UsageError(f"unknown attribute {attribute!r}; {path} has {len(known)}; nearest: {nearest}")
        if list(attributes).count(attribute) > 1:
            raise UsageError(f"attribute {attribute!r} of celeba is given twice: give every attribute once")
    values = _look_up(path, rows, names, len(known), [known.index(attribute) for attribute in attributes], {"-1", "1"})
    return (values > 0) @ 2 ** np.arange(len(attributes))[::-1]


def _partition(source: Path, names: list[str]) -> Int64[np.ndarray, "images"]:
    """Read which of ``SPLITS`` each of the images ``names`` is in, and insist that none is empty."""
    path = source.parent / "list_eval_partition.txt"
    if not path.exists():
        raise UsageError(f"{path} is missing: put the official partition there, or {POINT_TO_FILES}")
    rows = path.read_text(encoding="ascii", errors="replace").splitlines()
    partition = _look_up(path, rows, names, 1, [0], {"0", "1", "2"})[:, 0]
    for number, split in enumerate(SPLITS):
        if number not in partition:
            raise UsageError(f"{source} holds no {split} image ({number} in {path.name}): add images of every split")
    return partition


def _look_up(
    path: Path, rows: Iterable[str], names: list[str], width: int, columns: list[int], allowed: set[str]
) -> Int64[np.ndarray, "images columns"]:
    """Return the ``columns`` of those ``rows`` (an image's name, then ``width`` fields) that are about ``names``."""
    found: dict[str, list[int]] = {}
    wanted = set(names)
    for row in rows:
        name, _, rest = row.partition(" ")
        if name in wanted:
            fields = rest.split()
            if len(fields) != width or not allowed.issuperset(fields):
                expected = f"{width} of {', '.join(sorted(allowed))}"
                raise UsageError(f"{path} is damaged, the row of {name} does not hold {expected}: {REPLACE}")
            found[name] = [int(fields[column]) for column in columns]
    absent = [name for name in names if name not in found]
    if absent:
        raise UsageError(
            f"{path} has no row for {absent[0]} (images without: {len(absent)}): put the official file in its place"
        )
    return np.array([found[name] for name in names], dtype=np.int64)


def _pixels(source: Path, members: list[str]) -> UInt8[np.ndarray, "images pixels"]:
    """Return the decoded images from the cache or, where it does not hold them, decode and try to cache them."""
    files = [source] if source.suffix == ".zip" else [source / member for member in members]
    made_of, shape = f"{SIDE} {CROP} {source.resolve()}", (len(members), 3 * SIDE * SIDE)
    return decoded("celeba", made_of, files, shape, lambda: _decode_all(source, members))


def _decode_all(source: Path, members: list[str]) -> UInt8[np.ndarray, "images pixels"]:
    """Decode the ``members`` of an archive or folder."""
    from PIL import Image

    pixels = np.empty((len(members), 3 * SIDE * SIDE), dtype=np.uint8)
    with zipfile.ZipFile(source) if source.suffix == ".zip" else contextlib.nullcontext() as archive:
        for row, member in zip(pixels, members, strict=True):
            try:
                content = read_member(archive, member, LARGEST_IMAGE) if archive else (source / member).read_bytes()
                row[:] = _decode(content)
            except (*DAMAGED, Image.DecompressionBombError) as error:
                raise UsageError(
                    f"{source} holds {member}, which cannot be read as a JPEG image ({one_line(error)}): {REPLACE}"
                ) from error
    return pixels


def _decode(content: bytes) -> UInt8[np.ndarray, "pixels"]:
    """Decode a JPEG file into 64 x 64 pixels, channel by channel."""
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=["JPEG"]) as opened:
        if opened.width * opened.height > LARGEST_AREA:
            raise ValueError(f"{opened.width} x {opened.height} pixels, at most {LARGEST_AREA} are read")
        image = opened.convert("RGB")
    if image.size != (SIDE, SIDE):
        side = min(CROP, *image.size)
        left, top = (round((length - side) / 2) for length in image.size)
        cropped = image.crop((left, top, left + side, top + side))
        image = cropped.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1).ravel()
