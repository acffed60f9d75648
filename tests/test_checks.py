"""Range checks: every number, size and text of the schema is bounded, and a refusal names its key."""

import math
import re
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from argmax_vae.config.schema import DATA, MODELS, Config
from argmax_vae.errors import LARGEST_COUNT, LARGEST_FLOAT, LARGEST_SIZE, SMALLEST_FLOAT, UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.schedules import SCHEDULES
from argmax_vae.models.discrete import ModelConfig
from argmax_vae.objective.labels import SupervisionConfig

SECTIONS: list[tuple[str, type]] = [
    *((f"{section.name}.", section.type) for section in fields(Config) if is_dataclass(section.type)),  # type: ignore[misc]
    *(("model.", kind) for kind in MODELS.values()),
    *(("data.", kind) for kind in DATA.values()),
    *(("estimator.", estimator.config_class) for estimator in ESTIMATORS.values()),
    *(("", schedule) for schedule in SCHEDULES.values()),
]
BAD: dict[Any, list[Any]] = {
    float: [math.inf, -math.inf, math.nan, 10 * LARGEST_FLOAT],
    list[float]: [[math.inf], [math.nan, 1.0], [10 * LARGEST_FLOAT]],
    int: [10**20, -1],
    list[int]: [[10**20], [0]],
    str: ["", " "],
}
CASES = [
    pytest.param(kind, prefix, inner.name, bad, id=f"{kind.__name__}.{inner.name}={bad}")
    for prefix, kind in SECTIONS
    for inner in fields(kind)
    for bad in BAD.get(inner.type, [])
    if f"{prefix}{inner.name}" not in ("estimator.name", "name") and not (bad == inner.default == "")
]
"""An empty text that is a default stands for none."""


@pytest.mark.parametrize(("kind", "prefix", "name", "bad"), CASES)
def test_nonsense_is_refused_with_its_key(kind: type, prefix: str, name: str, bad: Any) -> None:
    with pytest.raises(UsageError, match=re.escape(f"{prefix}{name}=")) as refused:
        kind(**{name: bad})
    assert "must be " in str(refused.value)


@pytest.mark.parametrize(
    "latents", [f"{10**20}x2", f"2x{10**20}", "1024x1025", f"1x{LARGEST_SIZE + 1}", "9" * 5000 + "x2"]
)
def test_latents_have_a_largest_size(latents: str) -> None:
    with pytest.raises(UsageError, match="n times k at most 1048576"):
        ModelConfig(latents=latents)
    assert ModelConfig(latents="1024x1024").k == 1024


def test_enumeration_refuses_what_cannot_be_counted() -> None:
    with pytest.raises(UsageError, match=r"estimator\.limit=4096"):
        ESTIMATORS["exact"].config_class().validate_latents(2**19, 2)
    ESTIMATORS["exact"].config_class().validate_latents(12, 2)


def test_the_ends_of_a_range_are_allowed() -> None:
    for value in (SMALLEST_FLOAT, LARGEST_FLOAT):
        assert SCHEDULES["constant"](value=value).describe()
        assert SupervisionConfig(weight=value).weight == value
    assert SupervisionConfig(labelled_visits=LARGEST_COUNT).labelled_visits == LARGEST_COUNT
    for value in (0.9 * SMALLEST_FLOAT, 1e-46, 0.0):
        with pytest.raises(UsageError, match=f"weight={value} must be greater than 0, in float32: from 1.2"):
            SupervisionConfig(weight=value)
