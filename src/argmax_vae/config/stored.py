"""A run's own `config.yaml` as a configuration to start from: the overrides that give it, then those of the user."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from argmax_vae.config import launchers
from argmax_vae.config.messages import one_line_errors
from argmax_vae.config.options import config_directory, groups, nearest, primary_configs, read, split_rows
from argmax_vae.config.overrides import SEARCH_PATH, parse, search_path
from argmax_vae.config.schema import DATA, MODELS, Config
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.schedules import SCHEDULES
from argmax_vae.plugins import require_used

BASE = "train"
"""The primary config that stored configurations start from."""
NOT_SET = ("chosen", "tuned", "rows")
"""Sections that have no effect on a configuration whose values are all known."""
YAML = (".yaml", ".yml")


def start(config_name: str, overrides: Sequence[str]) -> tuple[str, list[str]]:
    """The primary config and the overrides that `config_name` stands for, those given last.

    The name of a primary config is just that, whatever lies in the working directory. Else `config_name` may be the
    path of a run's directory or of its `config.yaml`, and that of another file of configs, whose directory then has
    further options. Raises UsageError when there is no such file, or it is damaged.
    """
    if config_name in primary_configs():
        return config_name, list(overrides)
    path = Path(config_name)
    is_path = path.suffix in YAML or len(path.parts) > 1 or path.is_dir()
    if not is_path:
        parsed = parse(overrides)
        directories = search_path(parsed)
        path = home_of(config_name, directories) / f"{split_rows(config_name, directories)[0]}.yaml"
        if path.parent == config_directory() or "defaults" in read(path):
            return config_name, list(overrides)
        rest = [str(override.input_line) for override in parsed if override.key_or_group != SEARCH_PATH]
        return start(str(path), rest)
    if path.is_dir() and (path / "config.yaml").is_file():
        path = path / "config.yaml"
    if not path.is_file():
        if len(path.parts) == 1 and path.suffix in YAML:
            return path.stem, list(overrides)
        raise UsageError(
            f"{config_name}: no such config; give a name, such as {BASE}, a run's directory or a yaml file"
        )
    config_dict = read(path)
    if "defaults" in config_dict:
        return path.stem, [f"{SEARCH_PATH}=[{text(str(path.parent.absolute()))}]", *overrides]
    return BASE, [*kept(path, config_dict, overrides), *overrides]


def home_of(config_name: str, directories: Sequence[Path]) -> Path:
    """The directory that holds a primary config: the package's own, or the first of these."""
    config_name, _ = split_rows(config_name, directories)
    found = (directory for directory in directories if (directory / f"{config_name}.yaml").is_file())
    own = config_directory()
    return own if config_name in primary_configs() else next(found, own)


def kept(path: Path, config_dict: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """The overrides that give a stored configuration, but for what the given ones choose anew."""
    given = parse(overrides)
    chosen = {f"{each.key_or_group}@{each.package}" if each.package else each.key_or_group for each in given}
    if "experiment" in chosen:
        raise UsageError(f"experiment=NAME cannot be added to {path}, whose values are all set; use {BASE} for it")
    try:
        options = list(choices(config_dict))
    except (KeyError, TypeError, AttributeError):
        raise UsageError(f"{path} is no config of a run: it lacks data, model or estimator") from None
    found = [f"{key}={option}" for key, option in options if not {key, key.split("@")[-1].split(".")[0]} & chosen]
    sections = tuple(f"{key.split('@')[-1]}." for key in chosen if key in groups() or "@" in key)
    for key, value in leaves(config_dict):
        if not f"{key}.".startswith((*sections, *(f"{name}." for name in NOT_SET))):
            found.append(f"{key}={text(value)}")
    return [override for override in found if not launchers.is_hydras(override)]


def choices(config_dict: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The groups of a stored configuration whose option decides which keys there are."""
    yield "data", config_dict["data"]["name"]
    model = config_dict["model"]["name"]
    yield "model", model if model in MODELS or model in groups()["model"] else "linear"
    yield "estimator", config_dict["estimator"]["name"]
    for key, value in config_dict["estimator"].items():
        if isinstance(value, dict):
            yield f"schedule@estimator.{key}", value["name"]


def leaves(config_dict: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys of nested mappings with their values."""
    for key, value in config_dict.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        elif value != {}:
            yield f"{prefix}{key}", value


def text(value: Any) -> str:
    """A value as Hydra's overrides write it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, str):
        return QuotedString(value, Quote.single).with_quotes()
    if isinstance(value, list):
        return f"[{','.join(map(text, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{text(inner)}' for key, inner in value.items())}}}"
    return repr(value)


LATER_SECTIONS = ("laboratory", "supervision")
"""Sections that runs of earlier versions lack."""


def config_of_dict(config_dict: dict[str, Any], origin: Mapping[str, Any] | None = None) -> Config:
    """The configuration that `to_dict` gave, for example from a run's directory.

    `origin` is the run's provenance. Raises UsageError when a key is unknown or missing, a value out of range, or a
    package missing that brought an option of the run.
    """
    require_used(origin or {})
    try:
        values = dict(config_dict)
        given: dict[str, Any] = {**{name: {} for name in LATER_SECTIONS}, **config_dict}
        for section in fields(Config):
            if isinstance(section.type, type) and is_dataclass(section.type) and section.name != "estimator":
                known = given[section.name]
                kinds: Mapping[str, type] = (
                    MODELS if section.name == "model" else DATA if section.name == "data" else {}
                )
                kind = kinds.get(known.get("name", ""), section.type)
                values[section.name] = kind(**known)
        estimator: dict[str, Any] = {
            name: SCHEDULES[value["name"]](**value) if isinstance(value, dict) else value
            for name, value in config_dict["estimator"].items()
        }
        values["estimator"] = ESTIMATORS[estimator["name"]].config_class(**estimator)
        return Config(**values)
    except (KeyError, TypeError) as error:
        raise UsageError(f"stored configuration does not fit this version: {error}") from None


def overridden(config_dict: dict[str, Any], overrides: list[str], allowed: list[str], verb: str) -> dict[str, Any]:
    """A stored configuration with other values at some keys `section.name`, of their types.

    Raises UsageError, naming the verb, for a key that is not in `allowed`, and for a value of the wrong type.
    """
    changed = copy.deepcopy(config_dict)
    types = {section.name: section.type for section in fields(Config)}
    for override in overrides:
        key, _, _ = override.partition("=")
        if key not in allowed:
            raise UsageError(f"{verb} cannot override {key!r}{nearest(key, allowed)}; it can {', '.join(allowed)}")
        section = key.split(".")[0]
        with one_line_errors((override,)):
            try:
                given = OmegaConf.from_dotlist([override])
            except YAMLError:
                raise UsageError(f"{override!r} is no override: write key=value") from None
            try:
                merged = OmegaConf.merge(OmegaConf.structured(types[section]), changed[section], given[section])
            except OmegaConfBaseException as error:
                raise UsageError(f"{override}: {str(error).strip().splitlines()[0]}") from None
        container = OmegaConf.to_container(merged)
        assert isinstance(container, dict)
        changed[section] = container
    return changed
