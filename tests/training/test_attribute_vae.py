"""Images with attributes: metrics by hand, training with and without labels, and what is refused."""

from pathlib import Path

import pytest
import torch

from argmax_vae.data.images import Dataset, Images
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.training import build
from argmax_vae.training.attribute_vae import AttributeVAE, attribute_accuracies
from argmax_vae.training.samples import pictures_of
from helpers import cell, metrics, same_numbers, train

DIGITS = ("model=attributes", "model.channels=[4,6]", "model.row=5", "model.component_hidden=[5]", "model.gaussian=3")
TINY = (*DIGITS, "data.binarization=none", "model.latents=1x10", "seeds=[0,1]")
LABELS = ("supervision=joint", "supervision.labels=20")


def faces(images: int = 40) -> Dataset:
    """Colour images of 8 × 8 and the combinations of two attributes: the first makes them red, the second dark."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(100, 256, (images, 3, 8, 8), generator=generator)
    labels = torch.arange(images) % 4
    pixels[labels >= 2, 1:] //= 4
    pixels[labels % 2 == 1] //= 3
    split = Images(pixels.to(torch.uint8).flatten(1), labels)
    return Dataset("faces", (3, 8, 8), split, split, split, binary=False)


def test_attribute_accuracies_by_hand() -> None:
    """Combinations 0 to 3 are (0, 0), (0, 1), (1, 0), (1, 1)."""
    counts = torch.tensor([[5, 1, 0, 0], [0, 4, 0, 2], [1, 0, 3, 0], [2, 0, 1, 1]])
    right_first = (5 + 1) + (0 + 4) + (3 + 0) + (1 + 1)
    right_second = (5 + 0) + (4 + 2) + (1 + 3) + (0 + 1)
    assert attribute_accuracies(counts.double()) == pytest.approx([right_first / 20, right_second / 20])


def test_colour_pictures_and_accuracy_of_every_attribute(tmp_path: Path) -> None:
    overrides = (*TINY, "model.latents=1x4", "supervision=joint", "supervision.labels=8", "trainer.batch=10")
    config = cell(tmp_path, *overrides).config
    dataset = faces()
    module = build.build(config, dataset)
    assert isinstance(module, AttributeVAE)
    module.attributes = ["red", "dark"]
    module.on_test_epoch_start()
    with torch.no_grad():
        module.test_step(torch.arange(40), 0)
    found = module.more_metrics("test", 1)
    counts = module.confusion("test")[0, 1]
    assert [found["test_accuracy_red"], found["test_accuracy_dark"]] == attribute_accuracies(counts)
    assert found["test_accuracy"] <= min(found["test_accuracy_red"], found["test_accuracy_dark"])
    pictures = pictures_of(module, dataset)
    assert pictures.samples.shape == (10 * 9 + 1, 4 * 9 + 1, 3)
    assert pictures.reconstructions.shape == (2 * 9 + 1, 10 * 9 + 1, 3)
    first = dataset.test.pixels[0].reshape(3, 8, 8).movedim(0, -1) / 255
    assert pictures.reconstructions[1:9, 1:9] == pytest.approx(first.numpy())


@pytest.mark.parametrize("there", [(), ("test",), ("train",)])
def test_a_combination_that_a_split_lacks(there: tuple[str, ...], tmp_path: Path) -> None:
    """Without labels in training a rare combination may be missing from one split, or from all."""
    whole = faces()
    assert whole.train.labels is not None
    common = whole.train.labels < 3
    some = Images(whole.train.pixels[common], whole.train.labels[common])
    splits = {name: whole.train if name in there else some for name in ("train", "validation", "test")}
    dataset = Dataset("faces", whole.shape, **splits, binary=False)
    module = build.build(cell(tmp_path, *TINY, "model.latents=1x4", "trainer.batch=10").config, dataset)
    for names in ((), ("red", "dark")):
        module.attributes = list(names)
        module.classes = module.number_of_classes(dataset)
        module.on_test_epoch_start()
        with torch.no_grad():
            module.test_step(torch.arange(len(splits["test"].pixels)), 0)
        assert {"test_accuracy", *(f"test_accuracy_{name}" for name in names)} <= set(module.more_metrics("test", 0))


@pytest.mark.parametrize("estimator", ["direct", "gumbel_softmax", "exact", "local_expectation"])
@pytest.mark.parametrize("labels", [(), LABELS])
def test_trains(estimator: str, labels: tuple[str, ...], tmp_path: Path) -> None:
    loss = ("supervision.loss=cross_entropy",) if labels and estimator != "direct" else ()
    run = train(tmp_path, *TINY, *labels, *loss, f"estimator={estimator}", "trainer.epochs=3")
    assert run.status == "done", run.reason
    assert estimator in ESTIMATORS
    bounds = metrics(run).groupby("epoch")["validation_bound"].mean()
    assert bounds.iloc[-1] < bounds.iloc[0]


def test_repeats_and_bernoulli(tmp_path: Path) -> None:
    overrides = (*TINY, "model.likelihood=bernoulli", "model.dropout=0.5")
    same_numbers(train(tmp_path / "a", *overrides), train(tmp_path / "b", *overrides))


def test_rounded_training_is_close(tmp_path: Path) -> None:
    whole, rounded = (
        metrics(train(tmp_path / name, *TINY, f"runtime.precision={name}")) for name in ("float32", "bfloat16")
    )
    assert rounded["validation_bound"].to_numpy() == pytest.approx(whole["validation_bound"].to_numpy(), rel=0.02)
    assert not (rounded["validation_bound"] == whole["validation_bound"]).all()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.channels=[0]",), r"model.channels=\[0\] must be a list of sizes from 1"),
        (("model.channels=[]",), r"model.channels=\[\] must be a list of at least one size"),
        (("model.hidden=[3]",), r"model.hidden=\[3\] must be \[\] with model=attributes; set model.channels"),
        (("model.likelihood=mse",), "model.likelihood=mse must be one of bernoulli, squared_error"),
        (("model.latents=2x10",), "model.latents=2x10 must be 1 x k for a mixture"),
        (("runtime.precision=half",), "runtime.precision=half must be one of float32, tf32, bfloat16"),
        (("trainer.importance_samples=3",), "trainer.importance_samples=3 must be 0 with model=attributes"),
        (("data.name=celeba",), "data.name=celeba must be chosen by data=NAME"),
    ],
)
def test_bad_choices(overrides: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        cell(tmp_path, *TINY, *overrides)


def test_layers_that_cannot_halve_the_images(tmp_path: Path) -> None:
    message = r"4 layers cannot halve the 8 × 8 images of data.name=digits; use fewer"
    with pytest.raises(UsageError, match=message):
        train(tmp_path, *TINY, "model.channels=[2,2,2,2]")
    assert list(tmp_path.iterdir()) == []


def test_labels_need_as_many_classes_as_values(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="k = 8, the data set has 10 classes"):
        train(tmp_path, *TINY, "supervision=joint", "supervision.labels=16", "model.latents=1x8")
