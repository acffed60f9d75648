"""Binarized MNIST from files of packed bits that are made here: bits become pixels, and damage is named."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from argmax_vae.data import mnist
from argmax_vae.data.datasets import load_dataset
from data_checks import PACKED, SIZES, message_of, saved


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A folder of packed files in which image i is the 32 bits of i and zeros."""
    folder = tmp_path / "BinarizedMNIST"
    folder.mkdir()
    for part, images in zip(PACKED, SIZES["binarized_mnist"], strict=True):
        content = np.zeros((images, 98), np.uint8)
        content[:, :4] = np.arange(images, dtype=">u4").view(np.uint8).reshape(images, 4)
        np.save(folder / f"binarized_mnist_{part}.npy", content)
    return folder


def test_packed_bits_become_pixels(packed: Path, tmp_path: Path) -> None:
    dataset = load_dataset("binarized_mnist", tmp_path)
    assert dataset.binary
    for split, images in zip((dataset.train, dataset.validation, dataset.test), SIZES[dataset.name], strict=True):
        assert split.labels is None
        assert split.pixels.shape == (images, 784)
        for number in (0, 1, 5, images - 1):
            expected = [255 * int(bit) for bit in f"{number:032b}"] + [0] * 752
            assert split.pixels[number].tolist() == expected


def object_array() -> bytes:
    """Return a npy file that only unpickling could read."""
    stream = io.BytesIO()
    np.save(stream, np.array([{}], dtype=object), allow_pickle=True)
    return stream.getvalue()


def archive_of_arrays() -> bytes:
    """Return a npz file under a name that promises npy."""
    stream = io.BytesIO()
    np.savez(stream, np.zeros(1))
    return stream.getvalue()


@pytest.mark.parametrize("part", PACKED)
@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        pytest.param(lambda content: content[:-1], "damaged", id="truncated"),
        pytest.param(lambda content: content[:50], "damaged", id="half a header"),
        pytest.param(lambda content: content.replace(b"}", b"("), "damaged", id="open bracket in header"),
        pytest.param(lambda content: b"", "damaged", id="empty"),
        pytest.param(lambda content: b"<html></html>", "damaged", id="not npy"),
        pytest.param(lambda content: b"PK\x03\x04", "damaged", id="half a zip"),
        pytest.param(lambda content: object_array(), "damaged", id="pickle"),
        pytest.param(lambda content: archive_of_arrays(), "damaged", id="npz"),
        pytest.param(lambda content: saved(np.zeros((5, 98), np.uint8)), "(5, 98)", id="five images"),
        pytest.param(lambda content: saved(np.zeros((10_000, 98), np.int8)), "int8", id="wrong type"),
    ],
)
def test_damaged_packed_file_is_named(
    damage: Callable[[bytes], bytes], finding: str, part: str, packed: Path, tmp_path: Path
) -> None:
    path = packed / f"binarized_mnist_{part}.npy"
    path.write_bytes(damage(path.read_bytes()))
    message = message_of("binarized_mnist", tmp_path)
    assert message.startswith(f"{path} ")
    assert finding in message
    assert "delete it" in message


def test_npy_file_that_promises_more_than_it_holds_is_refused_before_it_is_read(packed: Path, tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (10**15, 98)})
    (packed / "binarized_mnist_test.npy").write_bytes(stream.getvalue())
    assert "holds uint8 of shape (1000000000000000, 98), not uint8 of" in message_of("binarized_mnist", tmp_path)


@pytest.mark.parametrize("part", PACKED)
def test_missing_packed_file_is_named(part: str, packed: Path, tmp_path: Path) -> None:
    path = packed / f"binarized_mnist_{part}.npy"
    path.unlink()
    message = message_of("binarized_mnist", tmp_path)
    assert message.startswith(f"{path} is missing")
    assert "ARGMAX_VAE_DATA" in message


def test_unreadable_packed_file_is_named(packed: Path, tmp_path: Path) -> None:
    path = packed / "binarized_mnist_test.npy"
    path.unlink()
    path.mkdir()
    assert message_of("binarized_mnist", tmp_path).startswith(f"{path} cannot be read")


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_packed_array_is_read_in_either_order(order: Literal["C", "F"], tmp_path: Path) -> None:
    """numpy writes an array by rows or by columns, and the header says which."""
    expected = np.random.default_rng(0).integers(256, size=(7, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", np.asarray(expected, order=order))
    with (tmp_path / "a.npy").open("rb") as stream:
        assert np.array_equal(mnist.read_npy(stream, (7, 3)), expected)
