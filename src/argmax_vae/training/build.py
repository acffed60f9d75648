"""From a configuration to a module and a Lightning trainer."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.warnings import PossibleUserWarning

from argmax_vae.config.schema import Config
from argmax_vae.data.images import Dataset
from argmax_vae.data.index_blocks import EvaluationBlocks, loader
from argmax_vae.errors import UsageError, require
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.models.convolutional import AttributeConfig
from argmax_vae.models.layered import LayeredConfig
from argmax_vae.models.mixture import GaussianMixtureConfig
from argmax_vae.objective.layered import Chain
from argmax_vae.training.attribute_vae import AttributeVAE
from argmax_vae.training.layered_vae import LayeredVAE
from argmax_vae.training.mixture_vae import MixtureVAE
from argmax_vae.training.processes import WHOLE, Share
from argmax_vae.training.vae import DiscreteVAE


class SharedBatches(DDPStrategy):
    """Lightning's processes, devices and barriers; gradients are averaged by the module's own steps."""

    def configure_ddp(self) -> None:
        """Leave the module unwrapped: a wrapper would see one backward pass a chunk, not one a step."""


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's advice: about data-loader workers, its own deprecations, and products of its makers."""
    loggers = {name: logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")}
    levels = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=PossibleUserWarning)
            warnings.filterwarnings("ignore", module="pytorch_lightning.*")
            yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])


def device_of(requested: str, processes: int = 1) -> str:
    """cpu or cuda. Raises UsageError when cuda is asked for and absent, or has fewer devices than processes."""
    available = torch.cuda.is_available()
    if requested == "cuda" and not available:
        raise UsageError("runtime.device=cuda: this machine has no CUDA device; use auto or cpu")
    device = "cuda" if available and requested != "cpu" else "cpu"
    if device == "cuda":
        require(processes <= torch.cuda.device_count(), "runtime.processes", processes, "at most the CUDA devices")
    return device


def build(config: Config, dataset: Dataset, share: Share = WHOLE) -> DiscreteVAE:
    """The module that a configuration describes, for the process that trains on this share of every batch.

    From then on cuDNN keeps the 23 bits of float32 in convolutions, which it would round to 10: runtime.precision says
    of what precision they are.
    """
    torch.backends.cudnn.allow_tf32 = False
    parts: dict[str, Any] = {
        "binarization": config.data.binarization,
        "model": config.model,
        "estimator": ESTIMATORS[config.estimator.name](config.estimator),
        "objective_config": config.objective,
        "optim": config.optim,
        "trainer_config": config.trainer,
        "runtime": config.runtime,
        "seeds": list(config.seeds),
        "share": share,
    }
    if isinstance(config.model, LayeredConfig):
        layers = [ESTIMATORS[config.estimator.name](config.estimator) for _ in config.model.sizes]
        return LayeredVAE(dataset, **{**parts, "estimator": Chain(layers, config.model.sizes)})
    if isinstance(config.model, AttributeConfig):
        return AttributeVAE(dataset, config.supervision, attributes=config.data.attribute_names, **parts)
    if isinstance(config.model, GaussianMixtureConfig):
        return MixtureVAE(dataset, config.supervision, **parts)
    return DiscreteVAE(dataset, **parts)


def lightning_trainer(
    config: Config, device: str, callbacks: list[pl.Callback], share: Share = WHOLE, saving: Sequence[Any] = ()
) -> pl.Trainer:
    """A Lightning trainer that leaves files, logging and checkpoints to this package, and SLURM's jobs to engines."""
    return pl.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=share.count,
        strategy=SharedBatches() if share.count > 1 else "auto",
        plugins=[LightningEnvironment(), *saving],
        max_epochs=config.trainer.epochs,
        check_val_every_n_epoch=config.trainer.evaluate_every,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        inference_mode=False,
        use_distributed_sampler=False,
        default_root_dir=config.paths.runs,
    )


def evaluation_loaders(config: Config, dataset: Dataset) -> list[Any]:
    """Loaders of the validation and the test split, in this order."""
    return [
        loader(EvaluationBlocks(len(split.pixels), config.trainer.evaluation_batch))
        for split in (dataset.validation, dataset.test)
    ]
