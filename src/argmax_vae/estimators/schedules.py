"""How ε and τ change during training: a schedule maps the number of steps done to a positive value.

A schedule is its own configuration: a dataclass whose fields the YAML files of `conf/schedule` fill. It accepts a step
tensor, so that a captured CUDA graph can evaluate it on the device.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from argmax_vae.errors import require_count, require_positive
from argmax_vae.plugins import Registry, config_fault


@dataclass
class Schedule:
    """What every schedule is: a callable from a step tensor (any integer dtype, any shape) to a float tensor."""

    name: str = "???"

    def __call__(self, step: Tensor) -> Tensor:
        raise NotImplementedError

    def describe(self) -> str:
        """The schedule in a few words, for tables."""
        raise NotImplementedError

    def require_positive(self, *fields: str) -> None:
        """Raise UsageError unless each named field is greater than 0 and finite, in float32 too."""
        for name in fields:
            require_positive(name, getattr(self, name))


@dataclass
class Constant(Schedule):
    """The same value throughout."""

    name: str = "constant"
    value: float = 0.1

    def __post_init__(self) -> None:
        self.require_positive("value")

    def __call__(self, step: Tensor) -> Tensor:
        return torch.full_like(step, self.value, dtype=torch.float32)

    def describe(self) -> str:
        return f"{self.value:g}"


@dataclass
class Exponential(Schedule):
    """max(minimum, start · exp(−rate · t)) with t the step rounded down to a multiple of `every`.

    The defaults are those of Jang et al. (2016) as the paper uses them: 1.0, 1e-5, every 1000 steps, at least 0.1.
    """

    name: str = "exponential"
    start: float = 1.0
    rate: float = 1e-5
    every: int = 1000
    minimum: float = 0.1

    def __post_init__(self) -> None:
        self.require_positive("start", "rate", "minimum")
        require_count("every", self.every)

    def __call__(self, step: Tensor) -> Tensor:
        held = (step // self.every) * self.every
        return (self.start * torch.exp(-self.rate * held.to(torch.float32))).clamp_min(self.minimum)

    def describe(self) -> str:
        return f"max({self.minimum:g}, {self.start:g}·exp(−{self.rate:g}·t)), t every {self.every}"


@dataclass
class EpochExponential(Schedule):
    """`start` in the first epoch, and after epoch number e the value max(minimum, start · exp(−rate · every · e)).

    An epoch has `every` steps, and the number of the first one is `first`: 1, or more where other epochs precede the
    schedule. The paper's semi-supervised code trains 1,499 epochs on labelled images before, so that `first` is 1500,
    and ε and τ are 1 in one epoch and 0.1 in all others.
    """

    name: str = "epoch_exponential"
    start: float = 1.0
    rate: float = 1e-5
    every: int = 500
    first: int = 1
    minimum: float = 0.1

    def __post_init__(self) -> None:
        self.require_positive("start", "rate", "minimum")
        require_count("every", self.every)
        require_count("first", self.first)

    def __call__(self, step: Tensor) -> Tensor:
        done = step // self.every
        counted = (done + self.first - 1) * self.every
        later = (self.start * torch.exp(-self.rate * counted.to(torch.float32))).clamp_min(self.minimum)
        return torch.where(done > 0, later, self.start)

    def describe(self) -> str:
        first = self.first * self.every
        constant = self.start * math.exp(-self.rate * first) <= self.minimum
        falling = f"max({self.minimum:g}, {self.start:g}·exp(−{self.rate:g}·t)), t every {self.every} from {first}"
        return f"{self.start:g} for {self.every} steps, then {f'{self.minimum:g}' if constant else falling}"


@dataclass
class Linear(Schedule):
    """A straight line from start to end over `steps` steps, then constant."""

    name: str = "linear"
    start: float = 1.0
    end: float = 0.1
    steps: int = 100_000

    def __post_init__(self) -> None:
        self.require_positive("start", "end")
        require_count("steps", self.steps)

    def __call__(self, step: Tensor) -> Tensor:
        done = (step.to(torch.float32) / self.steps).clamp_max(1.0)
        return self.start + (self.end - self.start) * done

    def describe(self) -> str:
        return f"{self.start:g} to {self.end:g}, linear over {self.steps} steps"


@dataclass
class Cosine(Schedule):
    """end + (start − end)(1 + cos(π t/steps))/2 over `steps` steps, then constant (Loshchilov and Hutter 2016)."""

    name: str = "cosine"
    start: float = 1.0
    end: float = 0.1
    steps: int = 100_000

    def __post_init__(self) -> None:
        self.require_positive("start", "end")
        require_count("steps", self.steps)

    def __call__(self, step: Tensor) -> Tensor:
        done = (step.to(torch.float32) / self.steps).clamp_max(1.0)
        return self.end + (self.start - self.end) * (1 + torch.cos(math.pi * done)) / 2

    def describe(self) -> str:
        return f"{self.start:g} to {self.end:g}, cosine over {self.steps} steps"


SCHEDULES: Registry[type[Schedule]] = Registry(
    "schedule",
    {schedule.name: schedule for schedule in (Constant, Exponential, EpochExponential, Linear, Cosine)},
    lambda kind: isinstance(kind, type) and issubclass(kind, Schedule),
    "a subclass of argmax_vae.Schedule",
    config_fault,
    taken=("constant_one",),
)
"""Those of this package, then those of other installed packages (`argmax_vae.plugins`)."""
