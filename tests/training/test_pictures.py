"""Pictures: grids put images where they belong and show the networks of the first seed."""

from pathlib import Path

import numpy as np
import torch

from argmax_vae.data.datasets import load_dataset
from argmax_vae.latents import one_hot_argmax
from argmax_vae.training.build import build
from argmax_vae.training.samples import grid, pictures_of
from helpers import cell


def test_a_grid_has_each_image_whole_in_its_place() -> None:
    images = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 20).float()
    picture = grid(images, (1, 4, 5))
    assert picture.shape == (2 * 5 + 1, 3 * 6 + 1)
    for row in range(2):
        for column in range(3):
            place = picture[5 * row + 1 : 5 * row + 5, 6 * column + 1 : 6 * column + 6]
            assert np.array_equal(place, images[row, column].reshape(4, 5).numpy())
    lines = np.ones_like(picture, dtype=bool)
    for row in range(2):
        for column in range(3):
            lines[5 * row + 1 : 5 * row + 5, 6 * column + 1 : 6 * column + 6] = False
    assert (picture[lines] == 0.5).all()


def test_pictures_show_codes_of_the_first_seed_and_repeat(tmp_path: Path) -> None:
    dataset = load_dataset("digits", Path())
    module = build(cell(tmp_path, "seeds=[3,4]").config, dataset)
    pictures = pictures_of(module, dataset)
    assert pictures.samples.shape == (5 * 9 + 1, 10 * 9 + 1)
    assert pictures.reconstructions.shape == (2 * 9 + 1, 10 * 9 + 1)
    for picture in (pictures.samples, pictures.reconstructions):
        assert picture.min() >= 0
        assert picture.max() <= 1
    seen = (dataset.test.pixels[:1] >= 128).float()
    assert np.array_equal(pictures.reconstructions[1:9, 1:9], seen.reshape(8, 8).numpy())

    code = one_hot_argmax(module.best.encode(seen.expand(2, -1, -1)))
    image = module.best.decode(code)[0, 0].sigmoid().detach().reshape(8, 8)
    np.testing.assert_allclose(pictures.reconstructions[10:18, 1:9], image.numpy(), rtol=0, atol=1e-6)

    again = pictures_of(module, dataset)
    assert np.array_equal(again.samples, pictures.samples)
    assert all(parameter.grad is None for parameter in module.parameters())


def test_pictures_do_not_depend_on_the_other_seeds(tmp_path: Path) -> None:
    dataset = load_dataset("digits", Path())
    together, alone = (
        pictures_of(build(cell(tmp_path, f"seeds={seeds}").config, dataset), dataset) for seeds in ("[3,4]", "[3]")
    )
    np.testing.assert_allclose(together.samples, alone.samples, rtol=0, atol=1e-6)
    np.testing.assert_allclose(together.reconstructions, alone.reconstructions, rtol=0, atol=1e-6)
