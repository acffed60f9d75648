"""Folders of CelebA in the official formats, with twelve small images."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

HEADER = ["Bald", "Eyeglasses", "Male", "Smiling", "Young"]
FACES = {
    # number: (partition, row of HEADER, label by Eyeglasses, Smiling, Male)
    "000003.jpg": (0, "-1 -1 -1 -1  1", 0),
    "000004.jpg": (2, "-1 -1  1 -1 -1", 1),
    "000007.jpg": (0, " 1 -1 -1  1  1", 2),
    "000010.jpg": (1, "-1 -1  1  1 -1", 3),
    "000021.jpg": (0, "-1  1 -1 -1  1", 4),
    "000100.jpg": (2, "-1  1  1 -1 -1", 5),
    "000110.jpg": (0, "-1  1 -1  1  1", 6),
    "001234.jpg": (1, " 1  1  1  1 -1", 7),
    "020000.jpg": (0, "-1 -1  1 -1  1", 1),
    "100000.jpg": (2, "-1 -1 -1 -1 -1", 0),
    "162771.jpg": (1, "-1 -1 -1  1  1", 2),
    "202599.jpg": (0, "-1  1 -1 -1 -1", 4),
}


def jpegs(width: int = 64, height: int = 64, mode: str = "RGB") -> dict[str, bytes]:
    """Return a random JPEG file for each of ``FACES``, coarse enough to survive the compression."""
    random = np.random.default_rng(20190226)
    files = {}
    for name in FACES:
        small = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).convert(mode)
        stream = io.BytesIO()
        small.resize((width, height)).save(stream, "JPEG")
        files[name] = stream.getvalue()
    return files


def attribute_rows() -> list[str]:
    """Return the lines of the attribute file, ending as the official ones do."""
    return [str(len(FACES)), " ".join(HEADER) + " ", *(f"{name} {row}" for name, (_, row, _) in FACES.items())]


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write a text file."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")


def write_tables(folder: Path) -> None:
    """Write the attribute file and the partition file of ``FACES``."""
    folder.mkdir(exist_ok=True)
    write_lines(folder / "list_attr_celeba.txt", attribute_rows())
    write_lines(folder / "list_eval_partition.txt", [f"{name} {part}" for name, (part, _, _) in FACES.items()])


def write_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Write extracted images."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    """Write an archive whose members are not in the order of their names."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in reversed(files.items()):
            archive.writestr(name, content)
