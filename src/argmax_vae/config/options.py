"""What there is to choose: primary configs, groups and their options, and which option has which key."""

import copy
import difflib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from argmax_vae.config.schema import DATA, MODELS, Config
from argmax_vae.data.datasets import DATASETS
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.base import schedule_names
from argmax_vae.estimators.schedules import SCHEDULES, Constant, Schedule
from argmax_vae.objective.terms import KL_CHOICES
from argmax_vae.runs.trackers import TRACKERS

YAML_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
NAMED_SCHEDULES: dict[str, Schedule] = {name: kind(name=name) for name, kind in SCHEDULES.items()}
NAMED_SCHEDULES["constant_one"] = Constant(value=1.0)
"""Schedules by the names of their options, with the values that each starts from.

A default of another package's estimator that is none of the others is the option ESTIMATOR_CHOICE.
"""
for outside_name, outside_kind in ESTIMATORS.outside.items():
    for choice in schedule_names(outside_kind.config_class):
        schedule = getattr(outside_kind.config_class(name=outside_name), choice)
        if schedule not in NAMED_SCHEDULES.values():
            NAMED_SCHEDULES[f"{outside_name}_{choice}"] = schedule
REGISTERED: dict[str, tuple[str, ...]] = {
    "estimator": tuple(ESTIMATORS),
    "data": tuple(DATASETS.outside),
    "model": tuple(MODELS.outside),
    "schedule": tuple(NAMED_SCHEDULES),
    "objective": KL_CHOICES,
    "tracker": tuple(TRACKERS),
    "optim": ("adam",),
    "trainer": ("default",),
    "runtime": ("default",),
    "paths": ("default",),
}
"""Options that are no files: their values are the defaults of the classes that they configure, or of other packages."""


def config_directory() -> Path:
    """The YAML files: inside the installed package, else at the top of the repository."""
    packaged = Path(__file__).parents[1] / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "conf"


def primary_configs(more: Sequence[Path] = ()) -> list[str]:
    """Names of the configurations that a command can start from, those in `more` directories included."""
    return sorted(
        {
            name
            for directory in (config_directory(), *more)
            for path in directory.glob("*.yaml")
            for name in (path.stem, *list(further_rows(path)))
        }
    )


def further_rows(path: Path) -> dict[str, list[str]]:
    """The rows of a primary config behind its first ones, by the name that selects them: `TABLE_ROWS`.

    A file that is no config has none: it may be of something else, and is refused when it is chosen.
    """
    try:
        named = list(rows_of(path).items())[1:]
    except UsageError:
        return {}
    return {f"{path.stem}_{name}": overrides for name, overrides in named}


def rows_of(path: Path) -> dict[str, list[str]]:
    """The overrides that make the cells of a primary config, by the names of its rows. Raises UsageError."""
    rows = read(path).get("rows", {})
    if not isinstance(rows, dict) or not all(isinstance(overrides, list) for overrides in rows.values()):
        raise UsageError(f"{path}: rows must have lists of overrides by name, such as published: [estimator=direct]")
    return {str(name): [str(override) for override in overrides] for name, overrides in rows.items()}


def split_rows(config_name: str, more: Sequence[Path] = ()) -> tuple[str, list[str]]:
    """The primary config that a name stands for, and the overrides that make its cells."""
    for directory in (config_directory(), *more):
        if (path := directory / f"{config_name}.yaml").is_file():
            return config_name, next(iter(rows_of(path).values()), [])
        for path in directory.glob("*.yaml"):
            if config_name.startswith(f"{path.stem}_") and config_name in (named := further_rows(path)):
                return path.stem, named[config_name]
    return config_name, []


def read(path: Path) -> dict[str, Any]:
    """The mapping in a yaml file. Raises UsageError when it is none."""
    try:
        state = path.stat()
        parsed = parsed_yaml(path, state.st_mtime_ns, state.st_size)
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError):
        parsed = None
    if not isinstance(parsed, dict):
        raise UsageError(f"{path} is no config: it cannot be read as a mapping in YAML")
    return copy.deepcopy(parsed)


@lru_cache(maxsize=100)
def parsed_yaml(path: Path, changed: int, size: int) -> Any:
    """What a file says that was last changed at that time; it is kept, so not to be changed."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=YAML_LOADER)


def groups(more: Sequence[Path] = ()) -> dict[str, list[str]]:
    """The groups of options, and the options of each, those in `more` directories included."""
    found = {group: set(options) for group, options in REGISTERED.items()}
    for directory in (config_directory(), *more):
        for path in directory.glob("*/*.yaml"):
            found.setdefault(path.parent.name, set()).add(path.stem)
    return {group: sorted(options) for group, options in sorted(found.items())}


def owners() -> dict[str, list[str]]:
    """For every key that only some options have, the choices that bring it."""
    found: dict[str, list[str]] = {}
    for name, estimator in ESTIMATORS.items():
        for inner in fields(estimator.config_class):
            keys = [f"estimator.{inner.name}"]
            keys += [f"schedule@estimator.{inner.name}"] if inner.type is Schedule else []
            for key in keys:
                found.setdefault(key, []).append(f"estimator={name}")
    for schedule, field in ((s, f) for s in SCHEDULES.items() for f in schedule_fields()):
        for inner in fields(schedule[1]):
            found.setdefault(f"estimator.{field}.{inner.name}", []).append(f"schedule@estimator.{field}={schedule[0]}")
    for group, kinds in (("model", MODELS), ("data", DATA)):
        for name, kind in kinds.items():
            for inner in fields(kind):
                found.setdefault(f"{group}.{inner.name}", []).append(f"{group}={name}")
    return found


def schedule_fields() -> list[str]:
    """Names of the schedules that estimators have."""
    inner = (inner for estimator in ESTIMATORS.values() for inner in fields(estimator.config_class))
    return sorted({field.name for field in inner if field.type is Schedule})


def all_keys() -> list[str]:
    """Groups and dotted keys of a run's configuration, those of every option included."""
    keys = ["seeds", "table", "protocol", *(group for group in groups() if group != "schedule"), *owners()]
    for section in fields(Config):
        if is_dataclass(section.type):
            keys += [f"{section.name}.{inner.name}" for inner in fields(section.type)]
    return sorted(set(keys))


def nearest(name: str, allowed: list[str]) -> str:
    """`; did you mean …?` with the closest allowed name, or nothing."""
    close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.4)
    return f"; did you mean {close[0]!r}?" if close else ""
