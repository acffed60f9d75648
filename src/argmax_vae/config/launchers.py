"""Engines: where the jobs of a sweep run. Hydra's launchers start them; here is what holds for each of them.

basic: this process, one run after the other; joblib: processes of this machine; gpus: one for each of its CUDA
devices; ray, ray_cluster: tasks of Ray; slurm: jobs of SLURM. An engine's workers see the files of this machine.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Generic, TypeVar

from filelock import FileLock, Timeout
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from argmax_vae import streams
from argmax_vae.errors import UsageError

Answer = TypeVar("Answer")

EXTRAS = {"joblib": "joblib", "gpus": "joblib", "ray": "ray", "ray_cluster": "ray", "slurm": "slurm"}
"""The extra of this package that each engine needs."""
PLUGINS = {"joblib": "hydra-joblib-launcher", "ray": "hydra-ray-launcher", "slurm": "hydra-submitit-launcher"}
"""The Hydra plugin in each extra."""
GROUP = "hydra/launcher"
ON_THIS_MACHINE = ("basic", "joblib", "gpus")


def require_extra(engine: str) -> None:
    """Raise UsageError when the plugin that an engine needs is not installed."""
    if engine not in EXTRAS:
        return
    try:
        version(PLUGINS[EXTRAS[engine]])
    except PackageNotFoundError:
        raise UsageError(f"{GROUP}={engine} needs the extra: pip install 'argmax-vae[{EXTRAS[engine]}]'") from None


def chosen(overrides: Sequence[str]) -> str:
    """The engine that overrides select."""
    names = [override.removeprefix(f"{GROUP}=") for override in overrides if override.startswith(f"{GROUP}=")]
    return names[-1] if names else "basic"


def cuda_devices() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls the devices that this process may use."""
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return visible.split(",")[:count] if visible else [str(number) for number in range(count)]


def register_resolvers() -> None:
    """Let configurations say `${cuda_devices:}` for the number of devices."""
    OmegaConf.register_new_resolver("cuda_devices", lambda: len(cuda_devices()), replace=True)


@dataclass(frozen=True)
class Task(Generic[Answer]):
    """What an engine calls, wherever it runs, for every job: `call(number)`, as if from where the sweep was started.

    `devices`: those of which each worker takes one for itself.
    """

    call: Callable[[int], Answer]
    devices: Sequence[str] = ()
    directory: Path = field(default_factory=Path.cwd)
    command: Sequence[str] = field(default_factory=lambda: tuple(sys.argv))

    def __call__(self, composed: DictConfig) -> Answer:
        streams.protect()
        os.chdir(self.directory)
        sys.argv = list(self.command)
        if self.devices:
            take_device(self.devices)
        return self.call(HydraConfig.get().job.num)


HELD: list[FileLock] = []
"""The lock on the device of this process, released when it ends."""


def take_device(devices: Sequence[str]) -> None:
    """Let CUDA see one device alone, which no other process of this user has taken, until this process ends.

    Raises UsageError when all are taken. A process that has one keeps it.
    """
    if HELD:
        return
    for device in devices:
        lock = FileLock(Path(tempfile.gettempdir()) / f"argmax-vae-{os.getuid()}-{device}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        except OSError as error:
            raise UsageError(f"{GROUP}=gpus: cannot lock {lock.lock_file}: {error.strerror}; remove it") from None
        HELD.append(lock)
        os.environ["CUDA_VISIBLE_DEVICES"] = device
        return
    raise UsageError(f"{GROUP}=gpus: other sweeps use every CUDA device of this machine; try again when they end")


def launch(
    configs: Path, config_name: str, jobs: Sequence[Sequence[str]], call: Callable[[int], Answer]
) -> tuple[list[Answer], str]:
    """Let the engine that the first job's overrides select do all jobs; returns `call(number)` of each.

    When the engine itself breaks, such as by the death of a worker, there are no answers but the reason, in one line.
    Raises UsageError when the engine cannot start, and what `call` raised.
    """
    engine = chosen(jobs[0])
    devices = cuda_devices() if engine == "gpus" else []
    if engine == "gpus" and not devices:
        raise UsageError(f"{GROUP}=gpus: this machine has no CUDA device; use {GROUP}=joblib")
    with initialize_config_dir(str(configs), job_name="argmax-vae", version_base="1.3"):
        master = compose(config_name, list(jobs[0]), return_hydra_config=True)
        context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks())
        launcher = Plugins.instance().instantiate_launcher(context, Task(call, devices), master)
        own = [[override for override in job if not is_hydras(override)] for job in jobs]
        try:
            returned: Sequence[Any] = launcher.launch(own, initial_job_idx=0)
        except Exception as error:
            if engine == "basic":
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            return [], f"{GROUP}={engine}: {reason}"
    return [job.return_value for job in returned], ""


def is_hydras(override: str) -> bool:
    """Whether an override is for Hydra itself."""
    return override.lstrip("+~").startswith(("hydra.", "hydra/"))
