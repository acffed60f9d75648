"""What there is to choose: primary configs, groups and their options, and all keys."""

import difflib
from dataclasses import fields, is_dataclass
from pathlib import Path

from argmax_vae.estimators import ESTIMATORS
from argmax_vae.schedules import SCHEDULES
from argmax_vae.schema import Config


def config_directory() -> Path:
    """The YAML files: inside the installed package, else at the top of the repository."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"


def primary_configs() -> list[str]:
    """Names of the configurations that a command can start from."""
    return sorted(path.stem for path in config_directory().glob("*.yaml"))


def groups() -> dict[str, list[str]]:
    """The groups of options, and the options of each."""
    found: dict[str, list[str]] = {}
    for path in sorted(config_directory().glob("*/*.yaml")):
        found.setdefault(path.parent.name, []).append(path.stem)
    return found


def all_keys() -> list[str]:
    """Groups and dotted keys of a run's configuration, estimator choices included."""
    keys = ["seeds", "table", "protocol", *(group for group in groups() if group != "schedule")]
    keys += [f"schedule@estimator.{name}" for name in ("epsilon", "temperature")]
    for section in fields(Config):
        if is_dataclass(section.type):
            keys += [f"{section.name}.{inner.name}" for inner in fields(section.type)]
    for estimator in ESTIMATORS.values():
        keys += [f"estimator.{inner.name}" for inner in fields(estimator.config_class)]
    for schedule in SCHEDULES.values():
        keys += [f"estimator.{name}.{inner.name}" for name in ("epsilon", "temperature") for inner in fields(schedule)]
    return sorted(set(keys))


def nearest(name: str, allowed: list[str]) -> str:
    """`; did you mean …?` with the closest allowed name, or nothing."""
    close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.4)
    return f"; did you mean {close[0]!r}?" if close else ""
