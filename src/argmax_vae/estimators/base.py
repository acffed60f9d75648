"""What every estimator is: it turns logits and a loss into an objective whose backward pass is its gradient."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from argmax_vae.checks import require_count, require_one_of
from argmax_vae.errors import UsageError
from argmax_vae.randomness import NoiseSource
from argmax_vae.reconstruction import CodeLoss


@dataclass
class EstimatorConfig:
    """Configuration of an estimator: `name` is its registry key, the other fields are its own choices."""

    name: str = "???"

    def validate_latents(self, n: int, k: int) -> None:
        """Raise UsageError when the estimator cannot work with n latent variables of k values."""

    def describe_schedule(self) -> str:
        """Which ε or τ it uses, for tables; empty when it has none."""
        return ""

    def require_choice(self, field_name: str, allowed: tuple[str, ...]) -> None:
        """Raise UsageError unless the field holds one of the allowed words."""
        require_one_of(f"estimator.{field_name}", getattr(self, field_name), allowed)

    def require_binary(self, k: int, choice: str = "") -> None:
        """Raise UsageError, naming the choice that asks for it, unless k = 2."""
        if k != 2:
            what = f"estimator={self.name}" + (f" with estimator.{choice}" if choice else "")
            raise UsageError(f"{what} needs binary latents, k = 2; model.latents has k = {k}")

    def require_at_least(self, field_name: str, smallest: int) -> None:
        """Raise UsageError unless the field is a count of at least `smallest`."""
        require_count(f"estimator.{field_name}", getattr(self, field_name), smallest)


@dataclass(frozen=True)
class Estimate:
    """What an estimator returns for a batch, per image and in nats.

    `objective`: its backward pass puts the estimate of ∇E_q[θ] on the logits and the decoder's gradient on the decoder;
    `loss`: the value of E_q[θ] that the estimator saw; `relaxed_log_codes` and `temperature`: its relaxed sample, for
    the objective that needs one; `metrics`: for the logs, such as ε; a scalar, or one per seed.
    """

    objective: Float[Tensor, "*leading"]
    loss: Float[Tensor, "*leading"]
    relaxed_log_codes: Float[Tensor, "samples *leading n k"] | None = None
    temperature: Float[Tensor, ""] | None = None
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Estimator(nn.Module):
    """A gradient estimator. Randomness is drawn by `noise` and used by `forward`, which is a pure function of it.

    `has_relaxed_codes`: its estimates carry relaxed codes.
    """

    config_class: ClassVar[type[EstimatorConfig]]
    has_relaxed_codes: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def prepare(self, n: int, k: int, seeds: Sequence[int] | None = None) -> "Estimator":
        """Make what is learned or remembered, once, before use; returns itself.

        With `seeds`, logits are (seeds, batch, n, k) and every seed has its own; without, one serves all.
        """
        return self

    def observe(self, loss: Float[Tensor, "*leading"]) -> None:
        """Called after every training step with the losses that the estimator saw, for what is remembered."""

    def noise(self, shape: tuple[int, ...], source: NoiseSource) -> dict[str, Tensor]:
        """The random numbers of one step for logits of this shape (*leading, n, k)."""
        raise NotImplementedError

    def forward(
        self,
        logits: Float[Tensor, "*leading n k"],
        loss: CodeLoss,
        noise: dict[str, Tensor],
        step: Int[Tensor, ""],
    ) -> Estimate:
        """The estimate for a batch; `step` is the number of steps done, for schedules."""
        raise NotImplementedError


def with_gradient(
    value: Float[Tensor, "*leading"],
    logits: Float[Tensor, "*leading n k"],
    gradient: Float[Tensor, "*leading n k"],
) -> Float[Tensor, "*leading"]:
    """`value` unchanged, with `gradient` as its derivative with respect to the logits."""
    linear = (gradient.detach() * logits).sum((-2, -1))
    return value + linear - linear.detach()
