"""Data sets against the bytes of their files, read here without torchvision, and against damage to them."""

import gzip
import hashlib
import io
import os
import shutil
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self
from urllib.error import URLError

import numpy as np
import pytest
import sklearn.datasets
import torch
import torchvision

from argmax_vae.data.datasets import DATASETS, is_present, load_dataset
from argmax_vae.data.images import Dataset
from data_checks import PACKED, assert_contract, message_of

PUBLISHED = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
FILES = {name: [f"{kind}/raw/train-images-idx3-ubyte.gz"] for name, kind in PUBLISHED.items()}
FILES |= {"binarized_mnist": [f"BinarizedMNIST/binarized_mnist_{part}.npy" for part in PACKED], "digits": []}
FILES |= {"celeba": ["CelebA/img64.zip"], "omniglot": ["Omniglot/chardata.mat"]}
LABEL_COUNTS = {
    "mnist": (
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    ),
    "fashion_mnist": ([6000] * 10, [1000] * 10),
}


def load_real(name: str) -> tuple[Dataset, Path]:
    """Load a data set from the files that ARGMAX_VAE_DATA names, or skip the test: never download."""
    directory = os.environ.get("ARGMAX_VAE_DATA")
    if FILES[name] and directory is None:
        pytest.skip("ARGMAX_VAE_DATA is not set")
    folder = Path(directory or ".")
    absent = [file for file in FILES[name] if not (folder / file).is_file()]
    if absent:
        pytest.skip(f"{folder} does not hold {', '.join(absent)}")
    return load_dataset(name, folder), folder


def read_idx(archive: Path) -> np.ndarray:
    """Read a gzipped idx file: big-endian magic (zero, type 8, dimensions), then the sizes, then bytes."""
    content = gzip.decompress(archive.read_bytes())
    zero, kind, dimensions = struct.unpack(">HBB", content[:4])
    assert (zero, kind) == (0, 8)
    sizes = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(sizes)


def write_idx(array: np.ndarray) -> bytes:
    """Return the bytes of an idx file that holds ``array``."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


# What is loaded


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.real_data] if FILES[name] else []) for name in DATASETS if name != "celeba"],
)
def test_registered_data_sets_keep_the_contract(name: str) -> None:
    """CelebA's, which takes long to decode, is seen where its labels are."""
    dataset, _ = load_real(name)
    assert_contract(name, dataset)


@pytest.mark.real_data
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_images_and_labels_are_the_bytes_of_the_archives(name: str) -> None:
    dataset, directory = load_real(name)
    raw = directory / PUBLISHED[name] / "raw"
    images = read_idx(raw / "train-images-idx3-ubyte.gz").reshape(60_000, 784)
    labels = read_idx(raw / "train-labels-idx1-ubyte.gz")
    assert dataset.train.labels is not None
    assert dataset.validation.labels is not None
    assert dataset.test.labels is not None
    assert np.array_equal(dataset.train.pixels, images[:50_000])
    assert np.array_equal(dataset.validation.pixels, images[50_000:])
    assert np.array_equal(dataset.train.labels, labels[:50_000])
    assert np.array_equal(dataset.validation.labels, labels[50_000:])
    assert np.array_equal(dataset.test.pixels, read_idx(raw / "t10k-images-idx3-ubyte.gz").reshape(10_000, 784))
    assert np.array_equal(dataset.test.labels, read_idx(raw / "t10k-labels-idx1-ubyte.gz"))
    counts = dataset.train.labels.bincount() + dataset.validation.labels.bincount()
    assert (counts.tolist(), dataset.test.labels.bincount().tolist()) == LABEL_COUNTS[name]


@pytest.mark.real_data
def test_binarized_pixels_have_the_intensities_of_mnist_as_frequencies() -> None:
    binarized, _ = load_real("binarized_mnist")
    mnist, _ = load_real("mnist")

    def frequencies(dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
        learned = torch.cat([dataset.train.pixels, dataset.validation.pixels])
        return (learned / 255).mean(dim=0), (dataset.test.pixels / 255).mean(dim=0)

    for sampled, intensity, images in zip(frequencies(binarized), frequencies(mnist), (60_000, 10_000), strict=True):
        assert (sampled - intensity).abs().max() < 5 * 0.5 / images**0.5


def test_digits_are_those_of_scikit_learn(tmp_path: Path) -> None:
    dataset = load_dataset("digits", tmp_path / "absent")
    shipped = sklearn.datasets.load_digits()
    splits = (dataset.train, dataset.validation, dataset.test)
    pixels = torch.cat([split.pixels for split in splits])
    labels = torch.cat([split.labels for split in splits if split.labels is not None])
    assert np.array_equal(labels, shipped.target)
    assert np.abs(pixels.numpy() / 255 - shipped.images.reshape(-1, 64) / 16).max() <= 0.5 / 255 + 1e-12
    assert np.array_equal(pixels >= 128, shipped.data >= 8)
    assert not (tmp_path / "absent").exists()


def test_the_digest_is_that_of_pixels_labels_and_splits() -> None:
    first, again = (load_dataset("digits", Path()) for _ in range(2))
    assert first.digest == again.digest
    assert {name: first.digest[name] for name in ("train", "validation", "test")} == {
        "train": 1200,
        "validation": 297,
        "test": 300,
    }
    again.test.pixels[0, 0] ^= 1
    other = replace(first, train=replace(first.train, labels=None))
    moved = replace(first, validation=first.test, test=first.validation)
    changed = replace(first, test=again.test)
    assert len({str(each.digest) for each in (first, other, moved, changed)}) == 4


# Names


def test_unknown_name_lists_the_allowed_and_the_nearest(tmp_path: Path) -> None:
    message = message_of("fashon_mnist", tmp_path)
    assert "'fashon_mnist'" in message
    assert all(name in message for name in DATASETS)
    assert message.endswith("nearest: fashion_mnist")


def test_importing_the_package_is_cheap() -> None:
    check = "import sys, argmax_vae.data; print(sorted({'torchvision', 'PIL', 'sklearn'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# The files of torchvision, in miniature: archives of the right shape with other images


@pytest.fixture(scope="module")
def archives() -> dict[str, bytes]:
    """Gzipped idx files in which image i starts with the two bytes of i and has label i modulo 10."""
    contents: dict[str, np.ndarray] = {}
    for part, images in (("train", 60_000), ("t10k", 10_000)):
        pixels = np.zeros((images, 28, 28), np.uint8)
        pixels[:, 0, 0], pixels[:, 0, 1] = np.divmod(np.arange(images), 256)
        contents[f"{part}-images-idx3-ubyte.gz"] = pixels
        contents[f"{part}-labels-idx1-ubyte.gz"] = (np.arange(images) % 10).astype(np.uint8)
    return {name: gzip.compress(write_idx(array), compresslevel=1, mtime=0) for name, array in contents.items()}


@pytest.fixture(params=PUBLISHED)
def name(request: pytest.FixtureRequest, archives: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Names of data sets whose published files are ``archives``, in a world without a network."""
    resources = [(archive, hashlib.md5(content).hexdigest()) for archive, content in archives.items()]
    monkeypatch.setattr(getattr(torchvision.datasets, PUBLISHED[request.param]), "resources", resources)

    def unreachable(*_: Any, **__: Any) -> None:
        raise URLError("no network\nhere")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    yield request.param


@pytest.fixture
def raw(name: str, archives: dict[str, bytes], tmp_path: Path) -> Iterator[Path]:
    """The folder that holds the archives, not extracted; emptied afterwards, for it grows to 60 MB."""
    folder = tmp_path / PUBLISHED[name] / "raw"
    folder.mkdir(parents=True)
    for archive, content in archives.items():
        (folder / archive).write_bytes(content)
    yield folder
    shutil.rmtree(folder)


class Response(io.BytesIO):
    """What ``urlopen`` answers: the bytes of the file that the address ends with."""

    def __init__(self, url: str, content: bytes) -> None:
        super().__init__(content)
        self.url = url
        self.length = len(content)

    def __enter__(self) -> Self:
        return self


def serve(archives: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put ``archives`` on the network and return the growing list of the addresses that are asked for."""
    asked: list[str] = []

    def answer(request: urllib.request.Request) -> Response:
        asked.append(request.full_url)
        return Response(request.full_url, archives[request.full_url.rpartition("/")[2]])

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    return asked


def assert_in_order(dataset: Dataset) -> None:
    """Check that train and validation are the first 50,000 and last 10,000 images, and test is whole."""
    for split, first, images in (
        (dataset.train, 0, 50_000),
        (dataset.validation, 50_000, 10_000),
        (dataset.test, 0, 10_000),
    ):
        numbers = torch.arange(first, first + images)
        assert split.labels is not None
        assert torch.equal(split.pixels[:, 0].long() * 256 + split.pixels[:, 1], numbers)
        assert torch.equal(split.labels, numbers % 10)


def test_archives_are_extracted_once(name: str, raw: Path, archives: dict[str, bytes], tmp_path: Path) -> None:
    assert_in_order(load_dataset(name, tmp_path))
    files = {path.name for path in raw.iterdir()}
    assert files == {*archives, *(archive.removesuffix(".gz") for archive in archives)}
    for archive in raw.glob("*.gz"):
        archive.unlink()
    assert_in_order(load_dataset(name, tmp_path))


def test_absent_files_are_downloaded_silently(
    name: str,
    archives: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    serve(archives, monkeypatch)
    directory = tmp_path / "not" / "there"
    assert_in_order(load_dataset(name, directory))
    assert tuple(capfd.readouterr()) == ("", "")
    folder = directory / PUBLISHED[name] / "raw"
    assert {path.name: path.read_bytes() for path in folder.glob("*.gz")} == archives
    shutil.rmtree(directory)


def test_without_network_the_message_says_where_and_what_to_do(name: str, tmp_path: Path) -> None:
    message = message_of(name, tmp_path)
    folder = tmp_path / PUBLISHED[name] / "raw"
    assert str(folder) in message
    assert all(part in message for part in ("download", "no network", "paths.data=DIR", "ARGMAX_VAE_DATA"))
    assert list(tmp_path.iterdir()) == [], "a directory that was mistyped is not left behind"


def test_damaged_archive_is_named_and_left_alone_without_network(
    name: str, raw: Path, archives: dict[str, bytes], tmp_path: Path
) -> None:
    archive = raw / "t10k-images-idx3-ubyte.gz"
    archive.write_bytes(archives[archive.name][:-100])
    message = message_of(name, tmp_path)
    assert str(raw) in message
    assert f"delete {archive.name} " in message
    assert {path.name for path in raw.iterdir()} == set(archives)
    archive.write_bytes(archives[archive.name])
    assert_in_order(load_dataset(name, tmp_path))


def test_damaged_archive_alone_is_downloaded_anew(
    name: str, raw: Path, archives: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = serve(archives, monkeypatch)
    archive = raw / "train-labels-idx1-ubyte.gz"
    archive.write_bytes(b"half")
    assert_in_order(load_dataset(name, tmp_path))
    assert {url.rpartition("/")[2] for url in asked} == {archive.name}
    assert archive.read_bytes() == archives[archive.name]


@pytest.mark.parametrize("archive", ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-1], id="truncated"),
        pytest.param(lambda content: content + b"\0", id="too long"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content[:6], id="half a header"),
        pytest.param(lambda content: b"<html>" + content[6:], id="not idx"),
        pytest.param(lambda content: b"\0\0\x0a\x01" + content[4:], id="unknown type"),
        pytest.param(lambda content: write_idx(np.zeros((5, 28, 28), np.uint8)), id="five images"),
        pytest.param(lambda content: write_idx(np.zeros(5, np.uint8)), id="five labels"),
    ],
)
def test_damaged_extracted_file_is_named(
    damage: Callable[[bytes], bytes], archive: str, archives: dict[str, bytes], tmp_path: Path
) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for present, content in archives.items():
        (raw / present).with_suffix("").write_bytes(gzip.decompress(content))
    path = (raw / archive).with_suffix("")
    path.write_bytes(damage(path.read_bytes()))
    message = message_of("mnist", tmp_path)
    shutil.rmtree(raw)
    assert message.startswith(f"{path} ")
    assert message.endswith("delete it and run again")


def test_deleting_a_damaged_extracted_file_helps(name: str, raw: Path, tmp_path: Path) -> None:
    load_dataset(name, tmp_path)
    damaged = raw / "train-images-idx3-ubyte"
    damaged.write_bytes(b"half")
    assert str(damaged) in message_of(name, tmp_path)
    damaged.unlink()
    assert_in_order(load_dataset(name, tmp_path))


def test_interrupted_extraction_leaves_nothing_behind(
    name: str, raw: Path, archives: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: str, to_path: str, *__: Any) -> None:
        for archive in archives:
            (Path(to_path) / archive).with_suffix("").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torchvision.datasets.utils, "extract_archive", interrupted)
        load_dataset(name, tmp_path)
    assert {path.name for path in raw.iterdir()} == set(archives)
    assert_in_order(load_dataset(name, tmp_path))


def test_directory_that_cannot_be_made_is_named(name: str, tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("no directory")
    message = message_of(name, occupied)
    assert message.startswith(f"data directory {occupied} ")
    assert "paths.data=DIR" in message


def test_directory_that_cannot_be_written_is_named(
    name: str, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refused)
    message = message_of(name, tmp_path)
    assert message.startswith(f"data directory {tmp_path} ")
    assert "Permission denied" in message


def test_what_is_there_needs_no_download(name: str, raw: Path, archives: dict[str, bytes], tmp_path: Path) -> None:
    assert not is_present(name, tmp_path)
    for archive in archives:
        (raw / archive).with_suffix("").touch()
    assert is_present(name, tmp_path)
    assert is_present("digits", tmp_path / "nowhere")
    assert not is_present("celeba", tmp_path / "nowhere")
