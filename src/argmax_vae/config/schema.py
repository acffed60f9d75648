"""The sections of a run's configuration, and the ranges of their values."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from argmax_vae.data.binarization import BINARIZATIONS
from argmax_vae.data.celeba import ATTRIBUTES
from argmax_vae.data.datasets import DATASETS, load_dataset
from argmax_vae.data.images import Dataset
from argmax_vae.errors import (
    UsageError,
    require,
    require_count,
    require_finite,
    require_one_of,
    require_positive,
    require_text,
)
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.base import EstimatorConfig
from argmax_vae.estimators.schedules import SCHEDULES, Schedule
from argmax_vae.files import usable_path
from argmax_vae.gradients.settings import LaboratoryConfig
from argmax_vae.models.candidates import FORMS
from argmax_vae.models.convolutional import AttributeConfig
from argmax_vae.models.discrete import DeepConfig, ModelConfig
from argmax_vae.models.layered import LayeredConfig
from argmax_vae.models.layers import PRECISIONS
from argmax_vae.models.mixture import GaussianMixtureConfig, MixtureConfig
from argmax_vae.objective.labels import SupervisionConfig
from argmax_vae.objective.terms import ObjectiveConfig
from argmax_vae.plugins import Registry, config_fault
from argmax_vae.randomness import NOISES
from argmax_vae.runs.trackers import TrackerConfig


@dataclass
class OptimConfig:
    """Adam (Kingma and Ba 2014); elementwise, so one Adam over S models is S independent Adams.

    `estimator_factor`: what an estimator learns (τ, η, a baseline) has so many times the `learning_rate`.
    """

    name: str = "adam"
    learning_rate: float = 1e-3
    estimator_factor: float = 1.0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        require(self.name == "adam", "optim.name", self.name, "adam")
        require_positive("optim.learning_rate", self.learning_rate)
        require_positive("optim.estimator_factor", self.estimator_factor)
        valid = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        require(valid, "optim.betas", self.betas, "two numbers in [0, 1)")
        require_positive("optim.epsilon", self.epsilon)


@dataclass
class TrainerConfig:
    """What decides the numbers of a run.

    `batch`: images per step and seed; `evaluate_every`: epochs between evaluations on validation (which selects, per
    seed) and test; `curve_samples` and `final_samples`: hard samples per image at those and at the end;
    `importance_samples`: samples of the importance-weighted bound at the end, 0 for none.
    """

    epochs: int = 300
    batch: int = 100
    evaluate_every: int = 5
    curve_samples: int = 1
    final_samples: int = 100
    importance_samples: int = 0
    evaluation_batch: int = 1000

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require_count(f"trainer.{name}", value, 0 if name == "importance_samples" else 1)


@dataclass
class RuntimeConfig:
    """Where and how a run is computed; it is no part of the run's identity.

    `device`: auto, cpu or cuda; `processes`: of this machine that share every batch, on CUDA one for each device;
    `channels_last`: order images in memory as (height, width, channels) for convolutions; `precision`: of the factors
    of matrix products and convolutions in training, float32, on CUDA tf32, or bfloat16 (products on a CPU only if it
    has such), parameters and sums being float32; `chunk`: steps per Lightning batch; `compile`: use torch.compile;
    `candidates`: form of the candidate losses; `graph`: capture the step as a CUDA graph; `noise`: from a generator, or
    from a counter inside the step (`chosen_noise`); `checkpoint_every`, `checkpoint_minutes`: at the end of so many
    epochs, and of an epoch when so much time has gone by, what a run goes on from is written. `chunk` and
    `checkpoint_every` are 0 for what suits the device (`on`).
    """

    device: str = "auto"
    processes: int = 1
    channels_last: bool = False
    precision: str = "float32"
    chunk: int = 0
    compile: bool = True
    candidates: str = "auto"
    graph: bool = True
    noise: str = "auto"
    checkpoint_every: int = 0
    checkpoint_minutes: float = 3.0

    def __post_init__(self) -> None:
        require_one_of("runtime.device", self.device, ("auto", "cpu", "cuda"))
        require_one_of("runtime.precision", self.precision, PRECISIONS)
        require_one_of("runtime.candidates", self.candidates, FORMS)
        require_one_of("runtime.noise", self.noise, NOISES)
        for name, smallest in (("processes", 1), ("chunk", 0), ("checkpoint_every", 0)):
            require_count(f"runtime.{name}", getattr(self, name), smallest)
        require_finite("runtime.checkpoint_minutes", self.checkpoint_minutes)
        require(self.checkpoint_minutes >= 0, "runtime.checkpoint_minutes", self.checkpoint_minutes, "at least 0")

    def on(self, device: str) -> "RuntimeConfig":
        """This with the choices that are left to the device, cpu or cuda: steps are quick on CUDA, Lightning is not."""
        chunk, every = (500, 50) if device == "cuda" else (100, 10)
        return replace(self, chunk=self.chunk or chunk, checkpoint_every=self.checkpoint_every or every)


OWN_MODELS: dict[str, type[ModelConfig]] = {
    "deep": DeepConfig,
    "layered": LayeredConfig,
    "mixture": MixtureConfig,
    "attributes": AttributeConfig,
}
MODELS = Registry(
    "model",
    OWN_MODELS,
    lambda kind: isinstance(kind, type) and issubclass(kind, ModelConfig),
    "a subclass of argmax_vae.ModelConfig",
    config_fault,
    taken=("linear", "one_hidden"),
)
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

    `table` and `protocol` say where the run belongs, and `laboratory` what is measured afterwards; these are no part of
    the run's identity. Nor are three that composition alone reads: `tuned`, an experiment's overrides for each
    estimator; `chosen`, values found on validation that those refer to; and `rows`, which make the cells of a table.
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
    chosen: dict[str, Any] = field(default_factory=dict)
    tuned: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, Any] = field(default_factory=dict)

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
        choice = self.estimator.importance_weighted_alone()
        if choice and (mixture or isinstance(self.model, LayeredConfig)):
            lacks = f"which model={self.model.name} does not have"
            raise UsageError(f"estimator.{choice} is for the importance-weighted bound, {lacks}")
        self.objective.validate_estimator(ESTIMATORS[self.estimator.name], self.estimator)
        kl = self.objective.kl
        trained = self.model.prior == "uniform" or kl != "none"
        require(trained, "objective.kl", kl, "one that is trained, such as analytic, with model.prior=learned")
        weighted = mixture and kl == "importance_weighted"
        require(not weighted, "objective.kl", kl, f"analytic, none, folded or concrete with model={self.model.name}")
        if isinstance(self.model, LayeredConfig):
            self.check_layers(self.model)

    def check_layers(self, model: LayeredConfig) -> None:
        """Raise UsageError for what a model of several layers does not go with."""
        name, kl = self.estimator.name, self.objective.kl
        require(kl in ("analytic", "folded"), "objective.kl", kl, "analytic or folded with model=layered")
        estimator = ESTIMATORS[name](self.estimator)
        fits = estimator.asks_for_codes_alone and not estimator.remembers
        require(fits, "estimator", name, "with model=layered one that needs losses of its codes alone")
        processes = self.runtime.processes
        require(processes == 1, "runtime.processes", processes, "1 with model=layered")
        for n, k in model.sizes:
            self.estimator.validate_latents(n, k)
