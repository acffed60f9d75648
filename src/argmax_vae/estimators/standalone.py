"""An estimator in a model of one's own: logits and a plain function of codes in, an objective to differentiate out."""

import operator
from collections.abc import Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from argmax_vae.errors import UsageError, require_positive
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.base import CodeLoss, Estimate, Estimator, Logits, Noise
from argmax_vae.estimators.plain_loss import FromFunction, InAutocast, PlainLoss
from argmax_vae.estimators.schedules import Constant, Schedule
from argmax_vae.latents import with_excluded


class Uniform:
    """Uniform numbers on a device, from a generator or from PyTorch's default one."""

    def __init__(self, like: Tensor, generator: torch.Generator | None = None) -> None:
        self.like, self.generator = like, generator

    def uniform(self, shape: Sequence[int], samples: int | None = None) -> Tensor:
        size = tuple(shape) if samples is None else (samples, *shape)
        return torch.rand(size, generator=self.generator, device=self.like.device, dtype=self.like.dtype)


class StandaloneEstimator(nn.Module):
    """An estimator that draws its own noise and counts its own steps; made by `estimator`.

    Its parameters, if it has any, are those of a learned control variate: give them to the optimiser with the model's.
    In training a call is a step. Keep it outside `torch.utils.checkpoint`, which would take the step twice, and outside
    `torch.func.vmap`, which cannot change what is remembered: leading axes of the logits do without. A loss that is
    differentiated by `torch.func` (IMLE, REBAR, RELAX, double control variates, RODEO) cannot use checkpoints either.
    """

    steps_done: Tensor

    def __init__(self, inner: Estimator, latents: tuple[int, int] | None, one_at_a_time: bool) -> None:
        super().__init__()
        self.inner, self.latents, self.one_at_a_time = inner, latents, one_at_a_time
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))
        self.loss_was_used = False

    def forward(
        self,
        logits: Logits,
        loss: PlainLoss | CodeLoss,
        *,
        generator: torch.Generator | None = None,
        noise: Noise | None = None,
        step: int | Tensor | None = None,
    ) -> Float[Tensor, "*leading"]:
        """E_q[loss] for each of the leading indices, whose mean is to be differentiated.

        `backward` puts the estimate of ∇ E_q[loss] on the logits; what else the loss depends on gets its own gradient.

        Args:
            logits: of n variables with k values each, (*leading, n, k), float32 or float64; of others a copy in float32
                is used. Autocast is for the loss alone. −∞ excludes a value: no sample has it; one value must remain.
            loss: gives codes (…, *leading, n, k), one-hot or relaxed, their losses (…, *leading), which are used in the
                type of the codes. It must be finite for excluded values too, for some estimators ask for all.
            generator: of the noise; by default PyTorch's own.
            noise: what `draw` returned, in place of new noise.
            step: number of steps done, for schedules; by default the calls before this one in training mode.

        Raises:
            UsageError: the losses have another shape, are not real, or have no derivative in the codes where the
                estimator needs it; the loss changes codes in place; or the estimator cannot work with n × k.
        """
        return self.estimate(logits, loss, generator=generator, noise=noise, step=step).objective

    def estimate(
        self,
        logits: Logits,
        loss: PlainLoss | CodeLoss,
        *,
        generator: torch.Generator | None = None,
        noise: Noise | None = None,
        step: int | Tensor | None = None,
    ) -> Estimate:
        """As a call, with the losses seen, the relaxed codes and the values of schedules beside the objective."""
        if logits.ndim < 2 or 0 in logits.shape[-2:]:
            raise UsageError(f"logits {tuple(logits.shape)} must be (…, n, k): n variables with k values each")
        logits = with_excluded(computed_in(logits))
        n, k = logits.shape[-2:]
        if self.latents not in (None, (n, k)):
            raise UsageError(f"logits {tuple(logits.shape)} do not end in latents={self.latents}")
        validate(self.inner, n, k)
        if noise is None:
            noise = self.draw(logits, generator)
        now = self.steps_done if step is None else torch.as_tensor(step, device=logits.device)
        code_loss = loss if isinstance(loss, CodeLoss) else self.plain(loss, logits)
        device_type = logits.device.type
        if torch.is_autocast_enabled(device_type):
            code_loss = InAutocast(code_loss, device_type)
            with torch.autocast(device_type, enabled=False):
                estimate = self.inner(logits, code_loss, noise, now)
        else:
            estimate = self.inner(logits, code_loss, noise, now)
        if not torch.compiler.is_compiling():
            self.loss_was_used = True
        if self.training:
            if estimate.seen.numel():
                self.inner.observe(estimate.seen)
            self.steps_done += 1
        return estimate

    def plain(self, loss: PlainLoss, logits: Logits) -> CodeLoss:
        """The loss from a function. Whether it has derivatives is looked at once, for that takes a while."""
        first = not torch.compiler.is_compiling() and not self.loss_was_used
        differentiated = first and torch.is_grad_enabled() and logits.requires_grad
        return FromFunction(loss, logits.shape[:-2], self.one_at_a_time, differentiated)

    def draw(self, logits: Logits, generator: torch.Generator | None = None) -> Noise:
        """The random numbers of one call, for logits of this shape, device and type."""
        return self.inner.noise(tuple(logits.shape), Uniform(computed_in(logits), generator))


def computed_in(logits: Logits) -> Logits:
    """The logits, in float32 unless that is their type or float64 is."""
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()


def validate(inner: Estimator, n: int, k: int) -> None:
    """Raise UsageError, in words of one's own model, for n × k with which the estimator cannot work."""
    try:
        inner.config.validate_latents(n, k)
    except UsageError as error:
        told = str(error).replace("model.latents has", "the logits have").replace("model.latents", "latents")
        raise UsageError(told) from None


def estimator(
    name: str, *, latents: tuple[int, int] | None = None, one_at_a_time: bool = False, **choices: Any
) -> StandaloneEstimator:
    """An estimator of ESTIMATORS for a model of one's own.

    >>> import torch
    >>> logits = torch.zeros(8, 3, 4, requires_grad=True)
    >>> objective = estimator("direct", epsilon=0.1)(logits, lambda codes: codes[..., 0].sum(-1))
    >>> objective.mean().backward()

    Args:
        name: of the estimator.
        latents: (n, k), needed where the size of what the estimator learns depends on it (RELAX, NVIL).
        one_at_a_time: the loss takes codes of the shape of the logits alone, and is called once for each sample.
        choices: of the estimator's configuration; a number for ε or τ stands for a constant schedule.

    Raises:
        UsageError: an unknown name or choice, a value of another type or out of range, a choice for the
            importance-weighted bound alone, or `latents` missing.
    """
    if name not in ESTIMATORS:
        raise UsageError(f"no estimator named {name!r}; there are {', '.join(ESTIMATORS)}")
    kind = ESTIMATORS[name]
    known = [choice.name for choice in fields(kind.config_class) if choice.name != "name"]
    for choice in choices:
        if choice not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise UsageError(f"estimator {name!r} has no choice {choice!r}; {has}")
    latents = pair(latents)
    types = {choice.name: choice.type for choice in fields(kind.config_class)}
    choices = {choice: converted(choice, types[choice], value) for choice, value in choices.items()}
    inner = kind(kind.config_class(**choices))
    if choice := inner.config.importance_weighted_alone():
        raise UsageError(
            f"estimator {name!r}: {choice} is for the importance-weighted bound, which is not offered here"
        )
    if latents is None and kind.learns_from_latents:
        raise UsageError(f"estimator {name!r} learns a network of the codes: give latents=(n, k)")
    n, k = latents or (1, 2)
    if latents is not None:
        validate(inner, n, k)
    return StandaloneEstimator(inner.prepare(n, k), latents, one_at_a_time)


def pair(latents: object) -> tuple[int, int] | None:
    """(n, k) as a tuple of integers, or None. Raises UsageError for what is neither."""
    if latents is None:
        return None
    try:
        n, k = map(operator.index, latents)  # type: ignore[call-overload]
        return n, k
    except (TypeError, ValueError):
        raise UsageError(f"latents={latents!r} must be (n, k), such as (20, 10)") from None


KINDS: dict[Any, tuple[type, str]] = {
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    bool: (bool, "True or False"),
    str: (str, "a word"),
}
"""What a choice of a type takes, and how that is called."""


def converted(name: str, kind: Any, value: Any) -> Any:
    """The value of a choice of this type; a number for a schedule becomes a constant one. Raises UsageError."""
    if kind is Schedule and not isinstance(value, Schedule):
        if isinstance(value, bool) or not isinstance(value, Real):
            raise UsageError(f"{name}={value!r} must be a number or a schedule, such as argmax_vae.Linear()")
        require_positive(name, float(value))
        return Constant(value=float(value))
    if kind in KINDS:
        allowed, word = KINDS[kind]
        if not isinstance(value, allowed) or (kind is not bool and isinstance(value, bool)):
            raise UsageError(f"{name}={value!r} must be {word}")
        return kind(value)
    if kind == list[int]:
        if not isinstance(value, list | tuple) or not all(isinstance(each, Integral) for each in value):
            raise UsageError(f"{name}={value!r} must be a list of whole numbers")
        return list(value)
    return value
