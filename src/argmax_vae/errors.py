"""What a user can mend, as one line, and the checks of values that find it: `key=value must be RANGE`. Exit codes."""

import math
from collections.abc import Collection, Iterable

DONE, SOME_FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes of commands: all is done, some cells failed, nothing was begun, the same command goes on."""


class UsageError(ValueError):
    """A wrong key, value or file, named in one line together with what is allowed or what to do."""


LARGEST_COUNT = 2**31 - 1
"""Of what is counted: epochs, steps, images, samples."""
LARGEST_SIZE = 2**20
"""Of a layer, or of all latent variables together."""
SMALLEST_FLOAT, LARGEST_FLOAT = 2.0**-126, (2 - 2.0**-23) * 2.0**127
"""The normal numbers of float32, in which everything is computed."""
POSITIVE = f"greater than 0, in float32: from {SMALLEST_FLOAT:.2g} to {LARGEST_FLOAT:.2g}"


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Raise UsageError `key=value must be allowed` unless the condition holds."""
    if not condition:
        raise UsageError(f"{key}={value} must be {allowed}")


def require_one_of(key: str, value: str, allowed: Collection[str]) -> None:
    """Raise UsageError unless the value is one of these words."""
    require(value in allowed, key, value, f"one of {', '.join(allowed)}")


def require_text(key: str, value: str) -> None:
    """Raise UsageError unless the value has printable characters alone, and at least one."""
    require(bool(value.strip()) and value.isprintable(), key, repr(value), "text of printable characters, not empty")


def require_count(key: str, value: int, smallest: int = 1) -> None:
    """Raise UsageError unless the value is a count from `smallest` to LARGEST_COUNT."""
    require(value >= smallest, key, value, f"at least {smallest}")
    require(value <= LARGEST_COUNT, key, value, f"at most {LARGEST_COUNT}")


def require_sizes(key: str, values: list[int], at_least_one: bool = False) -> None:
    """Raise UsageError unless all values are sizes of layers, from 1 to LARGEST_SIZE."""
    allowed = f"a list of sizes from 1 to {LARGEST_SIZE}"
    require(all(1 <= size <= LARGEST_SIZE for size in values), key, values, allowed)
    require(len(values) > 0 or not at_least_one, key, values, "a list of at least one size")


def is_positive(value: float) -> bool:
    """Whether a number is greater than 0 and finite, in float32 too."""
    return SMALLEST_FLOAT <= value <= LARGEST_FLOAT


def require_positive(key: str, value: float) -> None:
    """Raise UsageError unless the value is greater than 0 and finite, in float32 too."""
    require(is_positive(value), key, value, POSITIVE)


def require_all_positive(key: str, values: Iterable[float]) -> None:
    """Raise UsageError unless the values are different numbers greater than 0, and at least one."""
    found = list(values)
    require(bool(found) and all(map(is_positive, found)), key, found, f"a list of numbers {POSITIVE}")
    require(len(set(found)) == len(found), key, found, "a list without repetitions")


def require_finite(key: str, value: float) -> None:
    """Raise UsageError unless the value is a finite number, in float32 too."""
    finite = math.isfinite(value) and abs(value) <= LARGEST_FLOAT
    require(finite, key, value, f"a number from {-LARGEST_FLOAT:.2g} to {LARGEST_FLOAT:.2g}")


def require_fraction(key: str, value: float) -> None:
    """Raise UsageError unless the value is at least 0 and less than 1."""
    require(0 <= value < 1, key, value, "at least 0 and less than 1")
