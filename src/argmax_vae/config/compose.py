"""From a primary config and overrides to checked configurations, by Hydra and OmegaConf."""

import copy
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict

from argmax_vae.config import launchers
from argmax_vae.config.loader import Loader
from argmax_vae.config.messages import one_line_errors, refused_value, unknown_key
from argmax_vae.config.options import (
    NAMED_SCHEDULES,
    config_directory,
    groups,
    nearest,
    primary_configs,
    read,
    split_rows,
)
from argmax_vae.config.overrides import (
    LARGEST_SWEEP,
    NO_EXPERIMENT,
    SEARCH_PATH,
    comes_before_values,
    expand,
    is_value,
    parse,
    parsed,
    search_path,
    unfolded,
)
from argmax_vae.config.schema import (
    DATA,
    MODELS,
    Config,
    DataConfig,
    OptimConfig,
    RuntimeConfig,
    TrainerConfig,
)
from argmax_vae.config.stored import BASE, NOT_SET, home_of, start, text
from argmax_vae.data.datasets import DATASETS
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.schedules import SCHEDULES, Schedule
from argmax_vae.objective.terms import KL_CHOICES, ObjectiveConfig
from argmax_vae.runs.directory import RunDirectory, flat
from argmax_vae.runs.trackers import TRACKERS, TrackerConfig


class Composer:
    """Composes configurations of one primary config; to be made inside `hydra.initialize_config_dir`.

    Hydra composes what groups select, and sets the values of keys `section.key` afterwards. So that the configurations
    of a sweep need the first part once, it is kept, and its copies get their values here, by Hydra's own function.
    """

    def __init__(self, config_name: str, own_keys: Collection[str] = ()) -> None:
        self.config_name, self.own_keys = config_name, set(own_keys)
        self.kept: dict[tuple[str, ...], tuple[DictConfig, dict[str, str]]] = {}
        self.loader = Loader(GlobalHydra.instance().config_loader().get_search_path())

    def sweep(self, overrides: Sequence[str]) -> dict[str, str]:
        """The sweep that the primary config has of its own: values by key. Raises UsageError."""
        given = [parsed(override) for override in overrides if override != NO_EXPERIMENT]
        return self.selected([override for override in given if not is_value(override)])[1]

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration that overrides without sweeps select. Raises UsageError."""
        others, values = self.divided([parsed(override) for override in overrides])
        composed = copy.deepcopy(self.selected(others)[0])
        for override in values:
            try:
                ConfigLoaderImpl._apply_overrides_to_config([override], composed)
            except Exception as error:
                raise UsageError(refused_value(override, composed, error)) from None
        return composed

    def divided(self, given: Sequence[Override]) -> tuple[list[Override], list[Override]]:
        """The overrides that Hydra composes, and the values that are set afterwards."""
        values = [override for override in given if is_value(override)]
        others = [override for override in given if not is_value(override)]
        return (others, values) if all(map(comes_before_values, others)) else (list(given), [])

    def selected(self, overrides: Sequence[Override]) -> tuple[DictConfig, dict[str, str]]:
        """What Hydra composes, without its own section, and the sweep in that. Raises UsageError."""
        key = tuple(str(override.input_line) for override in overrides)
        if key not in self.kept:
            with one_line_errors(key):
                composed = self.loader.load(self.config_name, key)
                params = {str(name): str(values) for name, values in (composed.hydra.sweeper.params or {}).items()}
                with open_dict(composed):
                    del composed["hydra"]
            if len(self.kept) == LARGEST_NUMBER_KEPT:
                del self.kept[next(iter(self.kept))]
            self.kept[key] = composed, params
        return self.kept[key]


LARGEST_NUMBER_KEPT = 200
"""Of composed configurations, a fifth of a megabyte each."""
REGISTERED: dict[tuple[Any, str], type] = {}
"""What is in Hydra's store already, by group and name."""


def register() -> None:
    """Put the schema into Hydra's store: `schema` for a run, `schema_NAME` for each estimator, schedule and so on."""
    launchers.register_resolvers()
    kinds: list[tuple[Any, str, type]] = [(None, "schema", Config)]
    kinds += [("estimator", f"schema_{name}", estimator.config_class) for name, estimator in ESTIMATORS.items()]
    for group, options in (("model", MODELS), ("data", DATA), ("schedule", SCHEDULES)):
        kinds += [(group, f"schema_{name}", kind) for name, kind in options.items()]
    new = [each for each in kinds if REGISTERED.get(each[:2]) is not each[2]]
    if not new:
        return
    kept_composer.cache_clear()
    for group, name, kind in new:
        node = OmegaConf.structured(kind)
        for inner in fields(kind):
            if inner.type is Schedule:
                node[inner.name] = MISSING
        ConfigStore.instance().store(group=group, name=name, node=node)
        REGISTERED[group, name] = kind
    for group, nodes in registered_options().items():
        for name, option in nodes.items():
            ConfigStore.instance().store(group=group, name=name, node=option)


def registered_options() -> dict[str, dict[str, Any]]:
    """The options of groups that are no files, by their names. An estimator has its default schedules."""
    estimators: dict[str, Any] = {}
    for name, estimator in ESTIMATORS.items():
        default = estimator.config_class(name=name)
        schedules = [inner.name for inner in fields(default) if inner.type is Schedule]
        chosen = [{f"/schedule@{inner}": option_of(getattr(default, inner))} for inner in schedules]
        estimators[name] = {"defaults": [f"schema_{name}", *chosen, "_self_"], "name": name}
    return {
        "estimator": estimators,
        "data": {name: OmegaConf.structured(DataConfig(name=name)) for name in DATASETS.outside},
        "model": {name: {"defaults": [f"schema_{name}", "_self_"], "name": name} for name in MODELS.outside},
        "schedule": {name: OmegaConf.structured(schedule) for name, schedule in NAMED_SCHEDULES.items()},
        "objective": {kl: OmegaConf.structured(ObjectiveConfig(kl=kl)) for kl in KL_CHOICES},
        "tracker": {name: OmegaConf.structured(TrackerConfig(name=name)) for name in TRACKERS},
        "optim": {"adam": OmegaConf.structured(OptimConfig)},
        "trainer": {"default": OmegaConf.structured(TrainerConfig)},
        "runtime": {"default": OmegaConf.structured(RuntimeConfig)},
        "paths": {"default": {"data": "${oc.env:ARGMAX_VAE_DATA,data}", "runs": "runs", "results": "results"}},
    }


def option_of(schedule: Schedule) -> str:
    """The name of the option that is this schedule."""
    return next(name for name, named in NAMED_SCHEDULES.items() if named == schedule)


@dataclass(frozen=True)
class Cell:
    """One configuration of a sweep: the overrides that select it, as an object and as a plain dict.

    `home`, `config_name`: the directory and the name of the primary config that the overrides are of. `place`: which
    run of a sweep it is, in words; `behind`: how many are to be trained after it. `tuned`: what the experiment adds for
    the estimator.
    """

    overrides: tuple[str, ...]
    config: Config
    config_dict: dict[str, Any]
    home: Path = field(default_factory=config_directory)
    config_name: str = "train"
    place: str = ""
    behind: int = 0
    tuned: tuple[str, ...] = ()

    @property
    def job(self) -> list[str]:
        """All overrides, in their order."""
        return [*self.tuned, *self.overrides]

    @property
    def run(self) -> RunDirectory:
        """The run's directory, whether it exists or not."""
        return RunDirectory.of(self.config_dict)

    def with_seeds(self, seeds: list[int]) -> "Cell":
        """The same with other seeds, as a run of its own."""
        return replace(self, config=replace(self.config, seeds=seeds), config_dict={**self.config_dict, "seeds": seeds})


def to_config(composed: DictConfig) -> Config:
    """The checked configuration object. Raises UsageError for a value of the wrong type or out of range."""
    with one_line_errors(()):
        for name, value in composed.estimator.items_ex(resolve=False):
            check_schedule(f"estimator.{name}", value)
        config = OmegaConf.to_object(composed)
        given = leaves(to_dict(composed))
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


def leaves(config_dict: Mapping[str, Any]) -> set[str]:
    """The dotted keys of nested dicts; an empty one is a value."""
    return {key for key, _ in flat(config_dict)}


def to_dict(composed: DictConfig) -> dict[str, Any]:
    """The configuration as dicts, lists, strings and numbers, interpolations resolved."""
    config_dict = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(config_dict, dict)
    return {str(key): value for key, value in config_dict.items()}


def as_yaml(config_dict: Mapping[str, Any]) -> str:
    """A configuration that `to_dict` gave, as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(config_dict)))


def cells(config_name: str, overrides: Sequence[str]) -> list[Cell]:
    """Every configuration that a primary config and overrides select, sweeps expanded, all of them checked.

    `config_name` may also be the path of a run or of a yaml file, as in `stored.start`. Raises UsageError in one line
    for an unknown config, group option or key, and for a bad value.
    """
    config_name, overrides = start(config_name, overrides)
    register()
    given = parse(overrides)
    directories = search_path(given)
    home = home_of(config_name, directories)
    if home != config_directory():
        places = text([str(place.absolute()) for place in (config_directory(), *directories)])
        others = [each for each in given if each.key_or_group != SEARCH_PATH]
        given = [parsed(f"{SEARCH_PATH}={places}"), *others]
    allowed, options = primary_configs(directories), groups(directories)
    if config_name not in allowed:
        raise UsageError(
            f"no config named {config_name!r}{nearest(config_name, allowed)}; there are {', '.join(allowed)}"
        )
    config_name, rows = split_rows(config_name, directories)
    with initialize_config_dir(str(home.absolute()), version_base="1.3"):
        composer = composer_of(config_name, home, directories)

        def alternatives(override: Override) -> list[tuple[str, ...]]:
            return [unfolded(each, options) for each in expand(override, options)]

        choices = [alternatives(override) for override in given]
        require_size(choices)
        keys = {key_of(each) for values in choices for pieces in values for each in pieces}
        params = composer.sweep([each for values in choices if len(values) == 1 for each in values[0]])
        swept = [*rows, *(f"{key}={values}" for key, values in params.items())]
        own = [override for override in parse(swept) if override.get_key_element() not in keys]
        choices = [*map(alternatives, own), *choices]
        require_size(choices)
        found = [checked(composer, tuple(itertools.chain(*parts))) for parts in itertools.product(*choices)]
    return [replace(cell, home=home, config_name=config_name) for cell in found]


def require_size(choices: Sequence[Sequence[object]]) -> None:
    """Raise UsageError when values of keys make more runs than a sweep may have."""
    number = math.prod(map(len, choices))
    if number > LARGEST_SWEEP:
        raise UsageError(f"these overrides select {number} runs; a sweep has at most {LARGEST_SWEEP}")


def composer_of(config_name: str, home: Path, directories: Sequence[Path]) -> Composer:
    """A composer of a primary config; of the package's own, the one of earlier calls while no file has changed."""
    if directories or home != config_directory():
        return Composer(config_name, own_keys(home, config_name))
    files = [(path, path.stat()) for path in sorted(home.rglob("*.yaml"))]
    return kept_composer(config_name, tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in files))


@lru_cache(maxsize=32)
def kept_composer(config_name: str, files: tuple[tuple[Path, int, int], ...]) -> Composer:
    """A composer of a primary config of the package's own, whose files are in the state that is given."""
    return Composer(config_name, own_keys(config_directory(), config_name))


def key_of(override: str) -> str:
    """What an override sets: a key, or a group with the place of its option."""
    return str(parsed(override).get_key_element())


def own_keys(home: Path, config_name: str) -> set[str]:
    """What a primary config sets itself, and by the others that it starts from: keys, and groups it overrides."""
    path = home / f"{config_name}.yaml"
    if not path.is_file():
        return set()
    config_dict = read(path)
    defaults = config_dict.pop("defaults", [])
    found = leaves({key: value for key, value in config_dict.items() if key not in (*NOT_SET, "hydra")})
    for entry in defaults:
        if isinstance(entry, dict):
            found |= {key.removeprefix("override ").lstrip("/") for key in entry if key.startswith("override ")}
        elif entry not in ("_self_", BASE):
            found |= own_keys(home, entry)
    return found - {"experiment"}


def checked(composer: Composer, overrides: tuple[str, ...]) -> Cell:
    """The configuration that overrides without sweeps select. Raises UsageError as `cells` does."""
    overrides = tuple(override for override in overrides if override != NO_EXPERIMENT)
    added = tuned(composer, overrides)
    composed = composer.compose([*added, *overrides])
    if OmegaConf.get_type(composed) is not Config:
        name = composer.config_name
        raise UsageError(f"config {name} is none of a run: let its defaults start with `- train`, or give a run's own")
    composed.tuned, composed.rows = {}, {}
    config = to_config(composed)
    for override in map(parsed, overrides):
        check_kind(config, override)
    config_dict = {key: value for key, value in to_dict(composed).items() if key not in ("tuned", "rows")}
    return Cell(overrides, config, config_dict | {"paths": asdict(config.paths)}, tuned=tuple(added))


def tuned(composer: Composer, overrides: Sequence[str]) -> list[str]:
    """What the experiment has for the estimator, but for what the overrides or the primary config set themselves.

    Who chooses another schedule, or another option of a group, has none of the tuned values in it. Raises UsageError
    for an estimator that the experiment is not for.
    """
    chosen = [parsed(override) for override in overrides]
    composed, _ = composer.selected(composer.divided(chosen)[0])
    by_estimator = OmegaConf.to_container(composed.tuned) if "tuned" in composed else {}
    if not isinstance(by_estimator, dict) or not by_estimator:
        return []
    name = str(composed.estimator.name)
    if name not in by_estimator and "others" not in by_estimator:
        experiment = next((each for each in reversed(overrides) if each.startswith("experiment=")), "this experiment")
        raise UsageError(f"{experiment} is not for estimator={name}, but for {', '.join(map(str, by_estimator))}")
    given = composer.own_keys | {str(override.get_key_element()) for override in chosen}
    places = tuple(f"{key.partition('@')[2]}." for key in given if "@" in key)
    found = by_estimator.get(name, by_estimator.get("others", []))
    if not isinstance(found, list):
        raise UsageError(f"tuned.{name} must be a list of overrides, such as [estimator.samples=2], not {found!r}")
    found = [str(override.input_line) for override in parse([str(each) for each in found])]
    return [each for each in found if key_of(each) not in given and not each.startswith(places)]


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
