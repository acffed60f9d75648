"""Overrides of the command line: what each is of, the values it sweeps over, and where Hydra searches."""

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from argmax_vae.config import launchers
from argmax_vae.config.messages import check_option, one_line_errors
from argmax_vae.errors import UsageError

PLAIN_KEYS = ("seeds", "table", "protocol")
LARGEST_SWEEP = 10_000
NO_EXPERIMENT = "experiment=null"
"""The default, which Hydra does not take as an override."""
SEARCH_PATH = "hydra.searchpath"


@lru_cache(maxsize=10_000)
def parsed(override: str) -> Override:
    """An override, parsed; it is kept, so not to be changed. Raises HydraException."""
    return OverridesParser.create().parse_override(override)


def is_value(override: Override) -> bool:
    """Whether an override is of a key `section.key` of a run."""
    key = override.key_or_group
    return "." in key and "/" not in key and override.package is None and not launchers.is_hydras(key)


def comes_before_values(override: Override) -> bool:
    """Whether setting it before all keys `section.key`, wherever it was given, gives what Hydra gives."""
    of_group = isinstance(override.value(), str | None) and not override.is_delete()
    return of_group or override.key_or_group in PLAIN_KEYS or launchers.is_hydras(str(override.input_line))


def parse(overrides: Sequence[str]) -> list[Override]:
    """The overrides, parsed. Raises UsageError for what is none, or what Hydra would take and stumble over later."""
    found = []
    for override in overrides:
        try:
            one = parsed(override)
        except HydraException:
            raise UsageError(
                f"{override!r} is no override: write key=value or group=option, and quote special characters, "
                "such as key='\"a=b\"'"
            ) from None
        if not one.key_or_group:
            raise UsageError(f"{override!r} has no key: write key=value or group=option")
        if one.key_or_group == launchers.GROUP and one.is_sweep_override():
            raise UsageError(f"{override}: name one engine for the whole sweep")
        if launchers.is_hydras(override) and one.is_sweep_override():
            raise UsageError(f"{override}: Hydra's own choices have one value for the whole sweep")
        found.append(one)
    return found


def unfolded(override: str, options: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """An override with one value as those that it stands for: `experiment=NAME_ESTIMATOR` chooses both."""
    key, _, value = override.partition("=")
    if key != "experiment" or value in options["experiment"]:
        return (override,)
    for name in options["experiment"]:
        estimator = value.removeprefix(f"{name}_")
        if estimator != value and estimator in options["estimator"]:
            return (f"experiment={name}", f"estimator={estimator}")
    return (override,)


def expand(override: Override, options: dict[str, list[str]]) -> list[str]:
    """The overrides with one value that a sweep stands for. Raises UsageError when it stands for none."""
    given = str(override.input_line)
    if not override.is_sweep_override():
        for each in unfolded(given, options):
            check_option(parsed(each), options)
        return [NO_EXPERIMENT if override.key_or_group == "experiment" and override.value() is None else given]
    key, group, value = override.get_key_element(), override.key_or_group, override.value()
    if isinstance(value, Glob):
        if group not in options:
            raise UsageError(f"{given}: glob is for groups of options; there are {', '.join(options)}")
        matching = value.filter(options[group])
        if not matching:
            raise UsageError(f"{given}: no option matches; there are {', '.join(options[group])}")
        return [f"{key}={name}" for name in matching]
    if not override.is_discrete_sweep():
        raise UsageError(
            f"{given}: only `argmax-vae search` takes intervals; write KEY=A,B,C or KEY=range(FROM,TO,STEP)"
        )
    with one_line_errors((given,)):
        single = [f"{key}={text}" for text in itertools.islice(override.sweep_string_iterator(), LARGEST_SWEEP + 1)]
    if group in options:
        for each in itertools.chain.from_iterable(unfolded(one, options) for one in single):
            check_option(parsed(each), options)
    if not single:
        raise UsageError(f"{given}: there is no value in it")
    return single


def search_path(overrides: Sequence[Override]) -> list[Path]:
    """The directories of further configs and options that overrides name. Raises UsageError when one is not there."""
    given = [override for override in overrides if override.key_or_group == SEARCH_PATH]
    if not given:
        return []
    paths = given[0].value()
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise UsageError(f"{given[0].input_line}: must be a list of directories, such as {SEARCH_PATH}=[my/conf]")
    found = [Path(str(path).removeprefix("file://")) for path in paths if not str(path).startswith("pkg://")]
    for directory in found:
        if not directory.is_dir():
            raise UsageError(f"{directory}: no such directory of configs")
    return found
