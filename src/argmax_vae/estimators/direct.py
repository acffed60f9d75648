"""Direct optimization through arg max (the paper's Theorem 1 and section 5.2).

With z = argmax(φ + γ) and z_{±ε} = argmax(φ + γ ± εθ),

    ∇_φ E[θ(z)] = lim_{ε→0} (z_{+ε} − z)/ε = lim_{ε→0} (z − z_{−ε})/ε = lim_{ε→0} (z_{+ε} − z_{−ε})/2ε,

in expectation over the Gumbel noise γ. `away` (towards higher loss) is the theorem as printed, `toward` is what the
paper's code does; both have a bias of order ε, `symmetric` one of order ε². All three cost the same, since θ is
evaluated once. For n > 1, θ is replaced coordinate by coordinate by the candidate losses θ_i(j) (section 5.2), which
leaves the limit unchanged.
"""

from dataclasses import dataclass, field

from argmax_vae.estimators.base import Codes, FromLosses, Logits, Noise, SampledConfig, Scheduled
from argmax_vae.estimators.schedules import Constant, Schedule
from argmax_vae.latents import gumbel_from_uniform, one_hot_argmax

DIRECTIONS = ("toward", "away", "symmetric")


@dataclass
class DirectConfig(SampledConfig):
    """`epsilon`: schedule of ε; `direction`: one of DIRECTIONS."""

    name: str = "direct"
    epsilon: Schedule = field(default_factory=Constant)
    direction: str = "toward"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_choice("direction", DIRECTIONS)


class Direct(FromLosses):
    """(z − z_{−ε})/ε and its two siblings."""

    config_class = DirectConfig
    asks_for_candidates = True
    asks_for_codes_alone = False

    def gradient(self, logits: Logits, codes: Codes, candidates: Codes, noise: Noise, scheduled: Scheduled) -> Logits:
        return self.differences(logits, codes, candidates, noise, scheduled).mean(0)

    def differences(self, logits: Logits, codes: Codes, candidates: Codes, noise: Noise, scheduled: Scheduled) -> Codes:
        """The estimate of every sample."""
        epsilon = scheduled["epsilon"]
        scores, change = logits + gumbel_from_uniform(noise["uniform"]), epsilon * candidates
        if self.config.direction == "toward":
            return (codes - one_hot_argmax(scores - change)) / epsilon
        if self.config.direction == "away":
            return (one_hot_argmax(scores + change) - codes) / epsilon
        return (one_hot_argmax(scores + change) - one_hot_argmax(scores - change)) / (2 * epsilon)
