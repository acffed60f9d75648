"""Gradient estimators, one file each. ESTIMATORS is the list of those that exist; tests, demo and bench run over it."""

from argmax_vae.estimators.base import Estimate, Estimator, EstimatorConfig
from argmax_vae.estimators.direct import Direct
from argmax_vae.estimators.exact import Exact
from argmax_vae.estimators.gumbel_softmax import GumbelSoftmax

ESTIMATORS: dict[str, type[Estimator]] = {
    "direct": Direct,
    "exact": Exact,
    "gumbel_softmax": GumbelSoftmax,
}

__all__ = ["ESTIMATORS", "Estimate", "Estimator", "EstimatorConfig"]
