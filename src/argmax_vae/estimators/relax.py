"""RELAX (Grathwohl et al. 2018): REBAR whose control variate has a learned network on top of the relaxed loss,

    c(z) = θ(softmax(z/τ)) + s · r(z),

r a small network of the scores z, s a learned scale that starts at zero, so that training starts at REBAR. The network
follows the gradient of E‖g‖² with τ and η. The source's r for Bernoulli latents has two layers of 200 units, sees the
image, and has no scale. Unbiased. Cost: three decoder evaluations per image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from argmax_vae.errors import require_sizes
from argmax_vae.estimators.base import CodeLoss, learned_layers
from argmax_vae.estimators.rebar import Parameters, Rebar, RebarConfig
from argmax_vae.latents import without_excluded


@dataclass
class RelaxConfig(RebarConfig):
    """As REBAR; `surrogate`: sizes of the hidden layers of r, with ReLU between; [50] is 20-50-1 for 20×2, as
    in the script that Lorberbom et al. (2019) compared with."""

    name: str = "relax"
    surrogate: list[int] = field(default_factory=lambda: [50])

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes("estimator.surrogate", self.surrogate)


class Relax(Rebar):
    """The control variate is the relaxed loss plus a learned function of the scores."""

    config_class = RelaxConfig
    learns_from_latents = True

    def prepare(self, n: int, k: int, seeds: Sequence[int] | None = None) -> "Relax":
        super().prepare(n, k, seeds)
        inputs = n if self.config.parameterization == "binary" else n * k
        self.weights, self.biases = learned_layers([inputs, *self.config.surrogate, 1], seeds)
        self.scale = nn.Parameter(torch.zeros_like(self.eta))
        return self

    def control(self, loss: CodeLoss, scores: Tensor, parameters: Parameters) -> Float[Tensor, "two *leading"]:
        known = without_excluded(scores)
        values = known if self.config.parameterization == "binary" else known.flatten(-2)
        for layer in range(len(self.weights)):
            weight, bias = (parameters[f"{kind}.{layer}"].to(values.dtype) for kind in ("weights", "biases"))
            values = (torch.relu(values) if layer else values) @ weight + bias
        surrogate = parameters["scale"].to(values.dtype) * values.squeeze(-1)
        return super().control(loss, scores, parameters) + surrogate
