"""A run's own `config.yaml` as a configuration to start from: the overrides that give it, then those of the user."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString

from argmax_vae import engines
from argmax_vae.composition import SEARCH_PATH, parse, search_path
from argmax_vae.errors import UsageError
from argmax_vae.options import config_directory, groups, primary_configs
from argmax_vae.schema import MODELS

BASE = "train"
"""The primary config that stored configurations start from."""
NOT_SET = ("chosen",)
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
        parsed = parse(OverridesParser.create(), overrides)
        path = home_of(config_name, search_path(parsed)) / f"{config_name}.yaml"
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
    plain = read(path)
    if "defaults" in plain:
        return path.stem, [f"{SEARCH_PATH}=[{text(str(path.parent.absolute()))}]", *overrides]
    return BASE, [*kept(path, plain, overrides), *overrides]


def home_of(config_name: str, directories: Sequence[Path]) -> Path:
    """The directory that holds a primary config: the package's own, or the first of these."""
    found = (directory for directory in directories if (directory / f"{config_name}.yaml").is_file())
    own = config_directory()
    return own if config_name in primary_configs() else next(found, own)


def read(path: Path) -> dict[str, Any]:
    """The mapping in a yaml file. Raises UsageError when it is none."""
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        plain = None
    if not isinstance(plain, dict):
        raise UsageError(f"{path} is no config: it cannot be read as a mapping in YAML")
    return plain


def kept(path: Path, plain: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """The overrides that give a stored configuration, but for what the given ones choose anew."""
    given = parse(OverridesParser.create(), overrides)
    chosen = {f"{each.key_or_group}@{each.package}" if each.package else each.key_or_group for each in given}
    if "experiment" in chosen:
        raise UsageError(f"experiment=NAME cannot be added to {path}, whose values are all set; use {BASE} for it")
    try:
        options = list(choices(plain))
    except (KeyError, TypeError, AttributeError):
        raise UsageError(f"{path} is no config of a run: it lacks data, model or estimator") from None
    found = [f"{key}={option}" for key, option in options if not {key, key.split("@")[-1].split(".")[0]} & chosen]
    sections = tuple(f"{key.split('@')[-1]}." for key in chosen if key in groups() or "@" in key)
    for key, value in leaves(plain):
        if not f"{key}.".startswith((*sections, *(f"{name}." for name in NOT_SET))):
            found.append(f"{key}={text(value)}")
    return [override for override in found if not engines.is_hydras(override)]


def choices(plain: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The groups of a stored configuration whose option decides which keys there are."""
    yield "data", plain["data"]["name"]
    model = plain["model"]["name"]
    yield "model", model if model in MODELS or model in groups()["model"] else "linear"
    yield "estimator", plain["estimator"]["name"]
    for key, value in plain["estimator"].items():
        if isinstance(value, dict):
            yield f"schedule@estimator.{key}", value["name"]


def leaves(plain: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys of nested mappings with their values."""
    for key, value in plain.items():
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
