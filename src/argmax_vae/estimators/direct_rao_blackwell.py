"""Direct optimization with its noise integrated out, at no further decoder evaluation.

The candidate losses θ_i(j) of direct optimization are known once z = argmax(φ + γ) is drawn, so its difference of arg
max codes can be averaged over the noise that remains (Rao-Blackwell), which keeps its expectation at the same ε:

- `given=code`: the mean over R samples γ_r ~ p(γ | z), drawn as in Gumbel-Rao (Paulus et al. 2020);
- `given=others`: θ_i(·) does not depend on z_i, so γ_i can be integrated out altogether, in closed form:

      E[(z_i − z_{−ε,i})/ε | z_−i] = (softmax(φ_i) − softmax(φ_i − εθ_i))/ε.

The second conditions on less, so every coordinate of the logits' gradient has the least variance of the three; as it
conditions on another z_−i for every i, that need not hold for combinations of coordinates, such as the gradient of the
encoder's weights. As ε → 0 it becomes the local expectation gradient, which is unbiased: what is left of direct is then
its bias, of order ε, or ε² if symmetric.
"""

from dataclasses import dataclass

from argmax_vae.estimators.base import Codes, Logits, Noise, Scheduled
from argmax_vae.estimators.direct import Direct, DirectConfig
from argmax_vae.latents import conditional_gumbel_scores, one_hot_argmax
from argmax_vae.randomness import NoiseSource

CONDITIONS = ("code", "others")


@dataclass
class DirectRaoBlackwellConfig(DirectConfig):
    """As direct; `given`: one of CONDITIONS; `inner_samples`: R, noise samples given each code."""

    name: str = "direct_rao_blackwell"
    given: str = "code"
    inner_samples: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_choice("given", CONDITIONS)
        self.require_at_least("inner_samples", 1)

    def describe_schedule(self) -> str:
        how = f"R = {self.inner_samples}" if self.given == "code" else "given others"
        return f"{super().describe_schedule()}, {how}"


class DirectRaoBlackwell(Direct):
    """The conditional expectation of direct's difference of arg max codes."""

    config_class = DirectRaoBlackwellConfig

    def noise(self, shape: tuple[int, ...], source: NoiseSource) -> Noise:
        noise = super().noise(shape, source)
        if self.config.given == "code":
            noise["inner"] = source.uniform(shape, samples=self.config.inner_samples * self.config.samples)
        return noise

    def gradient(self, logits: Logits, codes: Codes, candidates: Codes, noise: Noise, scheduled: Scheduled) -> Logits:
        epsilon = scheduled["epsilon"]
        shift = epsilon * (candidates - candidates[..., :1])
        if self.config.given == "others":
            start = logits.softmax(-1)
            lower, higher = (logits - shift).softmax(-1), (logits + shift).softmax(-1)
        else:
            start = codes
            inner = noise["inner"].unflatten(0, (-1, self.config.samples))
            scores = conditional_gumbel_scores(logits, codes, inner)
            lower, higher = one_hot_argmax(scores - shift).mean(0), one_hot_argmax(scores + shift).mean(0)
        if self.config.direction == "symmetric":
            difference = (higher - lower) / (2 * epsilon)
        else:
            difference = (start - lower) / epsilon if self.config.direction == "toward" else (higher - start) / epsilon
        return difference.mean(0)
