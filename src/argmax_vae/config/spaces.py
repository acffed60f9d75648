"""Spaces of values to search over: what Hydra's grammar of sweeps says, as distributions of Optuna."""

import itertools
import math
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep

from argmax_vae.config.options import groups
from argmax_vae.config.overrides import expand, parse, search_path
from argmax_vae.errors import UsageError

LARGEST_RANGE = 10_000
"""Values that a range may have."""
SPACES = "KEY=interval(LOW,HIGH), KEY=tag(log,interval(LOW,HIGH)), KEY=range(FROM,TO,STEP) or KEY=A,B,C"


def spaces(overrides: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Overrides with one value, and the distributions that the others span, by their key.

    Raises UsageError when none spans a space, or one is none.
    """
    fixed, spanned = split(overrides)
    options = groups(search_path(parse(fixed)))
    return fixed, {key: distribution(override, options) for key, override in spanned.items()}


def split(overrides: list[str]) -> tuple[list[str], dict[str, Override]]:
    """Overrides with one value, and those that span a space by their key. Raises UsageError when none does."""
    parsed = parse(overrides)
    fixed = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
    spaces = {override.get_key_element(): override for override in parsed if override.is_sweep_override()}
    if not spaces:
        raise UsageError(f"nothing to search over: give at least one key a space, {SPACES}")
    return fixed, spaces


def distribution(override: Override, options: dict[str, list[str]]) -> Any:
    """The space of a key as Optuna's distribution, groups having these options. Raises UsageError where it is none."""
    from optuna import distributions

    value = override.value()
    try:
        if isinstance(value, IntervalSweep):
            low, high = float(value.start or 0.0), float(value.end or 0.0)
            if not (math.isfinite(low) and math.isfinite(high)):
                raise ValueError("its ends must be finite")
            return distributions.FloatDistribution(low, high, log="log" in value.tags)
        if isinstance(value, RangeSweep):
            numbers = list(itertools.islice(value.range(), LARGEST_RANGE + 1))
            if len(numbers) > LARGEST_RANGE:
                raise ValueError(f"it has more than {LARGEST_RANGE} values; use interval(LOW,HIGH)")
            if all(isinstance(number, int) for number in numbers):
                return distributions.IntDistribution(int(numbers[0]), int(numbers[-1]), step=int(value.step))
            last = Decimal(str(numbers[0])) + (len(numbers) - 1) * Decimal(str(value.step))
            return distributions.FloatDistribution(numbers[0], float(last), step=value.step)
        if isinstance(value, ChoiceSweep | Glob):
            single = expand(override, options)
            return distributions.CategoricalDistribution([each.partition("=")[2] for each in single])
    except (ValueError, IndexError, ArithmeticError, TypeError) as error:
        raise UsageError(str(error) if isinstance(error, UsageError) else f"{override.input_line}: {error}") from None
    raise UsageError(f"{override.input_line}: no space to search; allowed are {SPACES}")
