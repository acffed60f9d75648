"""Fixtures of data sets: a folder of CelebA, and a cache of the test's own."""

from pathlib import Path

import pytest

from celeba_folder import jpegs, write_tables, write_zip


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this test's cached pixels, which is not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "argmax-vae"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder CelebA with an archive of 64 x 64 images."""
    write_tables(tmp_path / "CelebA")
    write_zip(tmp_path / "CelebA" / "img64.zip", jpegs())
    return tmp_path / "CelebA"
