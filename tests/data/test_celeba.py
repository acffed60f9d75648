"""CelebA against Pillow, torchvision and labels coded by hand, on small folders in the official formats."""

import io
import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
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
from argmax_vae.errors import UsageError
from data.test_datasets import assert_contract

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


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this test's cached pixels, which is not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "argmax-vae"


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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder CelebA with an archive of 64 x 64 images."""
    write_tables(tmp_path / "CelebA")
    write_zip(tmp_path / "CelebA" / "img64.zip", jpegs())
    return tmp_path / "CelebA"


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


def message_of(directory: Path, attributes: Sequence[str] | None = None) -> str:
    """Return the message of the usage error that loading raises, which must be one line."""
    with pytest.raises(UsageError) as caught:
        load_dataset("celeba", directory, attributes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


def saved(array: np.ndarray, **options: Any) -> bytes:
    """Return the bytes of a npy file."""
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


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


# Errors


def test_missing_folder_is_named(tmp_path: Path) -> None:
    message = message_of(tmp_path)
    assert message.startswith(f"{tmp_path / 'CelebA'} is missing")
    assert all(part in message for part in ("img64.zip", "paths.data=DIR", "ARGMAX_VAE_DATA"))


def test_folder_without_images_is_named(folder: Path) -> None:
    (folder / "img64.zip").unlink()
    (folder / "img64").mkdir()
    assert message_of(folder.parent).startswith(f"{folder} holds no images")


def test_archive_without_images_is_named(folder: Path) -> None:
    write_zip(folder / "img64.zip", {"readme.txt": b"nothing"})
    assert message_of(folder.parent).startswith(f"{folder / 'img64.zip'} holds no images")


@pytest.mark.parametrize("table", ["list_attr_celeba.txt", "list_eval_partition.txt"])
def test_missing_table_is_named(table: str, folder: Path) -> None:
    (folder / table).unlink()
    message = message_of(folder.parent)
    assert message.startswith(f"{folder / table} ")
    assert "is missing" in message


@pytest.mark.parametrize("table", ["list_attr_celeba.txt", "list_eval_partition.txt"])
def test_unreadable_table_is_named(table: str, folder: Path) -> None:
    (folder / table).unlink()
    (folder / table).mkdir()
    assert message_of(folder.parent).startswith(f"{folder / table} cannot be read")


@pytest.mark.parametrize("table", ["list_attr_celeba.txt", "list_eval_partition.txt"])
def test_image_without_a_row_is_named(table: str, folder: Path) -> None:
    lines = (folder / table).read_text().splitlines()
    write_lines(folder / table, [line for line in lines if "000021.jpg" not in line and "000100.jpg" not in line])
    message = message_of(folder.parent)
    assert message.startswith(f"{folder / table} has no row for 000021.jpg (images without: 2)")


@pytest.mark.parametrize(
    ("table", "old", "new"),
    [
        pytest.param("list_attr_celeba.txt", "000021.jpg -1  1", "000021.jpg -1", id="field missing"),
        pytest.param("list_attr_celeba.txt", "000021.jpg -1  1", "000021.jpg -1  2", id="attribute neither -1 nor 1"),
        pytest.param("list_attr_celeba.txt", "000021.jpg -1  1", "000021.jpg -1 é", id="not ASCII"),
        pytest.param("list_eval_partition.txt", "000021.jpg 0", "000021.jpg 3", id="no such split"),
        pytest.param("list_eval_partition.txt", "000021.jpg 0", "000021.jpg ", id="no split"),
    ],
)
def test_damaged_row_is_named(table: str, old: str, new: str, folder: Path) -> None:
    path = folder / table
    content = path.read_text()
    assert content.count(old) == 1
    path.write_text(content.replace(old, new), encoding="utf-8")
    assert message_of(folder.parent).startswith(f"{path} is damaged, the row of 000021.jpg ")


@pytest.mark.parametrize("content", ["", "12\n", "12\n\n000003.jpg 1\n", "image_id,Bald\n000003.jpg,-1\n"])
def test_file_that_is_no_attribute_table_is_named(content: str, folder: Path) -> None:
    (folder / "list_attr_celeba.txt").write_text(content)
    assert message_of(folder.parent).startswith(f"{folder / 'list_attr_celeba.txt'} is damaged")


def test_unknown_attribute_names_the_nearest(folder: Path) -> None:
    message = message_of(folder.parent, ["Male", "Eyeglases"])
    assert "'Eyeglases'" in message
    assert message.endswith("nearest: Eyeglasses")


def test_attribute_given_twice_is_named(folder: Path) -> None:
    assert "'Male' of celeba is given twice" in message_of(folder.parent, ["Male", "Smiling", "Male"])


def test_no_attributes_are_refused(folder: Path) -> None:
    assert "at least one attribute" in message_of(folder.parent, [])


def test_other_data_sets_have_no_attributes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^data set 'digits' has no attributes, but was given \['Male'\]: .*$"):
        load_dataset("digits", tmp_path, ["Male"])


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[: len(content) // 2], id="truncated"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: b"<html></html>", id="not an image"),
        pytest.param(lambda content: content.replace(b"\x00\x40\x00\x40", b"\xff\xff\xff\xff"), id="huge"),
    ],
)
@pytest.mark.parametrize("extracted", [False, True], ids=["archive", "folder"])
def test_corrupt_image_is_named(extracted: bool, damage: Callable[[bytes], bytes], folder: Path, cache: Path) -> None:
    files = jpegs() | {"000110.jpg": damage(jpegs()["000110.jpg"])}
    source = folder / "img64.zip"
    if extracted:
        source.unlink()
        source = folder / "img64"
        write_folder(source, files)
    else:
        write_zip(source, files)
    assert message_of(folder.parent).startswith(f"{source} holds 000110.jpg, which cannot be read as a JPEG image (")
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("archive", ["img64.zip", "list_attr_celeba.zip"])
def test_member_that_grows_is_refused_before_it_is_read(
    archive: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"\0" * 10**6
    if archive.startswith("list"):
        (folder / "list_attr_celeba.txt").unlink()
        name = "list_attr_celeba.txt"
        monkeypatch.setattr(celeba, "LARGEST_TEXT", 10**5)
    else:
        name = "000110.jpg"
        monkeypatch.setattr(celeba, "LARGEST_IMAGE", 10**5)
    files = {name: content} if archive.startswith("list") else jpegs() | {name: content}
    with zipfile.ZipFile(folder / archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for member, data in files.items():
            opened.writestr(member, data)
    assert (folder / archive).stat().st_size < 10**5
    assert f"{name} would have 1000000 bytes, at most 100000 are read" in message_of(folder.parent)


def test_image_of_too_many_pixels_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celeba, "LARGEST_AREA", 64 * 64 - 1)
    assert "64 x 64 pixels, at most 4095 are read" in message_of(folder.parent)


def test_member_with_wrong_bytes_is_named(folder: Path) -> None:
    path, content = folder / "img64.zip", jpegs()["000110.jpg"]
    whole = path.read_bytes()
    assert whole.count(content) == 1
    path.write_bytes(whole.replace(content, content[:-3] + b"\0" + content[-2:]))
    message = message_of(folder.parent)
    assert message.startswith(f"{path} holds 000110.jpg, ")
    assert "CRC" in message


@pytest.mark.parametrize("archive", ["img64.zip", "list_attr_celeba.zip"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and so on", b"<html></html>"])
def test_damaged_archive_is_named(archive: str, content: bytes, folder: Path) -> None:
    if archive.startswith("list"):
        (folder / "list_attr_celeba.txt").unlink()
    (folder / archive).write_bytes(content)
    assert message_of(folder.parent).startswith(f"{folder / archive} cannot be read")


def test_archive_without_the_attribute_file_is_named(folder: Path) -> None:
    (folder / "list_attr_celeba.txt").unlink()
    write_zip(folder / "list_attr_celeba.zip", {"other.txt": b"12"})
    message = message_of(folder.parent)
    assert message.startswith(f"{folder / 'list_attr_celeba.zip'} cannot be read")
    assert "list_attr_celeba.txt" in message


@pytest.mark.parametrize(("part", "split"), [(0, "train"), (1, "validation"), (2, "test")])
def test_split_without_images_is_named(part: int, split: str, folder: Path) -> None:
    write_zip(folder / "img64.zip", {name: file for name, file in jpegs().items() if FACES[name][0] != part})
    assert message_of(folder.parent).startswith(f"{folder / 'img64.zip'} holds no {split} image")


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
