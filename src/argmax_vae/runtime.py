"""Where and how a run is computed."""

from dataclasses import dataclass, replace

from argmax_vae.candidates import FORMS
from argmax_vae.checks import require, require_count, require_finite, require_one_of
from argmax_vae.networks import PRECISIONS
from argmax_vae.randomness import NOISES


@dataclass
class RuntimeConfig:
    """Where and how a run is computed; it is no part of the run's identity.

    `device`: auto, cpu or cuda; `processes`: of this machine that share every batch, on CUDA one for each device;
    `channels_last`: order images in memory as (height, width, channels) for convolutions; `precision`: of the factors
    of matrix products and convolutions in training, float32, on CUDA tf32, or bfloat16 (products on a CPU only if it
    has such), parameters and sums being float32; `chunk`: steps per Lightning batch; `compile`: use torch.compile;
    `candidates`: form of the candidate losses; `graph`: capture the step as a CUDA graph; `noise`: from a generator, or
    from a counter inside the step (`chosen_noise`); `checkpoint_every`, `checkpoint_minutes`: at the end of so many
    epochs, and of an epoch when so much time has gone by, what a run goes on from is written. `chunk` and
    `checkpoint_every` are 0 for what suits the device (`on`).
    """

    device: str = "auto"
    processes: int = 1
    channels_last: bool = False
    precision: str = "float32"
    chunk: int = 0
    compile: bool = True
    candidates: str = "auto"
    graph: bool = True
    noise: str = "auto"
    checkpoint_every: int = 0
    checkpoint_minutes: float = 3.0

    def __post_init__(self) -> None:
        require_one_of("runtime.device", self.device, ("auto", "cpu", "cuda"))
        require_one_of("runtime.precision", self.precision, PRECISIONS)
        require_one_of("runtime.candidates", self.candidates, FORMS)
        require_one_of("runtime.noise", self.noise, NOISES)
        for name, smallest in (("processes", 1), ("chunk", 0), ("checkpoint_every", 0)):
            require_count(f"runtime.{name}", getattr(self, name), smallest)
        require_finite("runtime.checkpoint_minutes", self.checkpoint_minutes)
        require(self.checkpoint_minutes >= 0, "runtime.checkpoint_minutes", self.checkpoint_minutes, "at least 0")

    def on(self, device: str) -> "RuntimeConfig":
        """This with the choices that are left to the device, cpu or cuda: steps are quick on CUDA, Lightning is not."""
        chunk, every = (500, 50) if device == "cuda" else (100, 10)
        return replace(self, chunk=self.chunk or chunk, checkpoint_every=self.checkpoint_every or every)
