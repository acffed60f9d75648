"""RODEO (Shi, Zhou, Hwang, Titsias and Mackey 2022): leave-one-out REINFORCE with discrete Stein operators.

The Gibbs operator draws one variable anew, each in turn, and its expectation is zero under q for any function h:

    (A h)(z) = 1/n Σ_i [Σ_v q_i(v) h(z with z_i = v) − h(z)],  E_q[(A h)(z)] = 0.

For each of M codes h comes from the others, by their losses and slopes g_l = ∂θ/∂z at z_l, and a network H of two
inputs and two outputs: one for a function of the baseline, one for a function with a direction, the score s(y) = y − μ,

    h_m(y), u_m(y) = 1/(M − 1) Σ_{l≠m} H(θ(z_l), g_lᵀ(y − z_l)),  r_m = θ(z_m) + α (A h_m)(z_m),
    ∇_φ E_q[θ] = E[1/M Σ_m ((θ(z_m) − 1/(M − 1) Σ_{l≠m} r_l) s(z_m) + β (A u_m s)(z_m))].

Unbiased, for h_m and u_m know nothing of z_m. H, α and β follow the gradient of the estimate's mean square; with
α = β = 0, where they start, it is leave-one-out. The source has binary variables; nothing in it asks for k = 2.
Cost: M decoder evaluations per image, and their derivatives in the codes; H is asked M(M − 1)(n(k − 1) + 1) times.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from argmax_vae.errors import require_sizes
from argmax_vae.estimators.base import (
    CodeLoss,
    Codes,
    Estimate,
    Estimator,
    Logits,
    Losses,
    Noise,
    SampledConfig,
    Step,
    learned_layers,
    losses_and_slopes,
    with_gradient,
)
from argmax_vae.latents import gumbel_from_uniform, sample_codes

LEAK = 0.3


@dataclass
class RodeoConfig(SampledConfig):
    """`samples`: M, at least 2; `hidden`: sizes of H's hidden layers, with leaky ReLU; [100] is the source's."""

    name: str = "rodeo"
    samples: int = 4
    hidden: list[int] = field(default_factory=lambda: [100])

    def __post_init__(self) -> None:
        self.require_at_least("samples", 2)
        require_sizes("estimator.hidden", self.hidden)

    def describe_schedule(self) -> str:
        return f"M = {self.samples}, H learned"


class Rodeo(Estimator):
    """(θ(z_m) − the others' mean of r) s(z_m) + β (A u_m s)(z_m), averaged over samples."""

    config_class = RodeoConfig

    def prepare(self, n: int, k: int, seeds: Sequence[int] | None = None) -> "Rodeo":
        self.weights, self.biases = learned_layers([2, *self.config.hidden, 2], seeds)
        shape = () if seeds is None else (len(seeds), 1)
        self.alpha, self.beta = (nn.Parameter(torch.zeros(shape)) for _ in range(2))
        return self

    def forward(self, logits: Logits, loss: CodeLoss, noise: Noise, step: Step) -> Estimate:
        frozen = logits.detach()
        codes = sample_codes(frozen, gumbel_from_uniform(noise["uniform"]))
        losses, slopes = losses_and_slopes(loss, codes)
        if self.training:
            gradient = self.gradient(frozen, codes, losses.detach(), slopes.detach())
        else:
            with torch.no_grad():
                gradient = self.gradient(frozen, codes, losses.detach(), slopes)
        moment = gradient.square().sum((-2, -1))
        value = losses.mean(0)
        objective = with_gradient(value, logits, gradient) + (moment - moment.detach())
        learned = {"alpha": self.alpha.detach(), "beta": self.beta.detach()}
        metrics = {name: value.squeeze(-1) if value.ndim else value for name, value in learned.items()}
        return Estimate(objective=objective, loss=value.detach(), metrics=metrics)

    def gradient(self, logits: Logits, codes: Codes, losses: Losses, slopes: Codes) -> Logits:
        """The estimate of ∇_φ E_q[θ], differentiable in what is learned."""
        number, n = len(codes), codes.shape[-2]
        probabilities = logits.softmax(-1)
        scores = codes - probabilities
        of_baseline, directed = self.surrogates(codes, losses, slopes)
        left = losses + self.alpha.to(logits.dtype) * stein(of_baseline, scores)
        signal = losses - (left.sum(0) - left) / (number - 1)
        changed = probabilities * directed
        own_block = (changed - changed.sum(-1, keepdim=True) * codes) / n
        along = stein(directed, scores)[..., None, None] * scores + own_block
        return (signal[..., None, None] * scores + self.beta.to(logits.dtype)[..., None, None] * along).mean(0)

    def surrogates(self, codes: Codes, losses: Losses, slopes: Codes) -> tuple[Codes, Codes]:
        """h_m and u_m at all one-coordinate changes of z_m: entry (i, v) is where variable i has value v.

        H is asked for z_m itself once, and for the k − 1 other values of each variable.
        """
        n, k = codes.shape[-2:]
        others = (codes.argmax(-1, keepdim=True) + torch.arange(1, k, device=codes.device)) % k
        found = []
        for shift in range(1, len(codes)):
            other, loss, slope = (values.roll(shift, 0) for values in (codes, losses, slopes))
            here = (slope * (codes - other)).sum((-2, -1)).unsqueeze(-1)
            change = (slope - (slope * codes).sum(-1, keepdim=True)).gather(-1, others).flatten(-2)
            along = torch.cat([here, here + change], -1)
            found.append(self.network(torch.stack([loss.unsqueeze(-1).expand_as(along), along], -1)))
        own, changed = torch.stack(found).mean(0).split([1, n * (k - 1)], -2)
        of_baseline, directed = (
            (here.unsqueeze(-1) * codes).scatter(-1, others, elsewhere.unflatten(-1, (n, k - 1)))
            for here, elsewhere in zip(own.unbind(-1), changed.unbind(-1), strict=True)
        )
        return of_baseline, directed

    def network(self, inputs: Float[Tensor, "samples *leading codes 2"]) -> Float[Tensor, "samples *leading codes 2"]:
        """H; every seed has its own."""
        seeded = self.alpha.ndim > 0
        moved = inputs.movedim(1, 0) if seeded else inputs.unsqueeze(0)
        values = moved.flatten(1, -2)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = nn.functional.leaky_relu(values, LEAK) if layer else values
            values = values @ weight.to(values.dtype) + bias.to(values.dtype)
        values = values.unflatten(1, moved.shape[1:-1])
        return values.movedim(0, 1) if seeded else values.squeeze(0)


def stein(values: Codes, scores: Codes) -> Losses:
    """(A h)(z) from h at all one-coordinate changes of z, and the score z − μ."""
    return -(values * scores).sum(-1).mean(-1)
