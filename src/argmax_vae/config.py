"""Composition: from a primary config and overrides to checked configurations, by Hydra and OmegaConf."""

import copy
import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from argmax_vae import engines
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.messages import one_line_errors, unknown_key
from argmax_vae.options import config_directory, groups, nearest, primary_configs
from argmax_vae.schedules import SCHEDULES, Schedule
from argmax_vae.schema import DATA, MODELS, Config


def register() -> None:
    """Put the schema into Hydra's store: `schema` for a run, `schema_NAME` for each estimator and schedule."""
    engines.register_resolvers()
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for name, estimator in ESTIMATORS.items():
        node = OmegaConf.structured(estimator.config_class)
        for inner in fields(estimator.config_class):
            if inner.type is Schedule:
                node[inner.name] = MISSING
        store.store(group="estimator", name=f"schema_{name}", node=node)
    for name, model in MODELS.items():
        store.store(group="model", name=f"schema_{name}", node=model)
    for name, data in DATA.items():
        store.store(group="data", name=f"schema_{name}", node=data)
    for name, schedule in SCHEDULES.items():
        store.store(group="schedule", name=f"schema_{name}", node=schedule)


@dataclass(frozen=True)
class Cell:
    """One configuration of a sweep: the overrides that select it, as an object and as a plain dict."""

    overrides: tuple[str, ...]
    config: Config
    plain: dict[str, Any]


def to_config(composed: DictConfig) -> Config:
    """The checked configuration object. Raises UsageError for a value of the wrong type or out of range."""
    with one_line_errors(()):
        for name, value in composed.estimator.items_ex(resolve=False):
            check_schedule(f"estimator.{name}", value)
        config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    known, given = leaves(asdict(config)), leaves(to_plain(composed))
    for key in sorted(given - known):
        raise UsageError(unknown_key(key))
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
    """The dotted keys of nested dicts."""
    found = set()
    for key, value in plain.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}"}
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


def cells(config_name: str, overrides: list[str]) -> list[Cell]:
    """Every configuration that a primary config and overrides select, sweeps expanded, all of them checked.

    Raises UsageError in one line for an unknown config, group option or key, and for a bad value.
    """
    allowed = primary_configs()
    if config_name not in allowed:
        raise UsageError(
            f"no config named {config_name!r}{nearest(config_name, allowed)}; there are {', '.join(allowed)}"
        )
    register()
    parser = OverridesParser.create()
    check_syntax(parser, overrides)
    found = []
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        single_values = [override for override in overrides if not is_sweep(parser, override)]
        with one_line_errors(tuple(overrides)):
            composed = compose(config_name, single_values, return_hydra_config=True)
            params = composed.hydra.sweeper.params or {}
            given = {override.key_or_group for override in parser.parse_overrides(overrides)}
            swept = [f"{key}={value}" for key, value in params.items() if key not in given]
            choices = [expand(parser, override) for override in [*swept, *overrides]]
        for combination in itertools.product(*choices):
            with one_line_errors(combination):
                composed = compose(config_name, list(combination))
            config = to_config(composed)
            found.append(Cell(combination, config, to_plain(composed) | {"paths": asdict(config.paths)}))
    return found


def check_syntax(parser: OverridesParser, overrides: list[str]) -> None:
    """Raise UsageError for what is no override, or one that Hydra would take and stumble over later."""
    for override in overrides:
        try:
            parsed = parser.parse_override(override)
        except HydraException:
            raise UsageError(
                f"{override!r} is no override: write key=value or group=option, and quote special characters, "
                "such as key='\"a=b\"'"
            ) from None
        group = parsed.key_or_group
        if not group:
            raise UsageError(f"{override!r} has no key: write key=value or group=option")
        if group == engines.GROUP:
            if parsed.is_sweep_override():
                raise UsageError(f"{override}: name one engine for the whole sweep")
            engines.require_extra(str(parsed.value()))
        if group in groups() and parsed.value() is None and group != "experiment" and not parsed.is_delete():
            raise UsageError(f"{override}: no such option; there are {', '.join(groups()[group])}")


def is_sweep(parser: OverridesParser, override: str) -> bool:
    return parser.parse_override(override).is_sweep_override()


def expand(parser: OverridesParser, override: str) -> list[str]:
    parsed = parser.parse_override(override)
    if not parsed.is_sweep_override():
        return [override]
    key = parsed.get_key_element()
    return [f"{key}={value}" for value in parsed.sweep_string_iterator()]
