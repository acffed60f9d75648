"""Images in memory: a split, and a data set of three."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Int64, UInt8
from torch import Tensor

POINT_TO_FILES = "point to existing files by paths.data=DIR or the environment variable ARGMAX_VAE_DATA"


@dataclass(frozen=True)
class Images:
    """One split: pixels from 0 to 255, flattened row by row, and the class of each image where known.

    The channels of a colour image follow each other, each flattened row by row.
    """

    pixels: UInt8[Tensor, "images pixels"]
    labels: Int64[Tensor, "images"] | None


@dataclass(frozen=True)
class Dataset:
    """A data set in its three splits.

    ``shape`` is (channels, height, width), with channels * height * width pixels an image; ``binary`` tells
    that every pixel is 0 or 255 already.
    """

    name: str
    shape: tuple[int, int, int]
    train: Images
    validation: Images
    test: Images
    binary: bool

    @cached_property
    def digest(self) -> dict[str, int | str]:
        """The images of each split, and the start of the SHA-256 of all pixels and labels."""
        found = hashlib.sha256()
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        for split in splits.values():
            for tensor in (split.pixels, split.labels):
                if tensor is not None:
                    found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                    found.update(tensor.contiguous().numpy().data)
        return {**{name: len(split.pixels) for name, split in splits.items()}, "sha256": found.hexdigest()[:16]}


def one_line(error: Exception) -> str:
    """Return the message of ``error`` on one line."""
    return " ".join(str(error).split())
