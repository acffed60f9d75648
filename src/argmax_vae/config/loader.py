"""Hydra's composition for many cells: what they have in common is read and merged once."""

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra._internal.defaults_list import Overrides
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import InputDefault, ResultDefault
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from argmax_vae.config.overrides import parsed


class Loader(ConfigLoaderImpl):
    """Hydra's loader, which reads every file once and starts from what earlier configurations have merged.

    Hydra merges the files and options of a list in their order. Configurations whose lists begin alike are alike up to
    there. `begun`: such beginnings, by what they consist of.
    """

    def __init__(self, search_path: ConfigSearchPath) -> None:
        super().__init__(search_path)
        self.repositories: dict[tuple[str, ...], CachingConfigRepository] = {}
        self.loaded: dict[Any, DictConfig] = {}
        self.begun: dict[tuple[Any, ...], DictConfig] = {(): OmegaConf.create()}
        self.last: tuple[Any, ...] = ()

    def load(self, config_name: str, overrides: Sequence[str]) -> DictConfig:
        """What Hydra composes, with its own section."""
        with maps_where_needed(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*Defaults list is missing `_self_`")
            return self.load_configuration(config_name, list(overrides), RunMode.RUN, from_shell=False)

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        found = [parsed(override) for override in overrides]
        key = (str(config_name), *(text for text in overrides if "hydra.searchpath" in text))
        if key not in self.repositories:
            repository = CachingConfigRepository(self.repository)
            self._process_config_searchpath(config_name, found, repository)
            self.repositories[key] = repository
        return found, self.repositories[key]

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        keys = tuple((id(repo), each.config_path, each.package, each.primary) for each in defaults)
        pairs = zip(keys, self.last, strict=False)
        shared = next((place for place, (one, other) in enumerate(pairs) if one != other), 0)
        start = max(length for length in range(len(keys) + 1) if keys[:length] in self.begun)
        composed = copy.deepcopy(self.begun[keys[:start]])
        for place, default in enumerate(defaults[start:], start):
            if place == shared:
                self.begun[keys[:place]] = copy.deepcopy(composed)
            try:
                composed.merge_with(self.part(keys[place], default, repo))
            except OmegaConfBaseException as error:
                raise ConfigCompositionException(
                    f"In '{default.config_path}': {type(error).__name__} raised while composing config:\n{error}"
                ) from error
        self.last = keys
        return composed

    def part(self, key: Any, default: ResultDefault, repo: IConfigRepository) -> DictConfig:
        """One file or option at its place, without its own list; merging does not change it."""
        if key not in self.loaded:
            found = copy.deepcopy(self._load_single_config(default, repo).config)
            assert isinstance(found, DictConfig)
            without_lists(found)
            self.loaded[key] = found
        return self.loaded[key]


def without_lists(config: Any) -> None:
    """Remove the lists of defaults from a configuration and from its sections."""
    if not isinstance(config, DictConfig) or config._is_missing() or config._is_none():
        return
    with flag_override(config, ["readonly", "struct"], False):
        if config._get_node_flag("HYDRA_REMOVE_TOP_LEVEL_DEFAULTS"):
            config._set_flag("HYDRA_REMOVE_TOP_LEVEL_DEFAULTS", None)
            config.pop("defaults", None)
        for _, value in config.items_ex(resolve=False):
            without_lists(value)


@contextmanager
def maps_where_needed() -> Iterator[None]:
    """Hydra makes a map of all choices for each file, for options that are named by others' names; only for those."""
    original = defaults_list._create_interpolation_map

    def if_needed(overrides: Overrides, defaults_list: list[InputDefault], self_added: bool) -> DictConfig:
        needed = any(each.is_interpolation() for each in defaults_list)
        return original(overrides, defaults_list, self_added) if needed else OmegaConf.create()

    defaults_list._create_interpolation_map = if_needed
    try:
        yield
    finally:
        defaults_list._create_interpolation_map = original
