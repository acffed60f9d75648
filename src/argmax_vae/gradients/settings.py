"""What the gradient laboratory measures: estimators, their choices, and values of ε and τ."""

import math
from dataclasses import dataclass, field, fields
from typing import Any

from argmax_vae.errors import UsageError, require_all_positive, require_count
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.base import EstimatorConfig
from argmax_vae.estimators.schedules import Constant, Schedule
from argmax_vae.markup import SYMBOLS


@dataclass
class LaboratoryConfig:
    """What the gradient laboratory does with a trained model; no part of the run's identity.

    `repeats`: estimates per setting; `images`: of the validation split, in one batch; `epsilon` and `temperature`:
    values for the estimators that have such a schedule; `variants`: further estimators with choices of their own, such
    as {name: direct, direction: away}, beside every registered one with its defaults; `adaptation`: steps, each with
    other images, of training, in which learned control variates and moving averages settle before they are measured;
    `reference_repeats`: long-run average of local expectations that stands for the exact gradient where `limit` codes
    are not enough to enumerate.
    """

    repeats: int = 500
    images: int = 100
    epsilon: list[float] = field(default_factory=lambda: [0.01, 0.03, 0.1, 0.3, 1.0, 3.0])
    temperature: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0])
    variants: list[Any] = field(default_factory=list)
    adaptation: int = 500
    reference_repeats: int = 5000
    limit: int = 4096

    def __post_init__(self) -> None:
        for name, smallest in (
            ("repeats", 2),
            ("images", 1),
            ("adaptation", 0),
            ("reference_repeats", 2),
            ("limit", 2),
        ):
            require_count(f"laboratory.{name}", getattr(self, name), smallest)
        for name in ("epsilon", "temperature"):
            require_all_positive(f"laboratory.{name}", getattr(self, name))
        for index, variant in enumerate(self.variants):
            if choice := variant_config(variant).importance_weighted_alone():
                raise UsageError(
                    f"laboratory.variants: {variant}: gradients are measured for the ELBO, "
                    f"and {choice} is for the importance-weighted bound"
                )
            if len(variant) < 2 or variant in self.variants[:index]:
                raise UsageError(f"laboratory.variants: {variant} is measured already; give it a choice of its own")


def variant_config(variant: Any) -> EstimatorConfig:
    """The estimator that a variant {name: …, choice: …} stands for. Raises UsageError for an unknown name or choice."""
    if not isinstance(variant, dict) or variant.get("name") not in ESTIMATORS:
        raise UsageError(
            f"laboratory.variants: {variant} must be {{name: ESTIMATOR, …}}, one of {', '.join(ESTIMATORS)}"
        )
    config_class = ESTIMATORS[variant["name"]].config_class
    known = {inner.name: inner.type for inner in fields(config_class) if inner.type is not Schedule}
    for key, value in variant.items():
        if key not in known:
            raise UsageError(f"laboratory.variants: {variant['name']} has no choice {key!r}; it has {', '.join(known)}")
        if not fits(value, known[key]):
            raise UsageError(f"laboratory.variants: {variant['name']} {key}={value} must be {TYPE_NAMES[known[key]]}")
    return config_class(**variant)


TYPE_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a word",
    list[int]: "a list of whole numbers",
}


def fits(value: Any, kind: Any) -> bool:
    """Whether a value from a YAML file is of a field's type."""
    if kind == list[int]:
        return isinstance(value, list) and all(fits(item, int) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


@dataclass(frozen=True)
class Setting:
    """One estimator to measure: its choices that are no defaults, and the ε or τ it is measured at, if it has one."""

    config: EstimatorConfig
    choices: str = ""
    parameter: str = ""
    value: float = math.nan

    @property
    def label(self) -> str:
        at = f"{self.parameter} = {self.value:g}" if self.parameter else ""
        return " ".join(filter(None, (self.config.name, self.choices, at)))


def settings(laboratory: LaboratoryConfig, n: int, k: int) -> list[Setting]:
    """Everything to measure for latents n × k: what does not apply to them is left out."""
    found = []
    for variant in [{"name": name} for name in ESTIMATORS] + list(laboratory.variants):
        choices = ", ".join(f"{key}={value}" for key, value in variant.items() if key != "name")
        chosen = variant_config(variant)
        try:
            chosen.validate_latents(n, k)
        except UsageError:
            continue
        config_class, swept = type(chosen), chosen.schedules_in_use()
        if not swept:
            found.append(Setting(chosen, choices))
        for name in swept:
            for value in getattr(laboratory, name):
                config = config_class(**{**variant, name: Constant(value=value)})
                found.append(Setting(config, choices, SYMBOLS[name], value))
    return found
