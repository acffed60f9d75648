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

import torch
from jaxtyping import Float, Int
from torch import Tensor

from argmax_vae.estimators.base import Estimate, with_gradient
from argmax_vae.estimators.direct import Direct, DirectConfig
from argmax_vae.latents import conditional_gumbel_scores, gumbel_from_uniform, one_hot_argmax, sample_codes
from argmax_vae.randomness import NoiseSource
from argmax_vae.reconstruction import CodeLoss

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

    def noise(self, shape: tuple[int, ...], source: NoiseSource) -> dict[str, Tensor]:
        noise = super().noise(shape, source)
        if self.config.given == "code":
            noise["inner"] = source.uniform(shape, samples=self.config.inner_samples * self.config.samples)
        return noise

    def forward(
        self,
        logits: Float[Tensor, "*leading n k"],
        loss: CodeLoss,
        noise: dict[str, Tensor],
        step: Int[Tensor, ""],
    ) -> Estimate:
        epsilon = self.config.epsilon(step)
        codes = sample_codes(logits, gumbel_from_uniform(noise["uniform"]))
        losses, candidates = loss.with_candidates(codes)
        with torch.no_grad():
            centred = candidates - candidates[..., :1]
            gradient = self.averaged(logits, codes, centred, noise, epsilon).mean(0)
        mean_loss = losses.mean(0)
        return Estimate(
            objective=with_gradient(mean_loss, logits, gradient),
            loss=mean_loss.detach(),
            metrics={"epsilon": epsilon},
        )

    def averaged(
        self,
        logits: Float[Tensor, "*leading n k"],
        codes: Float[Tensor, "samples *leading n k"],
        candidates: Float[Tensor, "samples *leading n k"],
        noise: dict[str, Tensor],
        epsilon: Float[Tensor, ""],
    ) -> Float[Tensor, "samples *leading n k"]:
        """The difference that `direction` names, averaged over the noise that remains."""
        shift = epsilon * candidates
        if self.config.given == "others":
            start = logits.softmax(-1)
            lower, higher = (logits - shift).softmax(-1), (logits + shift).softmax(-1)
        else:
            start = codes
            inner = noise["inner"].unflatten(0, (-1, self.config.samples))
            scores = conditional_gumbel_scores(logits, codes, inner)
            lower, higher = one_hot_argmax(scores - shift).mean(0), one_hot_argmax(scores + shift).mean(0)
        if self.config.direction == "symmetric":
            return (higher - lower) / (2 * epsilon)
        return (start - lower) / epsilon if self.config.direction == "toward" else (higher - start) / epsilon
