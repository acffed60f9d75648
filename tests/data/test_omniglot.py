"""Omniglot from files that are made here, MATLAB and PNG: what was put into them comes out, and damage is named."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from argmax_vae.config import compose
from argmax_vae.data import omniglot
from argmax_vae.data.datasets import load_dataset
from argmax_vae.data.images import Dataset
from data_checks import message_of

CHARACTERS = {
    "images_background": ["Greek/character01", "Latin/character02"],
    "images_evaluation": ["Tengwar/character01"],
}


@pytest.fixture(autouse=True)
def small(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files with few images, and a cache of this test's own."""
    monkeypatch.setattr(omniglot, "MATLAB", {"data": 9, "testdata": 4})
    monkeypatch.setattr(omniglot, "VALIDATION", 3)
    monkeypatch.setattr(omniglot, "CHARACTERS", {part: len(names) for part, names in CHARACTERS.items()})


def pictures(images: int, seed: int) -> np.ndarray:
    """Intensities from 0 to 1, by image, row and column."""
    return np.random.default_rng(seed).random((images, 28, 28))


LEARNED, TEST = pictures(9, 0), pictures(4, 1)


def columns(images: np.ndarray) -> np.ndarray:
    """Images as the MATLAB file has them: one in each column, its pixels column by column."""
    return np.stack([image.flatten(order="F") for image in images], axis=1)


def matlab(data: Any = None, testdata: Any = None, **options: Any) -> bytes:
    """The bytes of a MATLAB file, by default whole."""
    arrays = {"target": np.zeros((50, 9)), "data": columns(LEARNED), "testdata": columns(TEST)}
    arrays |= {name: array for name, array in (("data", data), ("testdata", testdata)) if array is not None}
    stream = io.BytesIO()
    savemat(stream, arrays, **options)
    return stream.getvalue()


def put(path: Path, content: bytes) -> Path:
    """A file with this content, in folders that are made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def drawing(number: int) -> np.ndarray:
    """The ink of a drawing, true or false, another one for each number."""
    return np.random.default_rng(number).random((105, 105)) < 0.1 + number / 100


def png(ink: np.ndarray) -> bytes:
    """A file of one bit a pixel, ink dark on a bright ground."""
    stream = io.BytesIO()
    Image.fromarray(~ink).save(stream, format="PNG")
    return stream.getvalue()


def drawings(part: str) -> dict[str, bytes]:
    """The files of a part by their names below its folder."""
    first = 0 if part == "images_background" else 40
    names = [f"{name}/{person:04d}_{person:02d}.png" for name in CHARACTERS[part] for person in range(1, 21)]
    return {name: png(drawing(first + index)) for index, name in enumerate(names)}


def put_drawings(folder: Path, part: str, packed: bool, **changed: bytes | None) -> Path:
    """A part as a folder or an archive; `changed` replaces files, by the end of their names, or leaves them out."""
    files = drawings(part)
    for end, content in changed.items():
        name = next(name for name in files if name.endswith(f"{end.removeprefix('n')}.png"))
        files[name] = content if content is not None else b""
        if content is None:
            del files[name]
    if not packed:
        for name, content in files.items():
            put(folder / part / name, content)
        return folder / part
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
        for name, content in reversed(files.items()):
            archive.writestr(f"{part}/{name}", content)
    return folder / f"{part}.zip"


def pixels(dataset: Dataset) -> list[torch.Tensor]:
    assert (dataset.name, dataset.shape, dataset.binary) == ("omniglot", (1, 28, 28), False)
    assert all(split.labels is None for split in (dataset.train, dataset.validation, dataset.test))
    return [split.pixels for split in (dataset.train, dataset.validation, dataset.test)]


def test_constants_are_those_of_the_published_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert (sum(omniglot.MATLAB.values()), omniglot.MATLAB["data"] - omniglot.VALIDATION) == (32_415, 23_000)
    assert sum(omniglot.CHARACTERS.values()) * omniglot.DRAWINGS == 32_460


@pytest.mark.parametrize("options", [{}, {"do_compression": True}, {"format": "4"}], ids=["5", "compressed", "4"])
def test_a_matlab_file_has_upright_images_the_last_of_them_for_validation(options: Any, tmp_path: Path) -> None:
    put(tmp_path / "Omniglot" / "chardata.mat", matlab(**options))
    dataset = load_dataset("omniglot", tmp_path)
    for found, expected in zip(pixels(dataset), (LEARNED[:6], LEARNED[6:], TEST), strict=True):
        assert (found.dtype, found.is_contiguous()) == (torch.uint8, True)
        assert np.abs(found.numpy() / 255 - expected.reshape(-1, 784)).max() <= 0.5 / 255 + 1e-12
    assert load_dataset("omniglot", tmp_path).digest == dataset.digest


def test_a_matlab_file_of_whole_size_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    data, test = np.zeros((784, 24_345), dtype=np.uint8), np.zeros((784, 8_070), dtype=np.uint8)
    data[1, 23_000] = test[28, 0] = 1
    put(tmp_path / "Omniglot" / "chardata.mat", matlab(data, test))
    train, validation, tested = pixels(load_dataset("omniglot", tmp_path))
    assert (len(train), len(validation), len(tested)) == (23_000, 1_345, 8_070)
    assert (
        int(train.max()) == 0 and validation.nonzero().tolist() == [[0, 28]] and tested.nonzero().tolist() == [[0, 1]]
    )


def covered(size: int, number: int) -> slice:
    """The pixels of 105 whose centres a pixel of 28 covers."""
    width = 105 / size
    places = [place for place in range(105) if number * width < place + 0.5 <= (number + 1) * width]
    return slice(places[0], places[-1] + 1)


def scaled(ink: np.ndarray) -> np.ndarray:
    """255 times the share of ink under each of 28 x 28 pixels, row by row."""
    means = [[ink[covered(28, row), covered(28, column)].mean() for column in range(28)] for row in range(28)]
    return 255 * np.array(means).ravel()


@pytest.mark.parametrize("folder", omniglot.FOLDERS)
@pytest.mark.parametrize("packed", [False, True], ids=["folders", "archives"])
def test_drawings_are_scaled_down_and_the_last_of_each_character_is_validation(
    packed: bool, folder: str, tmp_path: Path
) -> None:
    for part in CHARACTERS:
        put_drawings(tmp_path / folder, part, packed)
    put(tmp_path / folder / "images_background" / "readme.txt", b"") if not packed else None
    dataset = load_dataset("omniglot", tmp_path)
    expected = ([*range(19), *range(20, 39)], [19, 39], range(40, 60))
    for found, numbers in zip(pixels(dataset), expected, strict=True):
        truth = np.stack([scaled(drawing(number)) for number in numbers])
        assert found.shape == truth.shape
        assert np.abs(found.numpy() - truth).max() <= 1.5, "two roundings"
    assert load_dataset("omniglot", tmp_path).digest == dataset.digest


def test_folders_and_archives_hold_the_same_images_and_are_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in CHARACTERS:
        put_drawings(tmp_path / "a" / "omniglot-py", part, True)
        put_drawings(tmp_path / "b" / "omniglot-py", part, False)
    first, second = (load_dataset("omniglot", tmp_path / name) for name in "ab")
    assert first.digest == second.digest

    def decode(_: bytes) -> None:
        raise AssertionError("decoded although the cache holds the pixels")

    monkeypatch.setattr(omniglot, "_decode", decode)
    assert load_dataset("omniglot", tmp_path / "a").digest == first.digest


def test_the_matlab_file_comes_first_and_torchvisions_folder_second(tmp_path: Path) -> None:
    for folder in omniglot.FOLDERS:
        for part in CHARACTERS:
            put_drawings(tmp_path / folder, part, True)
    put(tmp_path / "omniglot-py" / "images_background.zip", b"damaged")
    assert message_of("omniglot", tmp_path).startswith(
        f"{tmp_path / 'omniglot-py' / 'images_background.zip'} cannot be read"
    )
    put(tmp_path / "Omniglot" / "chardata.mat", matlab())
    assert len(load_dataset("omniglot", tmp_path).train.pixels) == 6


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        pytest.param(lambda: matlab()[:-100], "cannot be read as a MATLAB file", id="truncated"),
        pytest.param(
            lambda: matlab(do_compression=True)[:-1], "cannot be read as a MATLAB file", id="packed, truncated"
        ),
        pytest.param(lambda: matlab()[:100], "cannot be read as a MATLAB file", id="half a header"),
        pytest.param(lambda: b"", "cannot be read as a MATLAB file", id="empty"),
        pytest.param(lambda: b"<html></html>" * 50, "cannot be read as a MATLAB file", id="not MATLAB"),
        pytest.param(lambda: b"MATLAB 7.3" + b" " * 114 + b"\0\2IM" + b"\0" * 99, "MATLAB file", id="HDF"),
        pytest.param(lambda: matlab(columns(LEARNED).T), "float64 of shape (9, 784) as data", id="turned"),
        pytest.param(
            lambda: matlab(testdata=columns(LEARNED)), "(784, 9) as testdata, not numbers of", id="nine tests"
        ),
        pytest.param(lambda: matlab(255 * columns(LEARNED)), "as data that are not from 0 to 1", id="0 to 255"),
        pytest.param(lambda: matlab(columns(LEARNED) * np.nan), "as data that are not from 0 to 1", id="not a number"),
        pytest.param(lambda: matlab(np.array([[{}]])), "as data, not numbers of shape (784, 9)", id="a structure"),
        pytest.param(lambda: matlab(columns(LEARNED) * 1j), "complex128 of shape (784, 9)", id="complex"),
    ],
)
def test_a_damaged_matlab_file_is_named(content: Callable[[], bytes], finding: str, tmp_path: Path) -> None:
    path = put(tmp_path / "Omniglot" / "chardata.mat", content())
    message = message_of("omniglot", tmp_path)
    assert message.startswith(f"{path} ") and message.endswith("put a whole copy in its place")
    assert finding in message


def test_a_matlab_file_of_something_else_is_named(tmp_path: Path) -> None:
    stream = io.BytesIO()
    savemat(stream, {"other": np.zeros(3)})
    path = put(tmp_path / "Omniglot" / "chardata.mat", stream.getvalue())
    assert message_of("omniglot", tmp_path).startswith(f"{path} holds nothing as data, not numbers of shape (784, 9)")


@pytest.mark.parametrize("present", [(), ("images_background",), ("images_evaluation",)])
def test_missing_files_are_a_line_that_says_where_to_put_them(present: tuple[str, ...], tmp_path: Path) -> None:
    for part in present:
        put_drawings(tmp_path / "omniglot-py", part, True)
    message = message_of("omniglot", tmp_path)
    absent = next(part for part in CHARACTERS if part not in present)
    assert message.startswith(f"{tmp_path / 'Omniglot'} holds neither chardata.mat nor {absent}")
    assert "ARGMAX_VAE_DATA" in message
    assert {path.name for path in tmp_path.iterdir()} <= {"omniglot-py", "cache"}


@pytest.mark.parametrize("packed", [False, True], ids=["folders", "archives"])
@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        pytest.param({"n_07": None}, "does not hold drawings 1 to 20 of Greek/character01", id="missing"),
        pytest.param({"n_07": b""}, "0007_07.png, which cannot be read as a drawing", id="empty"),
        pytest.param({"n_07": b"<html></html>"}, "0007_07.png, which cannot be read as a drawing", id="not PNG"),
        pytest.param({"n_07": png(drawing(0))[:-60]}, "0007_07.png, which cannot be read as a drawing", id="truncated"),
        pytest.param({"n_07": png(drawing(0)[:50])}, "105 x 50 pixels, not 105 x 105", id="half a drawing"),
    ],
)
def test_a_damaged_drawing_is_named(changed: dict[str, Any], finding: str, packed: bool, tmp_path: Path) -> None:
    source = put_drawings(tmp_path / "omniglot-py", "images_background", packed, **changed)
    put_drawings(tmp_path / "omniglot-py", "images_evaluation", packed)
    message = message_of("omniglot", tmp_path)
    assert message.startswith(f"{source} ") and message.endswith("put a whole copy in its place")
    assert finding in message


def test_a_missing_character_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in CHARACTERS:
        put_drawings(tmp_path / "omniglot-py", part, False)
    monkeypatch.setattr(omniglot, "CHARACTERS", {"images_background": 3, "images_evaluation": 1})
    assert "images_background holds 2 characters, not 3" in message_of("omniglot", tmp_path)


def test_the_option_samples_pixels_anew() -> None:
    (cell,) = compose.cells("train", ["data=omniglot", "model=deep", "model.likelihood=bernoulli"])
    assert (cell.config.data.name, cell.config.data.binarization) == ("omniglot", "dynamic")
