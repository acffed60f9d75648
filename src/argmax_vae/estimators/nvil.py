"""NVIL (Mnih and Gregor 2014): REINFORCE with a learned baseline for each image.

∇_φ E_q[θ(z)] = E_q[(θ(z) − c − C(φ)) ∇_φ log q(z)],

c the running mean of θ − C over past steps, C a network that follows the gradient of (θ(z) − c − C(φ))²/2. In the
source C sees the image; an estimator sees none, so C sees φ, which the encoder made of it. Averaged over M samples.
Unbiased.

With `normalize` the signal is divided by max(1, √v), v the running variance of θ − C: the source's way to one
learning rate for all. It scales the gradient of θ and not that of the KL term, so it is off by default.
Cost: M decoder evaluations per image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from argmax_vae.errors import require_fraction, require_sizes
from argmax_vae.estimators.base import (
    CodeLoss,
    Estimate,
    Estimator,
    Logits,
    Noise,
    SampledConfig,
    Step,
    learned_layers,
    with_gradient,
)
from argmax_vae.latents import gumbel_from_uniform, sample_codes, without_excluded


@dataclass
class NvilConfig(SampledConfig):
    """`samples`: M; `hidden`: sizes of C's hidden layers, with tanh; `decay`: of c and v, per step; `normalize`."""

    name: str = "nvil"
    hidden: list[int] = field(default_factory=lambda: [100])
    decay: float = 0.8
    normalize: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes("estimator.hidden", self.hidden)
        require_fraction("estimator.decay", self.decay)

    def describe_schedule(self) -> str:
        return f"M = {self.samples}, baseline learned" + (", normalized" if self.normalize else "")


class Nvil(Estimator):
    """(θ(z) − c − C(φ)) (z − softmax(φ)), averaged over samples."""

    config_class = NvilConfig
    learns_from_latents = True
    mean: Tensor
    square: Tensor
    weight: Tensor

    def prepare(self, n: int, k: int, seeds: Sequence[int] | None = None) -> "Nvil":
        self.weights, self.biases = learned_layers([n * k, *self.config.hidden, 1], seeds)
        for name in ("mean", "square", "weight"):
            self.register_buffer(name, torch.zeros(() if seeds is None else (len(seeds), 1)))
        return self

    def forward(self, logits: Logits, loss: CodeLoss, noise: Noise, step: Step) -> Estimate:
        frozen = logits.detach()
        codes = sample_codes(frozen, gumbel_from_uniform(noise["uniform"]))
        losses = loss(codes)
        mean, deviation = (values.to(logits.dtype) for values in self.running())
        unexplained = losses.detach() - self.network(frozen)
        left = unexplained - mean
        signal = left.detach() / (deviation if self.config.normalize else 1)
        gradient = (signal[..., None, None] * (codes - frozen.softmax(-1))).mean(0)
        error = left.square().mean(0) / 2
        value = losses.mean(0)
        objective = with_gradient(value, logits, gradient) + (error - error.detach())
        return Estimate(objective=objective, loss=value.detach(), observed=unexplained.detach().mean(0))

    def network(self, logits: Logits) -> Float[Tensor, "*leading"]:
        """C of the logits of each image, in nats."""
        values = without_excluded(logits).flatten(-2)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = (values.tanh() if layer else values) @ weight.to(values.dtype) + bias.to(values.dtype)
        return values.squeeze(-1)

    def running(self) -> tuple[Tensor, Tensor]:
        """c and max(1, √v) from the steps before this one, corrected for their start at zero."""
        weight = self.weight.clamp_min(torch.finfo(torch.float32).tiny)
        mean = self.mean / weight
        return mean, (self.square / weight - mean.square()).clamp_min(1).sqrt()

    def observe(self, seen: Float[Tensor, "*leading"]) -> None:
        moments = torch.stack([seen, seen.square(), torch.ones_like(seen)])
        moments = moments.mean(-1, keepdim=True) if self.mean.ndim else moments.reshape(3, -1).mean(-1)
        for average, now in zip((self.mean, self.square, self.weight), moments, strict=True):
            average.lerp_(now.to(average.dtype), 1 - self.config.decay)
