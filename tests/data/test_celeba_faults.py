"""CelebA that cannot be loaded: what is missing, damaged or too large is named, and unknown attributes are refused."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from argmax_vae.data import celeba
from argmax_vae.data.datasets import load_dataset
from argmax_vae.errors import UsageError
from celeba_folder import FACES, jpegs, write_folder, write_lines, write_zip
from data_checks import message_of

pytestmark = pytest.mark.usefixtures("cache")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    message = message_of("celeba", tmp_path)
    assert message.startswith(f"{tmp_path / 'CelebA'} is missing")
    assert all(part in message for part in ("img64.zip", "paths.data=DIR", "ARGMAX_VAE_DATA"))


def test_folder_without_images_is_named(folder: Path) -> None:
    (folder / "img64.zip").unlink()
    (folder / "img64").mkdir()
    assert message_of("celeba", folder.parent).startswith(f"{folder} holds no images")


def test_archive_without_images_is_named(folder: Path) -> None:
    write_zip(folder / "img64.zip", {"readme.txt": b"nothing"})
    assert message_of("celeba", folder.parent).startswith(f"{folder / 'img64.zip'} holds no images")


@pytest.mark.parametrize("table", ["list_attr_celeba.txt", "list_eval_partition.txt"])
def test_missing_table_is_named(table: str, folder: Path) -> None:
    (folder / table).unlink()
    message = message_of("celeba", folder.parent)
    assert message.startswith(f"{folder / table} ")
    assert "is missing" in message


@pytest.mark.parametrize("table", ["list_attr_celeba.txt", "list_eval_partition.txt"])
def test_unreadable_table_is_named(table: str, folder: Path) -> None:
    (folder / table).unlink()
    (folder / table).mkdir()
    assert message_of("celeba", folder.parent).startswith(f"{folder / table} cannot be read")


@pytest.mark.parametrize("table", ["list_attr_celeba.txt", "list_eval_partition.txt"])
def test_image_without_a_row_is_named(table: str, folder: Path) -> None:
    lines = (folder / table).read_text().splitlines()
    write_lines(folder / table, [line for line in lines if "000021.jpg" not in line and "000100.jpg" not in line])
    message = message_of("celeba", folder.parent)
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
    assert message_of("celeba", folder.parent).startswith(f"{path} is damaged, the row of 000021.jpg ")


@pytest.mark.parametrize("content", ["", "12\n", "12\n\n000003.jpg 1\n", "image_id,Bald\n000003.jpg,-1\n"])
def test_file_that_is_no_attribute_table_is_named(content: str, folder: Path) -> None:
    (folder / "list_attr_celeba.txt").write_text(content)
    assert message_of("celeba", folder.parent).startswith(f"{folder / 'list_attr_celeba.txt'} is damaged")


def test_unknown_attribute_names_the_nearest(folder: Path) -> None:
    message = message_of("celeba", folder.parent, ["Male", "Eyeglases"])
    assert "'Eyeglases'" in message
    assert message.endswith("nearest: Eyeglasses")


def test_attribute_given_twice_is_named(folder: Path) -> None:
    assert "'Male' of celeba is given twice" in message_of("celeba", folder.parent, ["Male", "Smiling", "Male"])


def test_no_attributes_are_refused(folder: Path) -> None:
    assert "at least one attribute" in message_of("celeba", folder.parent, [])


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
    assert message_of("celeba", folder.parent).startswith(
        f"{source} holds 000110.jpg, which cannot be read as a JPEG image ("
    )
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
    assert f"{name} would have 1000000 bytes, at most 100000 are read" in message_of("celeba", folder.parent)


def test_image_of_too_many_pixels_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celeba, "LARGEST_AREA", 64 * 64 - 1)
    assert "64 x 64 pixels, at most 4095 are read" in message_of("celeba", folder.parent)


def test_member_with_wrong_bytes_is_named(folder: Path) -> None:
    path, content = folder / "img64.zip", jpegs()["000110.jpg"]
    whole = path.read_bytes()
    assert whole.count(content) == 1
    path.write_bytes(whole.replace(content, content[:-3] + b"\0" + content[-2:]))
    message = message_of("celeba", folder.parent)
    assert message.startswith(f"{path} holds 000110.jpg, ")
    assert "CRC" in message


@pytest.mark.parametrize("archive", ["img64.zip", "list_attr_celeba.zip"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and so on", b"<html></html>"])
def test_damaged_archive_is_named(archive: str, content: bytes, folder: Path) -> None:
    if archive.startswith("list"):
        (folder / "list_attr_celeba.txt").unlink()
    (folder / archive).write_bytes(content)
    assert message_of("celeba", folder.parent).startswith(f"{folder / archive} cannot be read")


def test_archive_without_the_attribute_file_is_named(folder: Path) -> None:
    (folder / "list_attr_celeba.txt").unlink()
    write_zip(folder / "list_attr_celeba.zip", {"other.txt": b"12"})
    message = message_of("celeba", folder.parent)
    assert message.startswith(f"{folder / 'list_attr_celeba.zip'} cannot be read")
    assert "list_attr_celeba.txt" in message


@pytest.mark.parametrize(("part", "split"), [(0, "train"), (1, "validation"), (2, "test")])
def test_split_without_images_is_named(part: int, split: str, folder: Path) -> None:
    write_zip(folder / "img64.zip", {name: file for name, file in jpegs().items() if FACES[name][0] != part})
    assert message_of("celeba", folder.parent).startswith(f"{folder / 'img64.zip'} holds no {split} image")
