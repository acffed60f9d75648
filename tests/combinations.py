"""Every estimator with every model, objective and phase that it fits, as small modules that are ready to step."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch

from argmax_vae.config.schema import Config, DataConfig, RuntimeConfig, TrainerConfig
from argmax_vae.data.images import Dataset, Images
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.models.convolutional import AttributeConfig
from argmax_vae.models.discrete import DeepConfig, ModelConfig
from argmax_vae.models.layered import LayeredConfig
from argmax_vae.models.mixture import MixtureConfig
from argmax_vae.objective.labels import SupervisionConfig
from argmax_vae.objective.terms import ObjectiveConfig
from argmax_vae.training import build
from argmax_vae.training.mixture_vae import MixtureVAE
from argmax_vae.training.vae import DiscreteVAE

SHAPE = (1, 4, 4)
BATCH = 4
SEEDS = [0, 1]
SMALL_MIXTURE = {"latents": "1x2", "gaussian": 2, "row": 3, "component_hidden": [4]}
MODELS: dict[str, ModelConfig] = {
    "linear": ModelConfig(latents="3x2"),
    "one latent": ModelConfig(latents="1x2"),
    "one_hidden": ModelConfig(name="one_hidden", latents="3x2", hidden=[5]),
    "deep": DeepConfig(latents="3x2", hidden=[6, 5]),
    "layered": LayeredConfig(latents="3x2", further=["2x2"]),
    "mixture": MixtureConfig(hidden=[5], discrete_hidden=[4], decoder_hidden=[5], **SMALL_MIXTURE),
    "attributes": AttributeConfig(channels=[2, 3], dropout=0.5, **SMALL_MIXTURE),
}
PHASES = ("unlabelled", "labelled", "both")


@dataclasses.dataclass(frozen=True)
class Combination:
    """What decides which code a step runs."""

    model: str
    estimator: str
    kl: str = "analytic"
    phase: str = "unlabelled"
    loss: str = "cross_entropy"
    noise: str = "generator"
    choices: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        words = dataclasses.astuple(self)[: 4 if self.phase == "unlabelled" else 5]
        return "-".join([*words, *(name for name, _ in self.choices)]).replace(" ", "_")

    def config(self) -> Config:
        """Raises UsageError when the choices do not fit together."""
        supervision = SupervisionConfig()
        if self.phase != "unlabelled":
            supervision = SupervisionConfig(
                training="sequential" if self.phase == "labelled" else "joint",
                labels=2,
                labelled_batch=2,
                labelled_visits=1,
                loss=self.loss,
            )
        return Config(
            data=DataConfig(name="digits", binarization="dynamic"),
            model=MODELS[self.model],
            estimator=ESTIMATORS[self.estimator].config_class(**dict(self.choices)),
            objective=ObjectiveConfig(kl=self.kl),
            supervision=supervision,
            trainer=TrainerConfig(batch=BATCH),
            runtime=RuntimeConfig(compile=False, noise=self.noise),
            seeds=SEEDS,
        )

    def fits(self) -> bool:
        try:
            self.config()
        except UsageError:
            return False
        return True

    def module(self) -> DiscreteVAE:
        """On the CPU, at the start of an epoch of the phase."""
        module = build.build(self.config(), images())
        module.prepare_steps(module.configure_optimizers())
        module.on_train_epoch_start()
        if isinstance(module, MixtureVAE):
            assert module.phase == self.phase
        return module


def images(number: int = 8) -> Dataset:
    """Random images of two classes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (number, SHAPE[0] * SHAPE[1] * SHAPE[2]), generator=generator, dtype=torch.uint8)
    split = Images(pixels, torch.arange(number) % 2)
    return Dataset("random", SHAPE, split, split, split, binary=False)


def combinations() -> Iterator[Combination]:
    """Every estimator with every model and phase, and with every objective and loss of labels on one of them."""
    for estimator in ESTIMATORS:
        loss = "label" if estimator in ("direct", "direct_rao_blackwell") else "cross_entropy"
        for model in MODELS:
            phases = PHASES if model == "mixture" else ("both",) if model == "attributes" else ("unlabelled",)
            yield from (Combination(model, estimator, phase=phase, loss=loss) for phase in phases)
        yield Combination("linear", estimator, kl="concrete")
        yield Combination("linear", estimator, kl="importance_weighted")
        yield Combination("mixture", estimator, kl="folded", phase="both", loss="augmented")
    ovis, dreg = {"baseline": "ovis", "auxiliary": 2}, {"samples": 3, "doubly_reparameterized": True}
    for estimator, choices in (("reinforce", ovis), ("gumbel_softmax", dreg)):
        yield Combination("linear", estimator, kl="importance_weighted", choices=tuple(choices.items()))
    yield Combination("linear", "direct", kl="none")
    yield Combination("linear", "direct", kl="folded")
    yield Combination("mixture", "gumbel_softmax", kl="concrete", phase="both", loss="relaxed_cross_entropy")


COMBINATIONS = [combination for combination in combinations() if combination.fits()]
COUNTED = Combination("mixture", "direct", phase="both", loss="label", noise="counter")
"""Whose steps draw all kinds of noise, from counters, as steps on CUDA do."""
COUNTED_IN_LAYERS = Combination("layered", "rebar", noise="counter")
"""Whose steps draw the noise of further layers for several calls in common."""
