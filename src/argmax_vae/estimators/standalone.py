"""An estimator in a model of one's own: logits and a plain function of codes in, an objective to differentiate out."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from argmax_vae.errors import UsageError, require_positive
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.base import CodeLoss, Estimate, Estimator, Logits, Noise, schedule_names
from argmax_vae.estimators.schedules import Constant
from argmax_vae.latents import dense

PlainLoss = Callable[[Tensor], Tensor]


class FromFunction:
    """The losses that an estimator asks for, by a plain function of codes.

    The function is given codes (*extra, *leading, n, k) and returns losses (*extra, *leading), one for each code;
    `extra` are axes of samples or of changed codes, which a function of tensor operations carries along. With
    `one_at_a_time` it is given codes (*leading, n, k) alone, once for each of the others.
    """

    def __init__(self, function: PlainLoss, leading: Sequence[int], one_at_a_time: bool = False) -> None:
        self.function, self.leading, self.one_at_a_time = function, tuple(leading), one_at_a_time

    def __call__(self, codes: Float[Tensor, "*rows n k"]) -> Float[Tensor, "*rows"]:
        axes = codes.ndim - len(self.leading) - 2
        if self.one_at_a_time and axes:
            losses = torch.stack([self.checked(each) for each in codes.flatten(0, axes - 1)])
            return losses.unflatten(0, codes.shape[:axes])
        return self.checked(codes)

    def checked(self, codes: Float[Tensor, "*rows n k"]) -> Float[Tensor, "*rows"]:
        """The function's losses. Raises UsageError when they are not one for each code."""
        losses = self.function(codes)
        rows = tuple(codes.shape[:-2])
        if not isinstance(losses, Tensor) or tuple(losses.shape) != rows:
            found = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise UsageError(
                f"the loss returned {found} for codes {tuple(codes.shape)}: it must return one loss for each code, "
                f"{rows}; if it cannot take further axes in front of {self.leading}, use one_at_a_time=True"
            )
        return losses

    def with_candidates(
        self, codes: Float[Tensor, "*rows n k"]
    ) -> tuple[Float[Tensor, "*rows"], Float[Tensor, "*rows n k"]]:
        with torch.no_grad():
            changed = dense(self, codes)
        return self(codes), changed

    def shared(self, codes: Float[Tensor, "codes n k"]) -> Float[Tensor, "*leading codes"]:
        between = (1,) * len(self.leading)
        expanded = codes.reshape(len(codes), *between, *codes.shape[1:])
        return self(expanded.expand(-1, *self.leading, -1, -1)).movedim(0, -1)


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
    """

    steps_done: Tensor

    def __init__(self, inner: Estimator, latents: tuple[int, int] | None, one_at_a_time: bool) -> None:
        super().__init__()
        self.inner, self.latents, self.one_at_a_time = inner, latents, one_at_a_time
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))

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
                is used.
            loss: gives codes (…, *leading, n, k), one-hot or relaxed, their losses (…, *leading).
            generator: of the noise; by default PyTorch's own.
            noise: what `draw` returned, in place of new noise.
            step: number of steps done, for schedules; by default the calls before this one in training mode.

        Raises:
            UsageError: the losses have another shape, or the estimator cannot work with n × k.
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
        if logits.dtype not in (torch.float32, torch.float64):
            logits = logits.float()
        if logits.ndim < 2:
            raise UsageError(f"logits {tuple(logits.shape)} must be (…, n, k): n variables with k values each")
        n, k = logits.shape[-2:]
        if self.latents not in (None, (n, k)):
            raise UsageError(f"logits {tuple(logits.shape)} do not end in latents={self.latents}")
        validate(self.inner, n, k)
        if noise is None:
            noise = self.draw(logits, generator)
        now = self.steps_done if step is None else torch.as_tensor(step, device=logits.device)
        code_loss = loss if isinstance(loss, CodeLoss) else FromFunction(loss, logits.shape[:-2], self.one_at_a_time)
        estimate = self.inner(logits, code_loss, noise, now)
        if self.training:
            self.inner.observe(estimate.seen)
            self.steps_done += 1
        return estimate

    def draw(self, logits: Logits, generator: torch.Generator | None = None) -> Noise:
        """The random numbers of one call, for logits of this shape, device and type."""
        return self.inner.noise(tuple(logits.shape), Uniform(logits, generator))


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
        latents: (n, k), needed where the size of what the estimator learns depends on it (RELAX).
        one_at_a_time: the loss takes codes of the shape of the logits alone, and is called once for each sample.
        choices: of the estimator's configuration; a number for ε or τ stands for a constant schedule.

    Raises:
        UsageError: an unknown name or choice, a value out of range, a choice for the importance-weighted bound alone,
            or `latents` missing.
    """
    if name not in ESTIMATORS:
        raise UsageError(f"no estimator named {name!r}; there are {', '.join(ESTIMATORS)}")
    kind = ESTIMATORS[name]
    known = [choice.name for choice in fields(kind.config_class) if choice.name != "name"]
    for choice in choices:
        if choice not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise UsageError(f"estimator {name!r} has no choice {choice!r}; {has}")
    for choice in schedule_names(kind.config_class):
        if isinstance(choices.get(choice), int | float):
            require_positive(choice, choices[choice])
            choices[choice] = Constant(value=float(choices[choice]))
    inner = kind(kind.config_class(**choices))
    if choice := inner.config.importance_weighted_alone():
        raise UsageError(
            f"estimator {name!r}: {choice} is for the importance-weighted bound, which is not offered here"
        )
    if latents is None and kind.learns_from_latents:
        raise UsageError(f"estimator {name!r} learns a network of the codes: give latents=(n, k)")
    n, k = latents if latents is not None else (1, 2)
    if latents is not None:
        validate(inner, n, k)
    return StandaloneEstimator(inner.prepare(n, k), latents, one_at_a_time)
