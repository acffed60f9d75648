"""Checkpoints are whole or refused, be it a single bit that is wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch

from argmax_vae.errors import UsageError
from argmax_vae.runs.checkpoints import load_checkpoint


def test_a_checkpoint_with_a_wrong_bit_is_refused_or_says_the_same(tmp_path: Path) -> None:
    """Of 200 bits anywhere, those that do no harm lie between the arrays."""
    path, generator = tmp_path / "last.ckpt", np.random.default_rng(0)
    content = {"networks": {"weight": torch.linspace(-1, 1, 2000)}, "epoch": 3, "history": [{"bound": 1.5}]}
    torch.save(content, path)
    whole = path.read_bytes()
    assert torch.equal(load_checkpoint(path)["networks"]["weight"], content["networks"]["weight"])
    refused = 0
    for place, bit in zip(generator.integers(len(whole), size=200), generator.integers(8, size=200), strict=True):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :])
        try:
            found = load_checkpoint(path)
        except UsageError as error:
            assert str(error) == f"{path} is damaged; remove it and run the same command again"
            refused += 1
        else:
            assert torch.equal(found.pop("networks")["weight"], content["networks"]["weight"])
            assert found == {"epoch": 3, "history": [{"bound": 1.5}]}
    assert refused > 150


@pytest.mark.parametrize("content", [b"", b"PK", b"garbage"])
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is damaged"):
        load_checkpoint(path)
