"""What other packages may bring, and how a mistake in them is told: no other option suffers from it."""

import inspect
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from argmax_vae import (
    Constant,
    Dataset,
    Estimator,
    EstimatorConfig,
    FromLosses,
    ModelConfig,
    Pathwise,
    SampledConfig,
    Schedule,
    UsageError,
    plugins,
)
from argmax_vae.config.schema import MODELS
from argmax_vae.data.datasets import DATASETS, load_dataset
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.base import with_gradient
from argmax_vae.estimators.schedules import SCHEDULES


@dataclass
class Good(SampledConfig):
    name: str = "another"
    epsilon: Schedule = field(default_factory=lambda: Constant(value=0.5))


@dataclass
class Required(EstimatorConfig):
    alpha: float = field(kw_only=True)


@dataclass
class Unstorable(SampledConfig):
    root: complex = 1j


class Undecorated(SampledConfig):
    samples: int = 4


@dataclass
class Falling(Schedule):
    name: str = "falling"

    def __call__(self, step: Tensor) -> Tensor:
        return 1 / (1 + step)


@dataclass
class OwnSchedule(SampledConfig):
    epsilon: Schedule = field(default_factory=Falling)


@dataclass
class RequiredModel(ModelConfig):
    channels: int = field(kw_only=True)


class Score(FromLosses):
    config_class = Good

    def gradient(self, logits: Tensor, codes: Tensor, losses: Tensor, noise: Any, scheduled: Any) -> Tensor:
        return (losses[..., None, None] * (codes - logits.softmax(-1))).mean(0)


def with_config(kind: Any) -> type[Score]:
    return type("Configured", (Score,), {"config_class": kind})


THINGS: dict[str, tuple[Any, str]] = {
    "good": (Score, ""),
    "required": (
        with_config(Required),
        r"Required\(name='required'\) must work, with a default",
    ),
    "unstorable": (with_config(Unstorable), "Unstorable has a choice that no configuration can hold"),
    "undecorated": (with_config(Undecorated), "Undecorated must be decorated by @dataclass itself"),
    "plain": (with_config(object), "must be a class decorated by @dataclass"),
    "without_samples": (with_config(EstimatorConfig), "must write noise, or have a config with samples"),
    "strange_schedule": (with_config(OwnSchedule), "the default of epsilon must be a schedule of constant"),
    "no_gradient": (type("Empty", (FromLosses,), {"config_class": Good}), "Empty must write gradient"),
    "no_codes": (type("Empty", (Pathwise,), {"config_class": Good}), "Empty must write codes"),
    "no_forward": (type("Empty", (Estimator,), {"config_class": Good}), "Empty must write forward"),
    "with-hyphen": (Score, "must have a name of letters, digits and underscores"),
}


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put things into a package, by group and name; returns the registry as if it were asked for the first time."""
    monkeypatch.setattr(plugins, "BROUGHT", {})
    monkeypatch.setattr(plugins, "REFUSED", {})

    def bring(registry: Any, name: str, thing: Any) -> Any:
        point = EntryPoint(name, "package:thing", plugins.GROUPS[registry.group])
        monkeypatch.setattr(EntryPoint, "load", lambda self: thing)
        monkeypatch.setattr(
            plugins, "installed", lambda: {**dict.fromkeys(plugins.GROUPS, ()), registry.group: (point,)}
        )
        return plugins.Registry(
            registry.group, registry.own, registry.wanted, registry.what, registry.fault, registry.taken
        )

    return bring


@pytest.mark.parametrize("name", THINGS)
def test_an_estimator_with_a_mistake_is_left_out_and_told(name: str, brought: Any) -> None:
    thing, message = THINGS[name]
    things = brought(ESTIMATORS, name, thing)
    assert (name in things) == (not message)
    assert set(ESTIMATORS.own) <= set(things)
    if message:
        with pytest.raises(UsageError, match=message):
            plugins.require_used({"plugins": {f"estimator={name}": "p 1"}})


@pytest.mark.parametrize(
    ("registry", "name", "thing", "message"),
    [
        (MODELS, "required", RequiredModel, "must work, with a default for every other choice"),
        (MODELS, "linear", ModelConfig, "a name that is taken"),
        (MODELS, "one_hidden", ModelConfig, "a name that is taken"),
        (SCHEDULES, "constant_one", Falling, "a name that is taken"),
        (SCHEDULES, "number", 1.0, "must be a subclass of argmax_vae.Schedule"),
    ],
)
def test_a_model_or_schedule_with_a_mistake_is_left_out(
    registry: Any, name: str, thing: Any, message: str, brought: Any
) -> None:
    assert name not in brought(registry, name, thing)
    assert message in plugins.REFUSED[f"{registry.group}={name}"]


def test_a_schedule_is_taken(brought: Any) -> None:
    assert brought(SCHEDULES, "falling", Falling)["falling"] is Falling


def images(number: int = 3, size: int = 4, dtype: torch.dtype = torch.uint8, labels: Tensor | None = None) -> Any:
    return unchecked(torch.zeros(number, size, dtype=dtype), labels)


def unchecked(pixels: Tensor, labels: Tensor | None) -> Any:
    """A split whose shapes the tests' own checks do not see."""
    return SimpleNamespace(pixels=pixels, labels=labels)


def data(**changed: Any) -> Dataset:
    parts = {name: images() for name in ("train", "validation", "test")}
    return Dataset(**{"name": "own", "shape": (1, 2, 2), "binary": True, **parts, **changed})


def raising(directory: Path) -> Dataset:
    raise FileNotFoundError(directory / "images.bin")


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (raising, r"cannot be loaded from here \(FileNotFoundError: here/images.bin\)"),
        (lambda several, given: data(), "cannot be loaded from here"),
        (lambda directory: None, "must be an argmax_vae.Dataset; its function returned NoneType"),
        (lambda directory: data(shape=(2, 2)), "shape .* must be"),
        (lambda directory: data(shape=(1, 3, 3)), "pixels of train must be torch.uint8"),
        (lambda directory: data(test=images(dtype=torch.float32)), "pixels of test must be .* not torch.float32"),
        (lambda directory: data(validation=images(0)), "pixels of validation must be .* an image at least"),
        (lambda directory: data(train=unchecked(torch.ones(3, 4, dtype=torch.uint8), None)), "must be 0 or 255"),
        (lambda directory: data(train=images(labels=torch.zeros(2, dtype=torch.int64))), "labels of train must be"),
        (lambda directory: data(train=images(labels=-torch.ones(3, dtype=torch.int64))), "labels of train must be"),
        (lambda directory: data(train=images(labels=torch.zeros(3))), "labels of train must be"),
    ],
)
def test_a_data_set_with_a_mistake_is_told_in_one_line(
    load: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS.outside, "own", load)
    monkeypatch.setitem(plugins.BROUGHT, "data=own", "p 1")
    with pytest.raises(UsageError, match=message) as raised:
        load_dataset("own", Path("here"))
    assert str(raised.value).startswith("data=own of the package p 1")


def test_a_data_set_without_mistakes_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    given = data(train=images(labels=torch.arange(3)))
    monkeypatch.setitem(DATASETS.outside, "own", lambda directory: given)
    monkeypatch.setitem(plugins.BROUGHT, "data=own", "p 1")
    assert load_dataset("own", Path("here")) is given


def test_a_gradient_of_another_shape_is_refused() -> None:
    """It would be broadcast: a forgotten mean over samples would multiply the gradient."""
    logits = torch.zeros(5, 2, 3, requires_grad=True)
    with pytest.raises(ValueError, match=r"\(4, 5, 2, 3\) must have the shape of the logits \(5, 2, 3\)"):
        inspect.unwrap(with_gradient)(torch.zeros(5), logits, torch.zeros(4, 5, 2, 3))
