"""What every data set keeps, what is said of one that cannot be loaded, and bytes of npy files."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from argmax_vae.data.datasets import DATASETS, load_dataset
from argmax_vae.data.images import Dataset
from argmax_vae.errors import UsageError

SIZES = dict.fromkeys(DATASETS, (50_000, 10_000, 10_000)) | {"digits": (1200, 297, 300)}
SIZES |= {"celeba": (20_000, 2_000, 2_000)}  # of the subset in img64.zip
SIZES |= {"omniglot": (23_000, 1_345, 8_070)}  # of chardata.mat
CLASSES = dict.fromkeys(DATASETS, 10) | {"celeba": 8}
PACKED = ("train", "valid", "test")
"""Parts of Binarized MNIST, as its files name them."""


def assert_contract(name: str, dataset: Dataset) -> None:
    """Assert that a data set has the sizes, types, values and classes that its name promises."""
    splits = (dataset.train, dataset.validation, dataset.test)
    assert dataset.name == name
    assert tuple(len(split.pixels) for split in splits) == SIZES[name]
    for split in splits:
        assert split.pixels.dtype == torch.uint8
        assert split.pixels.shape[1] == np.prod(dataset.shape)
        assert (split.pixels.min(), split.pixels.max()) == (0, 255)
        assert bool(((split.pixels == 0) | (split.pixels == 255)).all()) == dataset.binary
        if split.labels is not None:
            assert split.labels.dtype == torch.int64
            assert split.labels.unique().tolist() == list(range(CLASSES[name]))


def message_of(name: str, directory: Path, attributes: Sequence[str] | None = None) -> str:
    """Return the message of the usage error that loading raises, which must be one line."""
    with pytest.raises(UsageError) as caught:
        load_dataset(name, directory, attributes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def saved(array: np.ndarray, **options: Any) -> bytes:
    """Return the bytes of a npy file."""
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()
