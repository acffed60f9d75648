"""Gradient estimators, one file each. ESTIMATORS is the list of those that exist; tests, demo and bench run over it.

Those of other installed packages stand behind the package's own (`argmax_vae.plugins`).
"""

from argmax_vae.estimators.arm import Arm
from argmax_vae.estimators.arsm import Arsm
from argmax_vae.estimators.base import Estimate, Estimator, EstimatorConfig, FromLosses, Pathwise, schedule_names
from argmax_vae.estimators.carms import Carms
from argmax_vae.estimators.decoupled_straight_through import DecoupledStraightThrough
from argmax_vae.estimators.direct import Direct
from argmax_vae.estimators.direct_control_variate import DirectControlVariate
from argmax_vae.estimators.direct_rao_blackwell import DirectRaoBlackwell
from argmax_vae.estimators.disarm import DisArm
from argmax_vae.estimators.disarm_categorical import DisArmCategorical
from argmax_vae.estimators.double_control_variates import DoubleControlVariates
from argmax_vae.estimators.exact import Exact
from argmax_vae.estimators.gapped_straight_through import GappedStraightThrough
from argmax_vae.estimators.gumbel_rao import GumbelRao
from argmax_vae.estimators.gumbel_softmax import GumbelSoftmax
from argmax_vae.estimators.imle import Imle
from argmax_vae.estimators.local_expectation import LocalExpectation
from argmax_vae.estimators.nvil import Nvil
from argmax_vae.estimators.rebar import Rebar
from argmax_vae.estimators.reinforce import Reinforce
from argmax_vae.estimators.reinmax import ReinMax
from argmax_vae.estimators.relax import Relax
from argmax_vae.estimators.rodeo import Rodeo
from argmax_vae.estimators.schedules import SCHEDULES
from argmax_vae.estimators.straight_through import StraightThrough
from argmax_vae.estimators.sum_and_sample import SumAndSample
from argmax_vae.estimators.unordered_set import UnorderedSet
from argmax_vae.estimators.zgr import Zgr
from argmax_vae.plugins import Registry, config_fault

OWN: dict[str, type[Estimator]] = {
    "direct": Direct,
    "direct_rao_blackwell": DirectRaoBlackwell,
    "imle": Imle,
    "gumbel_softmax": GumbelSoftmax,
    "straight_through": StraightThrough,
    "decoupled_straight_through": DecoupledStraightThrough,
    "gapped_straight_through": GappedStraightThrough,
    "gumbel_rao": GumbelRao,
    "zgr": Zgr,
    "reinmax": ReinMax,
    "rebar": Rebar,
    "relax": Relax,
    "direct_control_variate": DirectControlVariate,
    "double_control_variates": DoubleControlVariates,
    "rodeo": Rodeo,
    "reinforce": Reinforce,
    "nvil": Nvil,
    "arm": Arm,
    "arsm": Arsm,
    "disarm": DisArm,
    "disarm_categorical": DisArmCategorical,
    "carms": Carms,
    "unordered_set": UnorderedSet,
    "sum_and_sample": SumAndSample,
    "local_expectation": LocalExpectation,
    "exact": Exact,
}


def fault(kind: type[Estimator], name: str) -> str:
    """What is missing of an outside estimator; empty when nothing is."""
    if found := config_fault(kind.config_class, name):
        return found
    config = kind.config_class(name=name)
    for choice in schedule_names(kind.config_class):
        if type(getattr(config, choice)) not in SCHEDULES.values():
            return f"the default of {choice} must be a schedule of {', '.join(SCHEDULES)}, or of an entry point"
    for base, method in ((FromLosses, "gradient"), (Pathwise, "codes"), (Estimator, "forward")):
        inherits = issubclass(kind, base) and kind.forward is base.forward
        if inherits and getattr(kind, method) is getattr(base, method):
            return f"{kind.__name__} must write {method}"
    if kind.noise is Estimator.noise and not hasattr(config, "samples"):
        return f"{kind.__name__} must write noise, or have a config with samples, such as SampledConfig"
    return ""


ESTIMATORS = Registry(
    "estimator",
    OWN,
    lambda kind: isinstance(kind, type) and issubclass(kind, Estimator) and hasattr(kind, "config_class"),
    "a subclass of argmax_vae.Estimator with a config_class",
    fault,
)

__all__ = ["ESTIMATORS", "Estimate", "Estimator", "EstimatorConfig"]
