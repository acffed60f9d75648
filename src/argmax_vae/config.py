"""Composition: from a primary config and overrides to checked configurations, by Hydra and OmegaConf."""

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from argmax_vae import engines
from argmax_vae.composition import LARGEST_SWEEP, NO_EXPERIMENT, SEARCH_PATH, Composer, expand, parse, search_path
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.messages import one_line_errors, unknown_key
from argmax_vae.options import config_directory, groups, nearest, primary_configs
from argmax_vae.schedules import SCHEDULES, Schedule
from argmax_vae.schema import DATA, MODELS, Config
from argmax_vae.stored import home_of, start, text

REGISTERED: dict[tuple[Any, str], type] = {}
"""What is in Hydra's store already, by group and name."""


def register() -> None:
    """Put the schema into Hydra's store: `schema` for a run, `schema_NAME` for each estimator, schedule and so on."""
    engines.register_resolvers()
    kinds: list[tuple[Any, str, type]] = [(None, "schema", Config)]
    kinds += [("estimator", f"schema_{name}", estimator.config_class) for name, estimator in ESTIMATORS.items()]
    for group, options in (("model", MODELS), ("data", DATA), ("schedule", SCHEDULES)):
        kinds += [(group, f"schema_{name}", kind) for name, kind in options.items()]
    for group, name, kind in kinds:
        if REGISTERED.get((group, name)) is not kind:
            node = OmegaConf.structured(kind)
            for inner in fields(kind):
                if inner.type is Schedule:
                    node[inner.name] = MISSING
            ConfigStore.instance().store(group=group, name=name, node=node)
            REGISTERED[group, name] = kind


@dataclass(frozen=True)
class Cell:
    """One configuration of a sweep: the overrides that select it, as an object and as a plain dict.

    `home`, `config_name`: the directory and the name of the primary config that the overrides are of.
    """

    overrides: tuple[str, ...]
    config: Config
    plain: dict[str, Any]
    home: Path = field(default_factory=config_directory)
    config_name: str = "train"


def to_config(composed: DictConfig) -> Config:
    """The checked configuration object. Raises UsageError for a value of the wrong type or out of range."""
    with one_line_errors(()):
        for name, value in composed.estimator.items_ex(resolve=False):
            check_schedule(f"estimator.{name}", value)
        config = OmegaConf.to_object(composed)
        given = leaves(to_plain(composed))
    assert isinstance(config, Config)
    known = leaves(asdict(config))
    for key in sorted(given - known):
        raise UsageError(unknown_key(key, composed))
    for key in sorted(known - given):
        raise UsageError(f"key {key!r} cannot be removed, only set: {key}=VALUE")
    return config


def check_schedule(key: str, value: Any) -> None:
    """Raise UsageError, naming the key, when the schedule there has a value out of range: it does not know its own."""
    if isinstance(value, DictConfig):
        try:
            OmegaConf.to_object(value)
        except UsageError as error:
            raise UsageError(f"{key}.{error}") from None


def leaves(plain: Mapping[str, Any], prefix: str = "") -> set[str]:
    """The dotted keys of nested dicts; an empty one is a value."""
    found = set()
    for key, value in plain.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}"}
    return found


def to_plain(composed: DictConfig) -> dict[str, Any]:
    """The configuration as dicts, lists, strings and numbers, interpolations resolved."""
    plain = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


LATER_SECTIONS = ("laboratory", "supervision")
"""Sections that runs of earlier versions lack."""


def from_plain(plain: dict[str, Any]) -> Config:
    """The configuration that `to_plain` gave, for example from a run's directory.

    Raises UsageError when a key is unknown or missing, or a value out of range.
    """
    try:
        values = dict(plain)
        for section in fields(Config):
            if isinstance(section.type, type) and is_dataclass(section.type) and section.name != "estimator":
                known = plain.get(section.name, {}) if section.name in LATER_SECTIONS else plain[section.name]
                kinds: Mapping[str, type] = (
                    MODELS if section.name == "model" else DATA if section.name == "data" else {}
                )
                kind = kinds.get(known.get("name", ""), section.type)
                values[section.name] = kind(**known)
        estimator: dict[str, Any] = {
            name: SCHEDULES[value["name"]](**value) if isinstance(value, dict) else value
            for name, value in plain["estimator"].items()
        }
        values["estimator"] = ESTIMATORS[estimator["name"]].config_class(**estimator)
        return Config(**values)
    except (KeyError, TypeError) as error:
        raise UsageError(f"stored configuration does not fit this version: {error}") from None


def overridden(plain: dict[str, Any], overrides: list[str], allowed: list[str], verb: str) -> dict[str, Any]:
    """A stored configuration with other values at some keys `section.name`, of their types.

    Raises UsageError, naming the verb, for a key that is not in `allowed`, and for a value of the wrong type.
    """
    changed = copy.deepcopy(plain)
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


def cells(config_name: str, overrides: Sequence[str], composer: Composer | None = None) -> list[Cell]:
    """Every configuration that a primary config and overrides select, sweeps expanded, all of them checked.

    `config_name` may also be the path of a run or of a yaml file, as in `stored.start`; `composer`: one of an earlier
    call for the same config, which keeps what it composed. Raises UsageError in one line
    for an unknown config, group option or key, and for a bad value.
    """
    config_name, overrides = start(config_name, overrides)
    register()
    parser = OverridesParser.create()
    parsed = parse(parser, overrides)
    directories = search_path(parsed)
    home = home_of(config_name, directories)
    if home != config_directory():
        places = text([str(place.absolute()) for place in (config_directory(), *directories)])
        others = [each for each in parsed if each.key_or_group != SEARCH_PATH]
        parsed = [parser.parse_override(f"{SEARCH_PATH}={places}"), *others]
    allowed, options = primary_configs(directories), groups(directories)
    if config_name not in allowed:
        raise UsageError(
            f"no config named {config_name!r}{nearest(config_name, allowed)}; there are {', '.join(allowed)}"
        )
    with initialize_config_dir(str(home.absolute()), version_base="1.3"):
        composer = composer or Composer(config_name)
        choices = [expand(parser, override, options) for override in parsed]
        given = {override.key_or_group for override in parsed}
        params = composer.sweep([values[0] for values in choices if len(values) == 1])
        swept = [f"{key}={values}" for key, values in params.items() if key not in given]
        choices = [*(expand(parser, override, options) for override in parse(parser, swept)), *choices]
        number = math.prod(map(len, choices))
        if number > LARGEST_SWEEP:
            raise UsageError(f"these overrides select {number} runs; a sweep has at most {LARGEST_SWEEP}")
        found = [checked(composer, combination) for combination in itertools.product(*choices)]
    return [replace(cell, home=home, config_name=config_name) for cell in found]


def checked(composer: Composer, overrides: tuple[str, ...]) -> Cell:
    """The configuration that overrides without sweeps select. Raises UsageError as `cells` does."""
    overrides = tuple(override for override in overrides if override != NO_EXPERIMENT)
    composed = composer.compose(overrides)
    if OmegaConf.get_type(composed) is not Config:
        name = composer.config_name
        raise UsageError(f"config {name} is none of a run: let its defaults start with `- train`, or give a run's own")
    config = to_config(composed)
    for override in map(composer.parser.parse_override, overrides):
        check_kind(config, override)
    return Cell(overrides, config, to_plain(composed) | {"paths": asdict(config.paths)})


def check_kind(config: Config, override: Override) -> None:
    """Raise UsageError for a number in the place of true or false, or the other way round: OmegaConf converts them."""
    value: Any = config
    for name in override.key_or_group.split("."):
        value = getattr(value, name, None)
    given = override.value()
    if isinstance(value, bool) and isinstance(given, int | float) and not isinstance(given, bool):
        raise UsageError(f"{override.input_line}: must be true or false")
    if isinstance(value, str) and isinstance(given, bool):
        raise UsageError(f"{override.input_line}: must be text, not {str(given).lower()}")
