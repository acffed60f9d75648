"""The examples for models of one's own learn what they say."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "scripts" / "examples"


@pytest.mark.parametrize(
    ("example", "estimator", "chance"),
    [("attention.py", "direct", 0.25), ("attention.py", "relax", 0.25), ("bandit.py", "reinforce", 0.2)],
)
def test_an_example_learns(example: str, estimator: str, chance: float) -> None:
    train = runpy.run_path(str(EXAMPLES / example))["train"]
    assert train(estimator, 200) > 2.5 * chance


def test_examples_are_short() -> None:
    for path in EXAMPLES.rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 60, path.name
