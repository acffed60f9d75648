"""What every estimator is: it turns logits and a loss into an objective whose backward pass is its gradient.

Most are one of two kinds, and a subclass then writes its equation alone:

- `FromLosses` makes the gradient from losses of hard codes: the subclass writes `gradient`;
- `Pathwise` differentiates the loss of codes that depend on the logits: the subclass writes `codes`.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from argmax_vae.errors import UsageError, require_count, require_one_of
from argmax_vae.estimators.schedules import Schedule
from argmax_vae.latents import gumbel_from_uniform, sample_codes
from argmax_vae.markup import SYMBOLS
from argmax_vae.randomness import NoiseSource, generator_for

Logits = Float[Tensor, "*leading n k"]
Codes = Float[Tensor, "samples *leading n k"]
Losses = Float[Tensor, "samples *leading"]
Noise = dict[str, Tensor]
Scheduled = dict[str, Tensor]
Step = Int[Tensor, ""]


@runtime_checkable
class CodeLoss(Protocol):
    """What an estimator knows of the model: per-image losses of codes, in nats.

    Codes have shape (*samples, *leading, n, k) when the logits have shape (*leading, n, k).
    """

    def __call__(self, codes: Float[Tensor, "*rows n k"]) -> Float[Tensor, "*rows"]:
        """Loss of each code, differentiable in the code and in the decoder."""
        ...

    def with_candidates(
        self, codes: Float[Tensor, "*rows n k"]
    ) -> tuple[Float[Tensor, "*rows"], Float[Tensor, "*rows n k"]]:
        """The loss of one-hot codes, differentiable in the decoder, and those of all one-coordinate changes, not."""
        ...

    def shared(self, codes: Float[Tensor, "codes n k"]) -> Float[Tensor, "*leading codes"]:
        """Losses of the same codes for every image, differentiable in the decoder."""
        ...


class NegativeLogWeight(CodeLoss, Protocol):
    """−log w(z) = −log p(x, z) + log q(z|x) of codes, in nats, differentiable in the logits too."""

    def relaxed(
        self, log_codes: Float[Tensor, "*rows n k"], temperature: Float[Tensor, ""] | float
    ) -> Float[Tensor, "*rows"]:
        """−log w of relaxed codes, from their logarithms, with Concrete densities; the logits of q are constant."""
        ...


def schedule_names(config_class: type) -> tuple[str, ...]:
    """The choices of an estimator that a schedule changes during training, such as ε."""
    return tuple(choice.name for choice in fields(config_class) if choice.type is Schedule)


@dataclass
class EstimatorConfig:
    """Configuration of an estimator: `name` is its registry key, the other fields are its own choices."""

    name: str = "???"

    def validate_latents(self, n: int, k: int) -> None:
        """Raise UsageError when the estimator cannot work with n latent variables of k values."""

    def importance_weighted_alone(self) -> str:
        """The choice, as KEY=VALUE, that asks for the importance-weighted bound as objective; empty without one."""
        return ""

    def schedules_in_use(self) -> tuple[str, ...]:
        """The choices with a schedule that have an effect beside the other choices."""
        return schedule_names(type(self))

    def describe_schedule(self) -> str:
        """Which ε or τ it uses, for tables; empty when it has none."""
        names = self.schedules_in_use()
        return ", ".join(f"{SYMBOLS.get(name, name)} = {getattr(self, name).describe()}" for name in names)

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


@dataclass
class SampledConfig(EstimatorConfig):
    """`samples`: noise samples per image, averaged."""

    samples: int = 1

    def __post_init__(self) -> None:
        self.require_at_least("samples", 1)


@dataclass(frozen=True)
class Estimate:
    """What an estimator returns for a batch, per image and in nats.

    `objective`: its backward pass puts the estimate of ∇E_q[θ] on the logits and the decoder's gradient on the decoder;
    `loss`: the value of E_q[θ] that the estimator saw; `relaxed_log_codes` and `temperature`: its relaxed sample, for
    the objective that needs one; `metrics`: for the logs, such as ε; a scalar, or one per seed; `observed`: what
    `Estimator.observe` is given after the step, by default the loss.
    """

    objective: Float[Tensor, "*leading"]
    loss: Float[Tensor, "*leading"]
    relaxed_log_codes: Float[Tensor, "samples *leading n k"] | None = None
    temperature: Float[Tensor, ""] | None = None
    metrics: dict[str, Tensor] = field(default_factory=dict)
    observed: Float[Tensor, "*leading"] | None = None

    @property
    def seen(self) -> Float[Tensor, "*leading"]:
        """What `Estimator.observe` is given."""
        return self.loss if self.observed is None else self.observed


class Estimator(nn.Module):
    """A gradient estimator. Randomness is drawn by `noise` and used by `forward`, which is a pure function of it.

    `has_relaxed_codes`: its estimates carry relaxed codes; `learns_from_latents`: the size of what it learns depends on
    n and k; `has_importance_weighted`: it has a gradient of the importance-weighted bound of its samples;
    `asks_for_codes_alone`: of `CodeLoss` it calls the loss of codes and nothing else; `subtracts_losses`: of its losses
    one is the control variate of another, so that where losses are drawn they need common random numbers.
    """

    config_class: ClassVar[type[EstimatorConfig]]
    has_relaxed_codes: ClassVar[bool] = False
    learns_from_latents: ClassVar[bool] = False
    has_importance_weighted: ClassVar[bool] = False
    asks_for_codes_alone: ClassVar[bool] = True
    subtracts_losses: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.scheduled_choices = schedule_names(type(config))

    def scheduled(self, step: Step) -> Scheduled:
        """The values at this step of the choices that a schedule changes, by their names."""
        return {name: getattr(self.config, name)(step) for name in self.scheduled_choices}

    def prepare(self, n: int, k: int, seeds: Sequence[int] | None = None) -> "Estimator":
        """Make what is learned or remembered, once, before use; returns itself.

        With `seeds`, logits are (seeds, batch, n, k) and every seed has its own; without, one serves all.
        """
        return self

    @property
    def remembers(self) -> bool:
        """Whether `observe` keeps anything."""
        return type(self).observe is not Estimator.observe

    def observe(self, seen: Float[Tensor, "*leading"]) -> None:
        """Called after every training step with `Estimate.seen` of all images, for what is remembered."""

    def noise(self, shape: tuple[int, ...], source: NoiseSource) -> dict[str, Tensor]:
        """The random numbers of one step for logits of this shape (*leading, n, k)."""
        return {"uniform": source.uniform(shape, samples=self.config.samples)}

    def forward(self, logits: Logits, loss: CodeLoss, noise: Noise, step: Step) -> Estimate:
        """The estimate for a batch; `step` is the number of steps done, for schedules."""
        raise NotImplementedError

    def importance_weighted(
        self, logits: Logits, negative_log_weight: NegativeLogWeight, noise: Noise, step: Step
    ) -> Estimate:
        """In place of `forward` the estimate of the bound −log (1/M) Σ_m w(z_m) of M samples (Burda et al. 2015)."""
        raise NotImplementedError


class FromLosses(Estimator):
    """An estimator whose gradient is made from the losses of hard codes. Subclasses write `gradient`.

    `asks_for_candidates`: whether `gradient` is given the losses of all one-coordinate changes of the codes,
    (samples, *leading, n, k), in place of those of the codes themselves, (samples, *leading).
    """

    asks_for_candidates: ClassVar[bool] = False

    def codes(self, logits: Logits, noise: Noise) -> Codes:
        """Hard codes whose losses are asked for: by default samples of q."""
        return sample_codes(logits, gumbel_from_uniform(noise["uniform"]))

    def gradient(self, logits: Logits, codes: Codes, losses: Tensor, noise: Noise, scheduled: Scheduled) -> Logits:
        """The estimate of ∇_φ E_q[θ] from losses in nats; called without recording derivatives.

        `scheduled` has the values of the scheduled choices, such as `epsilon`.
        """
        raise NotImplementedError

    def forward(self, logits: Logits, loss: CodeLoss, noise: Noise, step: Step) -> Estimate:
        scheduled = self.scheduled(step)
        frozen = logits.detach()
        codes = self.codes(frozen, noise)
        losses, candidates = loss.with_candidates(codes) if self.asks_for_candidates else (loss(codes), None)
        with torch.no_grad():
            seen = losses.detach() if candidates is None else candidates
            gradient = self.gradient(frozen, codes, seen, noise, scheduled)
        mean_loss = losses.mean(0)
        objective = with_gradient(mean_loss, logits, gradient)
        return Estimate(objective=objective, loss=mean_loss.detach(), metrics=scheduled)


class Pathwise(Estimator):
    """An estimator that differentiates the loss of codes that depend on the logits. Subclasses write `codes`."""

    has_importance_weighted = True

    def codes(self, logits: Logits, noise: Noise, scheduled: Scheduled) -> Codes:
        """Codes for the decoder, whose derivative in the logits is the estimator's.

        `scheduled` has the values of the scheduled choices, such as `temperature`.
        """
        raise NotImplementedError

    def forward(self, logits: Logits, loss: CodeLoss, noise: Noise, step: Step) -> Estimate:
        scheduled = self.scheduled(step)
        losses = loss(self.codes(logits, noise, scheduled)).mean(0)
        return Estimate(objective=losses, loss=losses.detach(), metrics=scheduled)

    def importance_weighted(
        self, logits: Logits, negative_log_weight: NegativeLogWeight, noise: Noise, step: Step
    ) -> Estimate:
        scheduled = self.scheduled(step)
        bound = importance_weighted_bound(negative_log_weight(self.codes(logits, noise, scheduled)))
        return Estimate(objective=bound, loss=bound.detach(), metrics=scheduled)


def importance_weighted_bound(negative_log_weights: Float[Tensor, "samples *leading"]) -> Float[Tensor, "*leading"]:
    """−log (1/M) Σ_m w_m in nats, from −log w_m."""
    return math.log(len(negative_log_weights)) - (-negative_log_weights).logsumexp(0)


def learned_layers(sizes: Sequence[int], seeds: Sequence[int] | None) -> tuple[nn.ParameterList, nn.ParameterList]:
    """Weights (seeds, inputs, outputs) and biases (seeds, 1, outputs) of layers that an estimator learns.

    Each seed has its own, uniform on ±1/√inputs from its own stream; without seeds there is no seed axis.
    """
    generators = [generator_for(seed, 0, "estimator") for seed in (seeds if seeds is not None else [0])]
    weights, biases = nn.ParameterList(), nn.ParameterList()
    for width, outputs in itertools.pairwise(sizes):
        uniform = torch.stack([torch.rand(width + 1, outputs, generator=generator) for generator in generators])
        values = (2 * uniform - 1) / math.sqrt(width)
        weight, bias = values[:, :-1], values[:, -1:]
        weights.append(nn.Parameter((weight if seeds is not None else weight[0]).clone()))
        biases.append(nn.Parameter((bias if seeds is not None else bias[0, 0]).clone()))
    return weights, biases


def losses_and_slopes(loss: Callable[[Tensor], Tensor], codes: Codes) -> tuple[Losses, Codes]:
    """The losses of codes, differentiable in the decoder, and their slopes ∂θ/∂z in each code, by one evaluation."""
    slopes, losses = torch.func.grad(functools.partial(summed, loss), has_aux=True)(codes)
    return losses, slopes


def summed(loss: Callable[[Tensor], Tensor], codes: Codes) -> tuple[Float[Tensor, ""], Losses]:
    """The sum of the losses of codes, and the losses."""
    losses = loss(codes)
    return losses.sum(), losses


def with_gradient(
    value: Float[Tensor, "*leading"],
    logits: Float[Tensor, "*leading n k"],
    gradient: Float[Tensor, "*leading n k"],
) -> Float[Tensor, "*leading"]:
    """`value` unchanged, with `gradient` as its derivative with respect to the logits.

    Raises ValueError unless the gradient has the shape of the logits.
    """
    if gradient.shape != logits.shape:
        raise ValueError(
            f"the gradient {tuple(gradient.shape)} must have the shape of the logits {tuple(logits.shape)}"
        )
    linear = (gradient.detach() * logits).sum((-2, -1))
    return value + (linear - linear.detach())


def decoded_as(
    hard: Float[Tensor, "*rows n k"], relaxed: Float[Tensor, "*relaxed_rows n k"]
) -> Float[Tensor, "*rows n k"]:
    """The values of `hard` with the derivative of `relaxed`: a straight-through code."""
    return hard + (relaxed - relaxed.detach())
