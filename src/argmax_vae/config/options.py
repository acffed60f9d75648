"""What there is to choose: primary configs, groups and their options, and which option has which key."""

import difflib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

from argmax_vae.config.schema import DATA, MODELS, Config
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.schedules import SCHEDULES, Schedule


def config_directory() -> Path:
    """The YAML files: inside the installed package, else at the top of the repository."""
    packaged = Path(__file__).parents[1] / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "conf"


def primary_configs(more: Sequence[Path] = ()) -> list[str]:
    """Names of the configurations that a command can start from, those in `more` directories included."""
    return sorted({path.stem for directory in (config_directory(), *more) for path in directory.glob("*.yaml")})


def groups(more: Sequence[Path] = ()) -> dict[str, list[str]]:
    """The groups of options, and the options of each, those in `more` directories included."""
    found: dict[str, set[str]] = {}
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
