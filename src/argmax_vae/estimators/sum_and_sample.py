"""Sum and sample (Liang et al. 2018; Liu et al. 2019): the most probable codes are summed, one of the others is drawn.

With C the M − 1 most probable codes of the whole product of variables, found by beam search, and w ~ q(z | z ∉ C),

    ∇_φ E_q[θ] = E[Σ_{z∈C} q(z) (θ(z) − b) ∇ log q(z) + q(z ∉ C) (θ(w) − b) ∇ log q(w)],

for any b that does not depend on w, here the mean of θ under q given C. w is the first code outside C in an order
without replacement (Kool, van Hoof and Welling 2020, who compare a form with drawn codes in C and the loss of another
draw as b). Unbiased, and exact when M reaches kⁿ.
Cost: M decoder evaluations per image.
"""

from dataclasses import dataclass

import torch

from argmax_vae.estimators.base import Codes, Logits, Losses, Noise
from argmax_vae.estimators.unordered_set import UnorderedSet, UnorderedSetConfig
from argmax_vae.latents import beam_search


@dataclass
class SumAndSampleConfig(UnorderedSetConfig):
    """`samples`: M, the codes summed and the one drawn."""

    name: str = "sum_and_sample"


class SumAndSample(UnorderedSet):
    """q(z) for the codes that are summed, the rest of the probability for the one that is drawn."""

    config_class = SumAndSampleConfig

    def codes(self, logits: Logits, noise: Noise) -> tuple[Codes, Losses]:
        """C and w, and their log-probabilities."""
        drawn, drawn_scores = beam_search(logits, self.config.samples, noise["uniform"])
        largest, scores = beam_search(logits, len(drawn) - 1)
        known = (drawn.unsqueeze(1) == largest.unsqueeze(0)).flatten(-2).all(-1).any(1)
        first = known.to(torch.uint8).argmin(0, keepdim=True)
        other = torch.take_along_dim(drawn, first[..., None, None], 0)
        return torch.cat([largest, other]), torch.cat([scores, torch.take_along_dim(drawn_scores, first, 0)])

    def weights_and_baselines(self, scores: Losses, losses: Losses) -> tuple[Losses, Losses]:
        summed = scores[:-1].exp()
        rest = (1 - summed.sum(0, keepdim=True)).clamp_min(0)
        baseline = (scores[:-1].softmax(0) * losses[:-1]).sum(0)
        return torch.cat([summed, rest]), baseline.expand_as(losses)
