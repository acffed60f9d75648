"""Images in memory: a split, and a data set of three."""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property

import torch
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

    def fault(self) -> str:
        """What is wrong with the images or labels of a split, in one line; empty when nothing is."""
        size = math.prod(self.shape) if len(self.shape) == 3 else 0
        if size < 1:
            return f"shape {self.shape} must be (channels, height, width)"
        for name in ("train", "validation", "test"):
            pixels, labels = getattr(self, name).pixels, getattr(self, name).labels
            found = f"{pixels.dtype} {tuple(pixels.shape)}"
            if pixels.dtype != torch.uint8 or pixels.ndim != 2 or pixels.shape[1] != size or not len(pixels):
                return f"pixels of {name} must be torch.uint8 (images, {size}) with an image at least, not {found}"
            if self.binary and not ((pixels == 0) | (pixels == 255)).all():
                return f"pixels of {name} must be 0 or 255 with binary=True"
            if labels is not None:
                found = f"{labels.dtype} {tuple(labels.shape)}"
                if labels.dtype != torch.int64 or labels.shape != pixels.shape[:1] or labels.min() < 0:
                    return f"labels of {name} must be torch.int64 ({len(pixels)},) from 0 on, not {found}"
        return ""

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
