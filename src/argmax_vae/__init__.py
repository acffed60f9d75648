"""Gradient estimators for discrete variational auto-encoders, compared on one objective.

In a model of one's own, `estimator` is all that is needed:

    objective = estimator("direct", epsilon=0.1)(logits, loss)
    objective.mean().backward()

Names listed in `__all__` are stable. They are loaded when they are first used, and need torch, numpy and jaxtyping.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from argmax_vae.data.images import Dataset, Images
    from argmax_vae.errors import UsageError
    from argmax_vae.estimators import ESTIMATORS
    from argmax_vae.estimators.base import (
        CodeLoss,
        Estimate,
        Estimator,
        EstimatorConfig,
        FromLosses,
        Pathwise,
        SampledConfig,
    )
    from argmax_vae.estimators.schedules import SCHEDULES, Constant, Cosine, Exponential, Linear, Schedule
    from argmax_vae.estimators.standalone import StandaloneEstimator, estimator
    from argmax_vae.models.discrete import EachSeed, ModelConfig, Networks

__all__ = [
    "ESTIMATORS",
    "SCHEDULES",
    "CodeLoss",
    "Constant",
    "Cosine",
    "Dataset",
    "EachSeed",
    "Estimate",
    "Estimator",
    "EstimatorConfig",
    "Exponential",
    "FromLosses",
    "Images",
    "Linear",
    "ModelConfig",
    "Networks",
    "Pathwise",
    "SampledConfig",
    "Schedule",
    "StandaloneEstimator",
    "UsageError",
    "estimator",
]

_MODULES = {
    "argmax_vae.errors": ("UsageError",),
    "argmax_vae.estimators": ("ESTIMATORS", "Estimate", "Estimator", "EstimatorConfig"),
    "argmax_vae.estimators.base": ("CodeLoss", "FromLosses", "Pathwise", "SampledConfig"),
    "argmax_vae.data.images": ("Dataset", "Images"),
    "argmax_vae.models.discrete": ("EachSeed", "ModelConfig", "Networks"),
    "argmax_vae.estimators.standalone": ("StandaloneEstimator", "estimator"),
    "argmax_vae.estimators.schedules": ("SCHEDULES", "Constant", "Cosine", "Exponential", "Linear", "Schedule"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
