"""The unordered set estimator (Kool, van Hoof and Welling 2020): codes without replacement, in whatever order.

S is a set of M different codes of the whole product of variables, the M largest perturbed log-probabilities
log q(z) + γ_z of all kⁿ codes, found by stochastic beam search (Kool, van Hoof and Welling 2019). With W(E) the
probability that the codes of S \\ E are drawn first when those of E cannot be,

    W(E) = Σ_{s∈S\\E} q(s)/(1 − q(E)) W(E ∪ {s}),  W(S) = 1,  R(s) = W({s})/W(∅),
    ∇_φ E_q[θ] = E[Σ_{s∈S} q(s) R(s) (θ(s) − b_s) ∇ log q(s)],
    b_s = q(s) θ(s) + Σ_{s'≠s} q(s') W({s, s'})/W({s}) θ(s').

Unbiased, also in E_q[θ] ≈ Σ_s q(s) R(s) θ(s), which trains the decoder. Exact when M reaches kⁿ, beyond which there is
nothing to draw. Cost: M decoder evaluations per image.
"""

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from argmax_vae.errors import require
from argmax_vae.estimators.base import (
    CodeLoss,
    Codes,
    Estimate,
    Estimator,
    EstimatorConfig,
    Logits,
    Losses,
    Noise,
    Step,
    with_gradient,
)
from argmax_vae.latents import beam_search
from argmax_vae.randomness import NoiseSource

LARGEST_SET = 8


@dataclass
class UnorderedSetConfig(EstimatorConfig):
    """`samples`: M, from 2 to LARGEST_SET."""

    name: str = "unordered_set"
    samples: int = 4

    def __post_init__(self) -> None:
        allowed = f"from 2 to {LARGEST_SET}"
        require(2 <= self.samples <= LARGEST_SET, "estimator.samples", self.samples, allowed)

    def describe_schedule(self) -> str:
        return f"M = {self.samples}"


class UnorderedSet(Estimator):
    """Σ_s q(s) R(s) (θ(s) − b_s) (s − softmax(φ))."""

    config_class = UnorderedSetConfig

    def noise(self, shape: tuple[int, ...], source: NoiseSource) -> Noise:
        return {"uniform": source.uniform(shape, samples=self.config.samples)}

    def forward(self, logits: Logits, loss: CodeLoss, noise: Noise, step: Step) -> Estimate:
        frozen = logits.detach()
        codes, scores = self.codes(frozen, noise)
        losses = loss(codes)
        with torch.no_grad():
            weights, baselines = self.weights_and_baselines(scores, losses.detach())
            slopes = (weights * (losses.detach() - baselines))[..., None, None] * (codes - frozen.softmax(-1))
        value = (weights * losses).sum(0)
        return Estimate(objective=with_gradient(value, logits, slopes.sum(0)), loss=value.detach())

    def codes(self, logits: Logits, noise: Noise) -> tuple[Codes, Losses]:
        """Different codes and their log-probabilities."""
        return beam_search(logits, self.config.samples, noise["uniform"])

    def weights_and_baselines(self, scores: Losses, losses: Losses) -> tuple[Losses, Losses]:
        """q(s) R(s) and b_s of every code."""
        number, first = len(scores), set_scores(scores)
        alone = [first[frozenset([s])] for s in range(number)]
        weights = torch.stack(alone) + scores - first[frozenset()]
        baselines = []
        for s in range(number):
            pairs = [alone[s] if other == s else first[frozenset([s, other])] for other in range(number)]
            shares = (scores + torch.stack(pairs) - alone[s]).exp()
            baselines.append((shares * losses).sum(0))
        return weights.exp(), torch.stack(baselines)


def set_scores(scores: Losses) -> dict[frozenset[int], Float[Tensor, "*leading"]]:
    """log W(E) of every subset E of the codes with these log-probabilities.

    Sums are of logarithms: beside a code that is nearly certain, the probabilities of the others may be too small for
    the floating-point type.
    """
    members = range(len(scores))
    beyond = (1 - scores.exp().sum(0)).clamp_min(0).log()
    found = {frozenset(members): torch.zeros_like(scores[0])}
    for size in reversed(members):
        for subset in itertools.combinations(members, size):
            left = [s for s in members if s not in subset]
            reached = torch.stack([scores[s] + found[frozenset([*subset, s])] for s in left])
            free = torch.logaddexp(beyond, torch.stack([scores[s] for s in left]).logsumexp(0))
            found[frozenset(subset)] = reached.logsumexp(0) - free
    return found
