"""What a run needs before it starts: a device, its data, a place, and its noise."""

from dataclasses import replace
from pathlib import Path

from argmax_vae.config.schema import Config
from argmax_vae.data.datasets import is_present
from argmax_vae.data.images import Dataset
from argmax_vae.errors import UsageError, require
from argmax_vae.files import require_writable
from argmax_vae.models.convolutional import AttributeConfig
from argmax_vae.models.mixture import GaussianMixtureConfig
from argmax_vae.randomness import chosen_noise
from argmax_vae.runs.directory import RunDirectory
from argmax_vae.runs.trackers import check_tracker
from argmax_vae.training.attribute_vae import check_shape
from argmax_vae.training.build import device_of
from argmax_vae.training.mixture_vae import check_labels


def prerequisites(config: Config) -> tuple[str, Dataset]:
    """Device and data set of a run. Raises UsageError when one of them, or a place for the run, cannot be had."""
    device = device_of(config.runtime.device, config.runtime.processes)
    rounds = device == "cpu" and config.runtime.precision == "tf32"
    require(not rounds, "runtime.precision", "tf32", "float32 or bfloat16 on a CPU; only CUDA multiplies in tf32")
    require_writable(Path(config.paths.runs))
    check_tracker(config.tracker)
    dataset = config.data.load(Path(config.paths.data))
    images = len(dataset.train.pixels)
    require(
        config.trainer.batch <= images,
        "trainer.batch",
        config.trainer.batch,
        f"at most the {images} training images",
    )
    if isinstance(config.model, AttributeConfig):
        check_shape(dataset, config.model)
    if isinstance(config.model, GaussianMixtureConfig):
        check_labels(dataset, config.supervision, config.model, config.trainer, list(config.seeds))
    return device, dataset


DIGESTS: dict[tuple[str, str], dict[str, int | str]] = {}
"""Digests of the data sets that this process has loaded, by data set and directory."""


def require_same_data(run: RunDirectory, config: Config) -> None:
    """Raise UsageError when a run was trained on other data than those in the data directory, if there are any."""
    directory, key = Path(config.paths.data), (str(config.data), config.paths.data)
    if not run.data or not is_present(config.data.name, directory):
        return
    if key not in DIGESTS:
        DIGESTS[key] = config.data.load(directory).digest
    run.require_data(DIGESTS[key])


def with_noise(config: Config, device: str, begun: RunDirectory | None) -> Config:
    """The configuration with the noise of the run that it goes on with, without one that of `chosen_noise`.

    Raises UsageError when it asks for another than that run has.
    """
    asked = config.runtime.noise
    noise = begun.noise if begun else chosen_noise(asked, device)
    if begun and asked not in ("auto", noise):
        raise UsageError(
            f"runtime.noise={asked} must be auto or {noise}, with which {begun.path} began; remove that directory to "
            f"train with {asked}"
        )
    return replace(config, runtime=replace(config.runtime, noise=noise))
