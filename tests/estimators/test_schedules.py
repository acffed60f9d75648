"""Schedules at steps computed by hand."""

import dataclasses
import math

import pytest
import torch

from argmax_vae.errors import UsageError
from argmax_vae.estimators.schedules import SCHEDULES, Constant, Cosine, EpochExponential, Exponential, Linear, Schedule

NUMBERS = [
    (name, field.name)
    for name, schedule in SCHEDULES.items()
    for field in dataclasses.fields(schedule)
    if field.name != "name"
]


def at(schedule: Schedule, step: int) -> float:
    return schedule(torch.tensor(step)).item()


def test_constant() -> None:
    assert [at(Constant(value=0.25), step) for step in (0, 1, 10**6)] == [0.25, 0.25, 0.25]


def test_exponential_changes_every_thousand_steps() -> None:
    schedule = Exponential()
    assert [at(schedule, step) for step in (0, 1, 999)] == [1.0, 1.0, 1.0]
    for step, exponent in ((1000, -0.01), (1999, -0.01), (2000, -0.02), (123_456, -1.23)):
        assert at(schedule, step) == pytest.approx(math.exp(exponent), rel=1e-6)


def test_papers_schedule_never_reaches_its_floor() -> None:
    """400 epochs of 500 steps end at exp(−2) = 0.135; 0.1 is reached after step 230,000 only."""
    schedule, end = Exponential(), 400 * 500
    assert at(schedule, end - 1) == pytest.approx(math.exp(-1.99), rel=1e-6)
    assert at(schedule, end) == pytest.approx(math.exp(-2), rel=1e-6)
    assert at(schedule, 230_999) > 0.1
    assert at(schedule, 231_000) == pytest.approx(0.1)
    assert at(schedule, 10**7) == pytest.approx(0.1)


@pytest.mark.parametrize(("rate", "every", "first"), [(1e-5, 500, 1500), (1e-3, 7, 1), (1e-3, 7, 20)])
def test_epoch_exponential_is_set_after_every_epoch(rate: float, every: int, first: int) -> None:
    schedule, value = EpochExponential(rate=rate, every=every, first=first), 1.0
    for epoch in range(first, first + 500):
        start = (epoch - first) * every
        for step in (start, start + every - 1):
            assert at(schedule, step) == pytest.approx(value, rel=1e-6)
        value = max(0.1, math.exp(-rate * every * epoch))
    assert value == 0.1


def test_papers_schedule_behind_labelled_images_is_1_in_one_epoch_and_0_1_in_all_others() -> None:
    schedule = EpochExponential(first=1500)
    assert [at(schedule, step) for step in (0, 499)] == [1.0, 1.0]
    assert [at(schedule, step) for step in (500, 999, 1000, 10**6)] == [pytest.approx(0.1)] * 4
    assert schedule.describe() == "1 for 500 steps, then 0.1"


def test_linear() -> None:
    schedule = Linear(start=2.0, end=0.5, steps=10)
    expected = {0: 2.0, 1: 1.85, 4: 1.4, 10: 0.5, 11: 0.5, 10**6: 0.5}
    for step, value in expected.items():
        assert at(schedule, step) == pytest.approx(value)


def test_cosine() -> None:
    schedule = Cosine(start=2.0, end=0.5, steps=12)
    half_root = math.sqrt(3) / 2
    expected = {0: 2.0, 2: 0.5 + 0.75 * (1 + half_root), 6: 1.25, 8: 0.875, 12: 0.5, 99: 0.5}
    for step, value in expected.items():
        assert at(schedule, step) == pytest.approx(value)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("name", SCHEDULES)
def test_any_shape_of_integer_steps(name: str, dtype: torch.dtype) -> None:
    schedule = SCHEDULES[name]()
    steps = torch.tensor([[0, 1, 999], [1000, 54_321, 250_000]], dtype=dtype)
    values = schedule(steps)
    assert values.dtype == torch.float32
    assert values.shape == steps.shape
    assert values.flatten().tolist() == [at(schedule, step) for step in steps.flatten().tolist()]
    assert (values > 0).all()
    assert (values.flatten().diff() <= 0).all()


@pytest.mark.parametrize("name", SCHEDULES)
def test_describes_itself(name: str) -> None:
    schedule = SCHEDULES[name]()
    assert schedule.name == name
    assert schedule.describe()


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
@pytest.mark.parametrize(("name", "field"), NUMBERS)
def test_numbers_must_be_positive(name: str, field: str, value: float) -> None:
    numbers = {field: value} if not isinstance(value, float) else {field: float(value)}
    with pytest.raises(UsageError) as raised:
        build_unchecked(SCHEDULES[name], numbers)
    message = str(raised.value)
    assert f"{field}={value}" in message
    assert "\n" not in message


def build_unchecked(schedule: type[Schedule], numbers: dict[str, float]) -> Schedule:
    """The schedule with these numbers, integer fields included, as a configuration file could give them."""
    built = schedule()
    for field, value in numbers.items():
        setattr(built, field, value)
    built.__post_init__()
    return built
