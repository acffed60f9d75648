"""CelebA against Pillow, torchvision and labels coded by hand, on small folders in the official formats."""

import io
import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms import v2

from argmax_vae.data import celeba
from argmax_vae.data.celeba import ATTRIBUTES, combination_names
from argmax_vae.data.datasets import load_dataset
from argmax_vae.data.images import Dataset
from celeba_folder import FACES, HEADER, jpegs, write_folder, write_lines, write_tables, write_zip
from data_checks import assert_contract, saved

pytestmark = pytest.mark.usefixtures("cache")

NAMES = (
    ["000003.jpg", "000007.jpg", "000021.jpg", "000110.jpg", "020000.jpg", "202599.jpg"],
    ["000010.jpg", "001234.jpg", "162771.jpg"],
    ["000004.jpg", "000100.jpg", "100000.jpg"],
)
TABLE = [
    *("no Eyeglasses, no Smiling, no Male", "no Eyeglasses, no Smiling, Male"),
    *("no Eyeglasses, Smiling, no Male", "no Eyeglasses, Smiling, Male"),
    *("Eyeglasses, no Smiling, no Male", "Eyeglasses, no Smiling, Male"),
    *("Eyeglasses, Smiling, no Male", "Eyeglasses, Smiling, Male"),
]


def splits(dataset: Dataset) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return pixels and labels of the three splits."""
    found = [(split.pixels, split.labels) for split in (dataset.train, dataset.validation, dataset.test)]
    return [(pixels, labels) for pixels, labels in found if labels is not None]


def same(first: Dataset, second: Dataset) -> bool:
    """Whether two data sets hold the same images and labels."""
    return all(
        torch.equal(*pair)
        for both in zip(splits(first), splits(second), strict=True)
        for pair in zip(*both, strict=True)
    )


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test fail where an image is decoded."""

    def decode(_: bytes) -> Any:
        raise AssertionError("decoded although the cache holds the pixels")

    monkeypatch.setattr(celeba, "_decode", decode)


# What is loaded


def test_pixels_are_those_of_pillow_channel_by_channel(folder: Path) -> None:
    dataset = load_dataset("celeba", folder.parent)
    assert (dataset.name, dataset.shape, dataset.binary) == ("celeba", (3, 64, 64), False)
    files = jpegs()
    for (pixels, labels), names in zip(splits(dataset), NAMES, strict=True):
        assert (pixels.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert pixels.shape == (len(names), 3 * 64 * 64)
        for row, name in zip(pixels, names, strict=True):
            with Image.open(io.BytesIO(files[name])) as image:
                for channel, plane in zip(row.reshape(3, 64, 64), image.split(), strict=True):
                    assert np.array_equal(channel, plane)


def test_labels_are_those_coded_by_hand(folder: Path) -> None:
    dataset = load_dataset("celeba", folder.parent)
    assert [labels.tolist() for _, labels in splits(dataset)] == [[FACES[name][2] for name in part] for part in NAMES]


@pytest.mark.parametrize("attributes", [("Male",), ("Young", "Bald"), tuple(HEADER), ("Male", "Smiling", "Eyeglasses")])
def test_labels_name_the_combination_of_the_attributes(folder: Path, attributes: tuple[str, ...]) -> None:
    names = combination_names(attributes)
    for (_, labels), part in zip(splits(load_dataset("celeba", folder.parent, attributes)), NAMES, strict=True):
        for label, name in zip(labels.tolist(), part, strict=True):
            shown = dict(zip(HEADER, FACES[name][1].split(), strict=True))
            assert names[label] == ", ".join(word if shown[word] == "1" else f"no {word}" for word in attributes)


def test_combinations_are_named_in_the_order_of_labels() -> None:
    assert combination_names(ATTRIBUTES) == TABLE
    assert combination_names(["Wearing_Hat"]) == ["no Wearing Hat", "Wearing Hat"]


def test_splits_are_those_of_the_partition_and_share_no_image(folder: Path) -> None:
    images = [row.numpy().tobytes() for pixels, _ in splits(load_dataset("celeba", folder.parent)) for row in pixels]
    assert [FACES[name][0] for part in NAMES for name in part] == [0] * 6 + [1] * 3 + [2] * 3
    assert len(set(images)) == len(images) == len(FACES)


def test_consecutive_splits_hold_the_same_images(folder: Path) -> None:
    spread = torch.cat([pixels for pixels, _ in splits(load_dataset("celeba", folder.parent))])
    numbers = {name: number for number, name in enumerate(name for part in NAMES for name in part)}
    write_lines(
        folder / "list_eval_partition.txt", [f"{name} {min(row // 5, 2)}" for row, name in enumerate(sorted(FACES))]
    )
    found = splits(load_dataset("celeba", folder.parent))
    assert [len(pixels) for pixels, _ in found] == [5, 5, 2]
    assert torch.equal(torch.cat([pixels for pixels, _ in found]), spread[[numbers[name] for name in sorted(FACES)]])
    assert torch.cat([labels for _, labels in found]).tolist() == [FACES[name][2] for name in sorted(FACES)]


def test_only_the_images_that_are_present_are_used(folder: Path) -> None:
    present = {name: content for name, content in jpegs().items() if name not in ("000003.jpg", "100000.jpg")}
    write_zip(folder / "img64.zip", present)
    assert [len(pixels) for pixels, _ in splits(load_dataset("celeba", folder.parent))] == [5, 3, 2]


# Where it is found


@pytest.mark.parametrize("place", ["CelebA/img64", "CelebA/img_align_celeba", "celeba/img_align_celeba"])
def test_folder_gives_what_the_archive_gives(folder: Path, place: str, tmp_path: Path) -> None:
    expected = load_dataset("celeba", folder.parent)
    images = tmp_path / "extracted" / place
    images.parent.parent.mkdir()
    write_tables(images.parent)
    write_folder(images, jpegs())
    (images / "Thumbs.db").write_bytes(b"no image")
    (images / "._000003.jpg").write_bytes(b"no image")
    assert same(load_dataset("celeba", tmp_path / "extracted"), expected)


def test_archive_may_hold_its_folder_and_the_attributes_may_be_an_archive(folder: Path) -> None:
    expected = load_dataset("celeba", folder.parent)
    write_zip(folder / "img64.zip", {f"img64/{name}": content for name, content in jpegs().items()})
    text = folder / "list_attr_celeba.txt"
    with zipfile.ZipFile(folder / "list_attr_celeba.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(text, text.name)
    text.unlink()
    assert same(load_dataset("celeba", folder.parent), expected)


def test_layout_of_torchvision_gives_what_its_class_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "celeba"
    write_tables(root)
    write_folder(root / "img_align_celeba", jpegs(178, 218))
    dataset = load_dataset("celeba", tmp_path)
    numbers = " ".join(["0"] * 10)
    write_lines(root / "identity_CelebA.txt", [f"{name} 1" for name in FACES])
    for table in ("list_bbox_celeba.txt", "list_landmarks_align_celeba.txt"):
        write_lines(root / table, [str(len(FACES)), "names", *(f"{name} {numbers}" for name in FACES)])
    monkeypatch.setattr(torchvision.datasets.CelebA, "_check_integrity", lambda _: True)
    reduce = v2.Compose([v2.CenterCrop(148), v2.Resize((64, 64), antialias=True), v2.PILToTensor()])
    for (pixels, labels), split in zip(splits(dataset), ("train", "valid", "test"), strict=True):
        expected = torchvision.datasets.CelebA(tmp_path, split, transform=reduce)
        columns = [expected.attr_names.index(name) for name in ATTRIBUTES]
        assert torch.equal(pixels, torch.stack([image.flatten() for image, _ in expected]))
        assert torch.equal(labels, torch.stack([row[columns] for _, row in expected]) @ torch.tensor([4, 2, 1]))


def test_full_set_is_preferred(folder: Path, tmp_path: Path) -> None:
    write_tables(tmp_path / "celeba")
    write_folder(tmp_path / "celeba" / "img_align_celeba", dict.fromkeys(FACES, jpegs()["000003.jpg"]))
    pixels = torch.cat([pixels for pixels, _ in splits(load_dataset("celeba", tmp_path))])
    assert len(pixels.unique(dim=0)) == 1


@pytest.mark.parametrize("size", [(148, 148), (179, 217), (64, 65), (96, 128)], ids=str)
def test_other_sizes_are_cropped_and_scaled(folder: Path, size: tuple[int, int]) -> None:
    write_zip(folder / "img64.zip", jpegs(*size))
    reduce = v2.Compose([v2.CenterCrop(min(148, *size)), v2.Resize((64, 64), antialias=True), v2.PILToTensor()])
    (pixels, _), *_ = splits(load_dataset("celeba", folder.parent))
    for row, name in zip(pixels, NAMES[0], strict=True):
        with Image.open(io.BytesIO(jpegs(*size)[name])) as image:
            assert torch.equal(row, reduce(image).flatten())


def test_grey_images_get_three_equal_channels(folder: Path) -> None:
    write_zip(folder / "img64.zip", jpegs(mode="L"))
    for pixels, _ in splits(load_dataset("celeba", folder.parent)):
        first, second, third = pixels.reshape(-1, 3, 64 * 64).unbind(dim=1)
        assert torch.equal(first, second)
        assert torch.equal(first, third)


# The cache


@pytest.mark.parametrize("extracted", [False, True], ids=["archive", "folder"])
def test_second_call_decodes_nothing(
    extracted: bool, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if extracted:
        (folder / "img64.zip").unlink()
        write_folder(folder / "img64", jpegs())
    expected = load_dataset("celeba", folder.parent)
    (kept,) = cache.iterdir()
    assert np.load(kept, allow_pickle=False).shape == (12, 12288)
    forbid_decoding(monkeypatch)
    assert same(load_dataset("celeba", folder.parent), expected)
    monkeypatch.chdir(folder.parent)
    assert same(load_dataset("celeba", Path()), expected)
    assert load_dataset("celeba", folder.parent, ["Male"]).train.labels is not None


@pytest.mark.parametrize("extracted", [False, True], ids=["archive", "folder"])
def test_changed_images_are_decoded_anew(extracted: bool, folder: Path, cache: Path) -> None:
    if extracted:
        (folder / "img64.zip").unlink()
        write_folder(folder / "img64", jpegs())
    load_dataset("celeba", folder.parent)
    source = folder / "img64" / "000003.jpg" if extracted else folder / "img64.zip"
    changed = jpegs() | {"000003.jpg": jpegs()["000007.jpg"]}
    if extracted:
        source.write_bytes(changed[source.name])
    else:
        write_zip(source, changed)
    os.utime(source, ns=(0, 0))
    (pixels, _), *_ = splits(load_dataset("celeba", folder.parent))
    assert torch.equal(pixels[0], pixels[1])
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-1], id="truncated"),
        pytest.param(lambda content: content[:50], id="half a header"),
        pytest.param(lambda content: content.replace(b"}", b"("), id="open bracket in header"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: b"<html></html>", id="not npy"),
        pytest.param(lambda content: saved(np.array([{}], dtype=object), allow_pickle=True), id="pickle"),
        pytest.param(lambda content: saved(np.zeros((11, 12288), np.uint8)), id="eleven images"),
        pytest.param(lambda content: saved(np.zeros((12, 12288), np.int8)), id="wrong type"),
    ],
)
def test_damaged_cache_is_rebuilt(
    damage: Callable[[bytes], bytes], folder: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = load_dataset("celeba", folder.parent)
    (kept,) = cache.iterdir()
    content = kept.read_bytes()
    kept.write_bytes(damage(content))
    assert same(load_dataset("celeba", folder.parent), expected)
    assert list(cache.iterdir()) == [kept]
    assert kept.read_bytes() == content
    assert tuple(capfd.readouterr()) == ("", "")


def test_without_a_cache_directory_it_is_loaded_all_the_same(folder: Path, cache: Path) -> None:
    cache.parent.write_text("no directory")
    files = jpegs()
    (pixels, _), *_ = splits(load_dataset("celeba", folder.parent))
    with Image.open(io.BytesIO(files[NAMES[0][0]])) as image:
        assert np.array_equal(pixels[0], np.asarray(image).transpose(2, 0, 1).ravel())
    assert cache.parent.read_text() == "no directory"


# The published images


@pytest.mark.real_data
def test_published_subset_has_the_labels_of_the_attribute_file(cache: Path, tmp_path: Path) -> None:
    folder = Path(os.environ.get("ARGMAX_VAE_DATA", "")).resolve() / "CelebA"
    if "ARGMAX_VAE_DATA" not in os.environ or not (folder / "img64.zip").is_file():
        pytest.skip("ARGMAX_VAE_DATA is not set or does not hold CelebA/img64.zip")
    (tmp_path / "CelebA").symlink_to(folder)  # out of sight of a full set beside it
    dataset = load_dataset("celeba", tmp_path)
    shutil.rmtree(cache)
    assert_contract("celeba", dataset)
    text = folder / "list_attr_celeba.txt"
    if text.is_file():
        lines = text.read_text().splitlines()
    else:
        with zipfile.ZipFile(text.with_suffix(".zip")) as archive:
            lines = archive.read(text.name).decode().splitlines()
    with zipfile.ZipFile(folder / "img64.zip") as archive:
        present = {name for name in archive.namelist() if name.endswith(".jpg")}
        first = min(present)
        with archive.open(first) as stream, Image.open(stream) as image:
            expected = np.asarray(image).transpose(2, 0, 1).ravel()
    partition = dict(line.split() for line in (folder / "list_eval_partition.txt").read_text().splitlines())
    header = lines[1].split()
    counts: dict[str, Counter[str]] = {part: Counter() for part in "012"}
    for line in lines[2:]:
        name, *values = line.split()
        if name in present:
            signs = [values[header.index(attribute)] for attribute in ("Eyeglasses", "Smiling", "Male")]
            words = zip(signs, ("Eyeglasses", "Smiling", "Male"), strict=True)
            counts[partition[name]][", ".join(word if sign == "1" else f"no {word}" for sign, word in words)] += 1
    assert [len(pixels) for pixels, _ in splits(dataset)] == [20_000, 2_000, 2_000]
    for (_, labels), counted in zip(splits(dataset), counts.values(), strict=True):
        assert labels.bincount(minlength=8).tolist() == [counted[combination] for combination in TABLE]
    assert partition[first] == "0"
    assert np.array_equal(dataset.train.pixels[0], expected)
