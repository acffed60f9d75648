"""The schema of a run's configuration: its sections, and the checks of what fits together."""

from dataclasses import dataclass, field
from pathlib import Path

from argmax_vae.checks import require, require_one_of, require_text
from argmax_vae.data import BINARIZATIONS, DATASETS, Dataset, load_dataset
from argmax_vae.data.celeba import ATTRIBUTES
from argmax_vae.estimators import ESTIMATORS, EstimatorConfig
from argmax_vae.files import usable_path
from argmax_vae.gradients import LaboratoryConfig
from argmax_vae.mixture import AttributeConfig, GaussianMixtureConfig, MixtureConfig
from argmax_vae.modules import DeepConfig, ModelConfig, OptimConfig, TrainerConfig
from argmax_vae.objective import ObjectiveConfig
from argmax_vae.runtime import RuntimeConfig
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
        require_one_of("data.name", self.name, DATASETS)
        require_one_of("data.binarization", self.binarization, BINARIZATIONS)

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

    def __post_init__(self) -> None:
        super().__post_init__()
        names, example = self.attributes, ", ".join(ATTRIBUTES)
        require(len(names) > 0, "data.attributes", names, f"a list of at least one attribute, such as [{example}]")
        require(len(set(names)) == len(names), "data.attributes", names, "a list without repetitions")

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

    def __post_init__(self) -> None:
        for name, path in vars(self).items():
            require_text(f"paths.{name}", path)
            setattr(self, name, str(usable_path(path, f"paths.{name}")))


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
