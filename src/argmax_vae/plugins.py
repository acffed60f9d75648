"""What other installed packages bring: estimators, schedules, data sets and models, by entry points.

A package lists them in its `pyproject.toml`. Their names are then options like this package's own, for every verb:

    [project.entry-points."argmax_vae.estimators"]
    halved = "my_package:Halved"

| entry-point group | option | what it names |
|---|---|---|
| `argmax_vae.estimators` | `estimator=` | a subclass of `argmax_vae.Estimator` |
| `argmax_vae.schedules` | `schedule@estimator.KEY=` | a subclass of `argmax_vae.Schedule` |
| `argmax_vae.datasets` | `data=` | a function from a directory to an `argmax_vae.data.images.Dataset` |
| `argmax_vae.models` | `model=` | a subclass of `argmax_vae.models.discrete.ModelConfig` that writes `networks` |
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import is_dataclass
from functools import cache, cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import get_annotations
from typing import Any, TypeVar

from argmax_vae.errors import UsageError

Thing = TypeVar("Thing")

GROUPS = {
    "estimator": "argmax_vae.estimators",
    "schedule": "argmax_vae.schedules",
    "data": "argmax_vae.datasets",
    "model": "argmax_vae.models",
}
"""Entry-point groups by the group of options that they add to."""
BROUGHT: dict[str, str] = {}
"""The package, with its version, behind each outside option, such as `estimator=halved`."""
REFUSED: dict[str, str] = {}
"""Why an outside option cannot be used, in words that follow its name."""


@cache
def installed() -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of all installed packages that are for this one, by the group of options."""
    points = entry_points()
    return {group: tuple(points.select(group=name)) for group, name in GROUPS.items()}


class Registry(Mapping[str, Thing]):
    """Things by the names of their options: this package's own, then those of other packages.

    `group`: of options, of GROUPS; `own`: names that nobody replaces, and `taken` further ones; `wanted`: whether an
    object is `what` it should be; `fault`: what else is wrong with it under a name, in words that follow it, or
    nothing. Other packages are imported when the registry is first asked for something that is not the package's own,
    so that they may import what they like. An entry point that cannot be used is left out, and `REFUSED` says why.
    """

    def __init__(
        self,
        group: str,
        own: dict[str, Thing],
        wanted: Callable[[Any], bool],
        what: str,
        fault: Callable[[Any, str], str] = lambda thing, name: "",
        taken: Collection[str] = (),
    ) -> None:
        self.group, self.own, self.wanted, self.what = group, own, wanted, what
        self.fault, self.taken = fault, taken

    @cached_property
    def outside(self) -> dict[str, Thing]:
        """What other packages bring."""
        found: dict[str, Thing] = {}
        for point in installed()[self.group]:
            option = f"{self.group}={point.name}"
            package = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
            if point.name in self.own or point.name in self.taken or point.name in found:
                REFUSED[option] = f"of the package {package} has a name that is taken"
                continue
            if not re.fullmatch(r"[A-Za-z0-9_]{1,100}", point.name):
                REFUSED[option] = f"of the package {package} must have a name of letters, digits and underscores"
                continue
            try:
                thing = point.load()
            except Exception as error:
                REFUSED[option] = f"of the package {package} cannot be loaded from {point.value} ({told(error)})"
                continue
            if not self.wanted(thing):
                REFUSED[option] = f"of the package {package} must be {self.what}, and {point.value} is not"
                continue
            if fault := self.fault(thing, point.name):
                REFUSED[option] = f"of the package {package} cannot be used: {fault}"
                continue
            found[point.name] = thing
            BROUGHT[option] = package
        return found

    def __getitem__(self, name: str) -> Thing:
        return self.own[name] if name in self.own else self.outside[name]

    def __contains__(self, name: object) -> bool:
        return name in self.own or name in self.outside

    def __iter__(self) -> Iterator[str]:
        return iter((*self.own, *self.outside))

    def __len__(self) -> int:
        return len(self.own) + len(self.outside)


def told(error: Exception) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def config_fault(kind: Any, name: str) -> str:
    """Why a class cannot be the section of a configuration that has this name; empty when it can.

    Whether a configuration can hold its choices is known where OmegaConf is installed.
    """
    if not (isinstance(kind, type) and is_dataclass(kind)):
        return f"{kind!r} must be a class decorated by @dataclass"
    if "__dataclass_fields__" not in vars(kind) and get_annotations(kind):
        return f"{kind.__name__} must be decorated by @dataclass itself, or its own choices are none"
    make: Callable[..., Any] = kind
    try:
        make(name=name)
    except Exception as error:
        return f"{kind.__name__}(name={name!r}) must work, with a default for every other choice ({told(error)})"
    try:
        import_module("omegaconf").OmegaConf.structured(kind)
    except ImportError:
        pass
    except Exception as error:
        return f"{kind.__name__} has a choice that no configuration can hold ({told(error)})"
    return ""


def used(options: Mapping[str, str]) -> dict[str, str]:
    """Those of the chosen options, such as `{"estimator": "halved"}`, that a package brought, with that package."""
    chosen = [f"{group}={name}" for group, name in options.items()]
    return {option: BROUGHT[option] for option in chosen if option in BROUGHT}


def refused(option: str) -> str:
    """What to add to the refusal of an unknown option: why the package that brings it does not serve, or nothing."""
    return f"; the one {REFUSED[option]}" if option in REFUSED else ""


def require_used(origin: Mapping[str, Any]) -> None:
    """Raise UsageError, with their names, unless the packages are here whose options a run's provenance lists."""
    for option, package in origin.get("plugins", {}).items():
        if option not in BROUGHT:
            why = f"which {REFUSED[option]}" if option in REFUSED else "which is not installed here"
            raise UsageError(f"{option} was brought by the package {package}, {why}")
