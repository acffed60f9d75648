"""Which images have labels, in which order training sees them, and as what."""

from pathlib import Path

import pytest
import torch

from argmax_vae.data.datasets import load_dataset
from argmax_vae.objective.labels import (
    Passes,
    labelled_subset,
    take_labelled,
    with_replacement,
)
from argmax_vae.training import build
from argmax_vae.training.mixture_vae import MixtureVAE
from helpers import cell, seeds, train
from supervised_mixture import JOINT, MIXTURE, PASSES, SEQUENTIAL, started


@pytest.mark.parametrize("number", [10, 50, 300])
def test_subset_is_balanced_and_belongs_to_its_seed(number: int) -> None:
    classes = load_dataset("digits", Path()).train.labels
    assert classes is not None
    subset = labelled_subset(classes, number, 10, seed=3)
    assert torch.bincount(classes[subset]).tolist() == [number // 10] * 10
    assert len(set(subset.tolist())) == number
    assert torch.equal(subset, labelled_subset(classes, number, 10, seed=3))
    assert not torch.equal(subset, labelled_subset(classes, number, 10, seed=4))


def test_a_stratified_subset_has_the_shares_of_the_classes(generator: torch.Generator) -> None:
    """Every quota is the class's share rounded down or up, and the quotas sum to the number of labels."""
    counts = torch.tensor([4930, 4605, 5827, 3174, 158, 691, 150, 465])
    classes = torch.arange(8).repeat_interleave(counts)[torch.randperm(20_000, generator=generator)]
    subset = labelled_subset(classes, 800, 8, seed=3, labelled_classes="stratified")
    found, shares = torch.bincount(classes[subset]), counts * 800 / 20_000
    assert found.tolist() == [197, 184, 233, 127, 6, 28, 6, 19]
    assert ((found - shares).abs() < 1).all()
    assert len(set(subset.tolist())) == 800
    everything = labelled_subset(classes, 20_000, 8, seed=3, labelled_classes="stratified")
    assert torch.equal(everything.sort().values, torch.arange(20_000))


def test_a_run_has_the_labelled_images_of_its_classes(tmp_path: Path) -> None:
    """Stratified labels need not be divisible by the number of classes, and are a choice of the run's identity."""
    dataset = load_dataset("digits", Path())
    choices = (*MIXTURE, "supervision=joint", "supervision.labels=55", "supervision.labelled_classes=stratified")
    module = build.build(cell(tmp_path, *choices).config, dataset)
    assert isinstance(module, MixtureVAE)
    assert dataset.train.labels is not None
    subset = labelled_subset(dataset.train.labels, 55, 10, 0, "stratified")
    assert torch.equal(module.labelled_pixels[0], dataset.train.pixels[subset])
    names = {cell(tmp_path, *MIXTURE, "supervision=joint", *more).run for more in ((), choices[-1:])}
    assert len(names) == 2


def test_subset_is_of_the_training_split_unless_asked_for(tmp_path: Path) -> None:
    dataset = load_dataset("digits", Path())
    for source, images in (("train", 1200), ("train_and_validation", 1497)):
        chosen = cell(tmp_path, *MIXTURE, *SEQUENTIAL, f"supervision.source={source}", "seeds=[0,1]")
        module = build.build(chosen.config, dataset)
        assert isinstance(module, MixtureVAE)
        pixels = torch.cat([dataset.train.pixels, dataset.validation.pixels])[:images]
        classes = torch.cat([split.labels for split in (dataset.train, dataset.validation)])[:images]
        subsets = torch.stack([labelled_subset(classes, 50, 10, seed) for seed in (0, 1)])
        assert (int(subsets.max()) >= 1200) == (images > 1200)
        assert torch.equal(module.labelled_pixels, pixels[subsets])
        assert torch.equal(module.labelled_classes, classes[subsets])


def test_without_labels_no_image_is_kept_twice(tmp_path: Path) -> None:
    module = build.build(cell(tmp_path, *MIXTURE, "seeds=[0,1]").config, load_dataset("digits", Path()))
    assert module.labelled_pixels.shape == (2, 0, 64)


def test_labelled_images_of_a_step_are_drawn_evenly() -> None:
    classes = torch.tensor([[5, 7, 9], [1, 2, 3]])
    pixels = torch.stack([classes, 10 * classes], -1).to(torch.uint8)
    uniform = torch.tensor([[0.0, 0.34, 0.9999999, 0.5], [0.0, 0.5, 1.0, 0.1]])
    drawn, labels = take_labelled(pixels, classes, with_replacement(uniform, 3))
    assert labels.tolist() == [[5, 7, 9, 7], [1, 2, 3, 1]]
    assert torch.equal(drawn, torch.stack([labels, 10 * labels], -1).to(torch.uint8))


def test_a_pass_sees_every_labelled_image_once_in_an_order_of_its_own() -> None:
    """Whichever step is asked for first: so a run that resumes sees what an uninterrupted one sees."""
    passes = Passes([3, 7], 12, 4)
    steps = [passes.of_step(step) for step in range(6)]
    orders = [torch.cat(steps[start : start + 3], 1).tolist() for start in (0, 3)]
    assert all(sorted(order) == list(range(12)) for both in orders for order in both)
    assert len({tuple(order) for both in orders for order in both}) == 4
    assert torch.equal(Passes([7], 12, 4).of_step(4), steps[4][1:])


def test_labelled_images_are_seen_in_as_many_passes_as_asked_for(tmp_path: Path) -> None:
    """Two passes of five steps are 10 of the 12 steps of two epochs; behind them two epochs see both."""
    run = train(tmp_path, *MIXTURE, *PASSES, "trainer.epochs=4")
    assert seeds(run)[["steps", "labelled_epochs"]].to_numpy().tolist() == [[10 + 2 * 6, 2]]
    module = started(tmp_path, *PASSES, "seeds=[0,1]")
    assert (module.labelled_steps, module.labelled_epochs) == (10, 2)
    drawn = []
    for step in range(10):
        if step % 6 == 0:
            module.on_train_epoch_start()
        drawn.append(module.draw()["labelled"])
        module.steps_done += 1
    assert all(torch.bincount(positions).tolist() == [2] * 50 for positions in torch.cat(drawn, 1))


@pytest.mark.parametrize("binarize", [True, False])
def test_labelled_images_are_binary_unless_asked_for_as_they_are(binarize: bool, tmp_path: Path) -> None:
    module = started(tmp_path, *JOINT, f"supervision.binarize={binarize}")
    noise = module.draw()
    images, _ = module.inputs(torch.arange(200).unsqueeze(0), noise)
    drawn = take_labelled(module.labelled_pixels, module.labelled_classes, noise["labelled"])[0].float() / 255
    assert torch.equal(images[:, :200], images[:, :200].round())
    torch.testing.assert_close(images[:, 200:], (drawn >= 0.5).float() if binarize else drawn)
