"""The schema of a run's configuration, its range checks, and all that touches Hydra and OmegaConf besides `cli.py`."""

import copy
import difflib
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from argmax_vae import engines
from argmax_vae.data import BINARIZATIONS, DATASETS, Dataset, load_dataset
from argmax_vae.data.celeba import ATTRIBUTES
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS, EstimatorConfig
from argmax_vae.gradients import LaboratoryConfig
from argmax_vae.mixture import AttributeConfig, GaussianMixtureConfig, MixtureConfig
from argmax_vae.modules import DeepConfig, ModelConfig, OptimConfig, RuntimeConfig, TrainerConfig, require
from argmax_vae.objective import ObjectiveConfig
from argmax_vae.schedules import SCHEDULES, Schedule
from argmax_vae.supervision import SupervisionConfig
from argmax_vae.tracking import TrackerConfig

MODELS: dict[str, type[ModelConfig]] = {
    "deep": DeepConfig,
    "mixture": MixtureConfig,
    "attributes": AttributeConfig,
}
"""Models with choices of their own; every other name is a discrete variational auto-encoder."""


@dataclass
class DataConfig:
    """Which images, and how their pixels become binary."""

    name: str = "mnist"
    binarization: str = "threshold"

    def __post_init__(self) -> None:
        require(self.name in DATASETS, "data.name", self.name, f"one of {', '.join(DATASETS)}")
        require(
            self.binarization in BINARIZATIONS,
            "data.binarization",
            self.binarization,
            f"one of {', '.join(BINARIZATIONS)}",
        )

    @property
    def attribute_names(self) -> list[str]:
        """The binary attributes whose combination is an image's label; none for most data sets."""
        return []

    def load(self, directory: Path) -> Dataset:
        """The data set. Raises UsageError as `data.load_dataset` does."""
        return load_dataset(self.name, directory)


@dataclass
class CelebAConfig(DataConfig):
    """CelebA; `attributes`: the first is the highest bit of the label."""

    name: str = "celeba"
    binarization: str = "none"
    attributes: list[str] = field(default_factory=lambda: list(ATTRIBUTES))

    @property
    def attribute_names(self) -> list[str]:
        return self.attributes

    def load(self, directory: Path) -> Dataset:
        return load_dataset(self.name, directory, self.attributes)


DATA: dict[str, type[DataConfig]] = {"celeba": CelebAConfig}
"""Data sets with choices of their own."""


@dataclass
class PathsConfig:
    """Directories: data sets, runs, and the tables made from them."""

    data: str = "data"
    runs: str = "runs"
    results: str = "results"


@dataclass
class Config:
    """One run: S seeds of one model, trained by one estimator on one objective.

    `table` and `protocol` say where the run belongs, `chosen` holds values found on validation, by latents, for other
    keys to refer to, and `laboratory` what is measured afterwards; these are no part of the run's identity.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    estimator: EstimatorConfig = field(default_factory=EstimatorConfig)
    supervision: SupervisionConfig = field(default_factory=SupervisionConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    laboratory: LaboratoryConfig = field(default_factory=LaboratoryConfig)
    seeds: list[int] = field(default_factory=lambda: [0])
    table: str = ""
    protocol: str = ""
    chosen: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(len(self.seeds) > 0, "seeds", self.seeds, "a list of at least one seed")
        require(len(set(self.seeds)) == len(self.seeds), "seeds", self.seeds, "a list without repetitions")
        require(all(0 <= seed < 2**31 for seed in self.seeds), "seeds", self.seeds, "from 0 to 2147483647")
        epochs, every = self.trainer.epochs, self.trainer.evaluate_every
        require(epochs % every == 0, "trainer.evaluate_every", every, f"a divisor of trainer.epochs={epochs}")
        processes = self.runtime.processes
        for key, batch in (
            ("trainer.batch", self.trainer.batch),
            ("supervision.labelled_batch", self.supervision.batch),
        ):
            require(batch % processes == 0, "runtime.processes", processes, f"a divisor of {key}={batch}")
        name = self.estimator.name
        chosen = name in ESTIMATORS and type(self.estimator) is ESTIMATORS[name].config_class
        require(chosen, "estimator.name", name, f"chosen by estimator=NAME, one of {', '.join(ESTIMATORS)}")
        for key, value in vars(self.estimator).items():
            if isinstance(value, Schedule):
                chosen = type(value) is SCHEDULES.get(value.name)
                how = f"chosen by schedule@estimator.{key}=NAME, one of {', '.join(SCHEDULES)}"
                require(chosen, f"estimator.{key}.name", value.name, how)
        chosen = type(self.model) is MODELS.get(self.model.name, ModelConfig)
        require(chosen, "model.name", self.model.name, f"chosen by model=NAME, such as {', '.join(MODELS)}")
        chosen = type(self.data) is DATA.get(self.data.name, DataConfig)
        require(chosen, "data.name", self.data.name, "chosen by data=NAME")
        mixture, importance = isinstance(self.model, GaussianMixtureConfig), self.trainer.importance_samples
        with_mixture = f"0 with model={self.model.name}"
        require(not (mixture and importance), "trainer.importance_samples", importance, with_mixture)
        self.supervision.validate(self.estimator, self.model.name, self.model.k, mixture)
        self.estimator.validate_latents(self.model.n, self.model.k)
        by_batch = getattr(self.estimator, "reduction", "image") == "batch"
        require(not (by_batch and processes > 1), "runtime.processes", processes, "1 with estimator.reduction=batch")
        self.objective.validate_estimator(ESTIMATORS[self.estimator.name], self.estimator.name)


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


def config_directory() -> Path:
    """The YAML files: inside the installed package, else at the top of the repository."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"


def primary_configs() -> list[str]:
    """Names of the configurations that a command can start from."""
    return sorted(path.stem for path in config_directory().glob("*.yaml"))


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
            found.append(Cell(combination, to_config(composed), to_plain(composed)))
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


def nearest(name: str, allowed: list[str]) -> str:
    """`; did you mean …?` with the closest allowed name, or nothing."""
    close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.4)
    return f"; did you mean {close[0]!r}?" if close else ""


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


@contextmanager
def one_line_errors(overrides: tuple[str, ...]) -> Iterator[None]:
    """Turns the exceptions of Hydra and OmegaConf into a UsageError of one line that names the culprit."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(explain(error, overrides)) from None


def explain(error: Exception, overrides: tuple[str, ...]) -> str:
    """One line for an error of Hydra or OmegaConf: what was given, and what is allowed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0].rstrip(".") if lines else type(error).__name__
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        group = key.split("@", 1)[0]
        if f"'{key}'" in first and "Could not override" in first:
            return unknown_key(key)
        if f"'{group}/{value}'" in first and "Could not find" in first:
            options = groups().get(group) or [line for line in lines[1:] if " " not in line]
            return f"{override}: no such option{nearest(value, options)}; there are {', '.join(options)}"
        if first == f"Error merging override {override}" and error.__cause__ is not None:
            reason = str(error.__cause__).strip().splitlines()[0]
            return f"{override}: {'must be a list, such as [0,1]' if 'is not a ListConfig' in reason else reason}"
    details = {line.split(":", 1)[0]: line.split(":", 1)[1].strip() for line in lines if ": " in line}
    key = details.get("full_key", "")
    if "Interpolation key 'chosen." in first:
        latents = first.split("'chosen.", 1)[1].split("'", 1)[0]
        return f"{key}: none was chosen for model.latents={latents}; give {key}=VALUE"
    return f"{key}: {first}" if key and key not in first else first


def unknown_key(key: str) -> str:
    """One line for a key that the composed configuration does not have."""
    if key in all_keys():
        return f"key {key!r} belongs to another option of {key.split('.', 1)[0]}, choose that first"
    section = key.rpartition(".")[0]
    siblings = [known for known in all_keys() if section and known.startswith(f"{section}.")]
    close = nearest(key, siblings or all_keys())
    sections = sorted({known.split(".", 1)[0] for known in all_keys()})
    return f"unknown key {key!r}{close}" if close else f"unknown key {key!r}; there are {', '.join(sections)}"
