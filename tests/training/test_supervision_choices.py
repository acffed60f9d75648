"""Choices of labels that do not fit each other, the model or the data: each is refused in one line."""

from pathlib import Path
from typing import Any

import pytest

from argmax_vae.config import compose
from argmax_vae.data.datasets import load_dataset
from argmax_vae.errors import UsageError
from argmax_vae.training import build, fit
from helpers import cell
from supervised_mixture import JOINT, MIXTURE, PASSES


def bad(*overrides: str) -> str:
    with pytest.raises(UsageError) as caught:
        compose.cells("train", ["data=digits", *MIXTURE, *overrides])
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (("supervision=joint", "supervision.labels=55"), "supervision.labels=55 must be divisible by the 10 classes"),
        (
            ("supervision=joint", "supervision.labelled_classes=even"),
            "supervision.labelled_classes=even must be one of balanced, stratified",
        ),
        (("supervision=joint", "supervision.labels=0"), "labels need supervision=joint, sequential or"),
        (("supervision=none", "supervision.labels=10"), "labels need supervision=joint, sequential or"),
        (("supervision=joint", "supervision.loss=hinge"), "supervision.loss=hinge must be one of"),
        (("supervision=joint", "supervision.weight=0"), "supervision.weight=0.0 must be greater than 0"),
        (("supervision=joint", "estimator=exact"), "supervision.loss=label needs estimator=direct"),
        (("supervision=joint", "estimator.direction=away"), "supervision.loss=label needs estimator=direct"),
        (("supervision=joint", "supervision.loss=relaxed_cross_entropy"), "needs estimator=gumbel_softmax"),
        (
            (
                *("supervision=joint", "supervision.labels=50", "supervision.loss=cross_entropy"),
                *("estimator=reinforce", "estimator.baseline=moving_average"),
            ),
            "estimator.baseline=moving_average does not fit supervision=joint",
        ),
        (
            ("supervision=sequential_joint", "supervision.source=train_and_validation"),
            "supervision.source=train_and_validation needs supervision=sequential",
        ),
        (("supervision=joint", "supervision.labels=-10"), "supervision.labels=-10 must be at least 0"),
        (
            ("supervision=joint", "supervision.labels=50", "supervision.labelled_value=0.5"),
            "not estimator=direct and joint",
        ),
        (
            (
                *("supervision=sequential", "supervision.labels=50", "supervision.loss=cross_entropy"),
                *("estimator=exact", "supervision.labelled_value=0.5"),
            ),
            "labelled_value=0.5 needs an estimator with ε or τ and supervision=sequential or sequential_joint",
        ),
        (("supervision=joint", "model=linear", "~model.gaussian"), "key"),
        (("model.latents=2x10",), "model.latents=2x10 must be 1 x k for a mixture"),
        (("model.dropout=1",), "model.dropout=1.0 must be at least 0 and less than 1"),
        (("model.activation=tanh",), "model.activation=tanh must be one of relu, leaky_relu"),
        (("model.gaussian_kl=none",), "model.gaussian_kl=none must be one of"),
        (("model.gaussian_noise=none",), "model.gaussian_noise=none must be one of shared, per_component"),
        (("model.negative_slope=0.2",), "model.negative_slope=0.2 must be 0.01 with model.activation=relu"),
        (
            ("model.activation=leaky_relu", "model.component_negative_slope=-1"),
            "model.component_negative_slope=-1.0 must be at least 0",
        ),
        (
            ("supervision=joint", "supervision.labels=100", "supervision.sampling=twice"),
            "supervision.sampling=twice must be one of with_replacement, without_replacement",
        ),
        (
            (*PASSES, "supervision.labelled_batch=40"),
            "supervision.labelled_batch=40 must be a divisor of supervision.labels=50",
        ),
        (
            ("supervision=joint", "supervision.labels=50", "supervision.schedule_starts=after_labels"),
            "supervision.schedule_starts=after_labels needs supervision=sequential or sequential_joint, not joint",
        ),
        (("supervision.select=accuracy",), "supervision.select=accuracy needs labels"),
        (("supervision.select=perturbed_accuracy",), "supervision.select=perturbed_accuracy needs labels"),
        (("trainer.importance_samples=5",), "trainer.importance_samples=5 must be 0 with model=mixture"),
        (("model.gaussian=0",), "model.gaussian=0 must be from 1 to"),
    ],
)
def test_bad_choices_are_named_in_one_line(overrides: tuple[str, ...], problem: str) -> None:
    assert problem in bad(*overrides)


def test_supervision_needs_a_mixture() -> None:
    with pytest.raises(UsageError, match="needs model=mixture or attributes, not model"):
        compose.cells("train", ["data=digits", "supervision=joint"])


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (("supervision.labels=5000",), r"class \d has \d+ images, not 500; use fewer"),
        (("model.latents=1x5",), "model.latents has k = 5, the data set has 10 classes"),
        (("supervision=sequential", "trainer.epochs=2"), "trainer.epochs=2 must be more than the 313 epochs"),
    ],
)
def test_labels_that_the_data_cannot_give(overrides: tuple[str, ...], problem: str, tmp_path: Path) -> None:
    chosen = cell(tmp_path, *MIXTURE, *JOINT, *overrides)
    with pytest.raises(UsageError, match=problem):
        fit.train(chosen)
    assert not chosen.run.has_ended


def test_a_data_set_without_labels_is_refused(tmp_path: Path) -> None:
    digits = load_dataset("digits", Path())
    parts: dict[str, Any] = {name: getattr(digits, name) for name in ("shape", "validation", "test", "binary")}
    unlabelled = type(digits)(name="binarized", train=type(digits.train)(digits.train.pixels, None), **parts)
    chosen = cell(tmp_path, *MIXTURE, *JOINT)
    with pytest.raises(UsageError, match="name=binarized has no labels, which supervision"):
        build.build(chosen.config, unlabelled)
