"""A plain function of codes as the loss that an estimator asks for, and what such a function must not do."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from argmax_vae.errors import UsageError
from argmax_vae.estimators.base import CodeLoss
from argmax_vae.latents import dense

PlainLoss = Callable[[Tensor], Tensor]


class FromFunction:
    """The losses that an estimator asks for, by a plain function of codes.

    The function is given codes (*extra, *leading, n, k) and returns losses (*extra, *leading), one for each code;
    `extra` are axes of samples or of changed codes, which a function of tensor operations carries along. With
    `one_at_a_time` it is given codes (*leading, n, k) alone, once for each of the others. Losses of another type are
    used in that of the codes. With `differentiated`, codes that carry derivatives must be used by the function.
    """

    def __init__(
        self,
        function: PlainLoss,
        leading: Sequence[int],
        one_at_a_time: bool = False,
        differentiated: bool = False,
    ) -> None:
        self.function, self.leading, self.one_at_a_time = function, tuple(leading), one_at_a_time
        self.differentiated = differentiated

    def __call__(self, codes: Float[Tensor, "*rows n k"]) -> Float[Tensor, "*rows"]:
        axes = codes.ndim - len(self.leading) - 2
        if self.one_at_a_time and axes:
            losses = torch.stack([self.checked(each) for each in codes.flatten(0, axes - 1)])
            return losses.unflatten(0, codes.shape[:axes])
        return self.checked(codes)

    def checked(self, codes: Float[Tensor, "*rows n k"]) -> Float[Tensor, "*rows"]:
        """The function's losses. Raises UsageError unless they are one number for each code, or when codes are lost."""
        if torch.compiler.is_compiling():
            return self.converted(codes, self.function(codes))
        given = codes.view_as(codes)
        version = version_of(given)
        losses = self.converted(codes, self.function(given))
        if version_of(given) != version:
            raise UsageError(
                "the loss changed the codes in place, which the estimator still needs: make it change codes.clone()"
            )
        if self.differentiated and given.requires_grad and losses.numel() and not depends(losses, given):
            raise UsageError(
                "the loss is not differentiable in the codes, and this estimator needs its derivative; one that needs "
                "losses of hard codes alone does not, such as reinforce, local_expectation or direct"
            )
        return losses

    def converted(self, codes: Float[Tensor, "*rows n k"], losses: object) -> Float[Tensor, "*rows"]:
        """The losses in the type of the codes. Raises UsageError unless they are one real number for each code."""
        rows = tuple(codes.shape[:-2])
        if not isinstance(losses, Tensor) or tuple(losses.shape) != rows:
            found = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise UsageError(
                f"the loss returned {found} for codes {tuple(codes.shape)}: it must return one loss for each code, "
                f"{rows}; if it cannot take further axes in front of {self.leading}, use one_at_a_time=True"
            )
        if losses.is_complex():
            raise UsageError(f"the loss returned complex numbers, {losses.dtype}: losses must be real")
        return losses.to(codes.dtype)

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


def version_of(tensor: Tensor) -> int:
    """How often a tensor was changed in place; always 0 in inference mode, where nobody counts."""
    return 0 if tensor.is_inference() else tensor._version


def depends(result: Tensor, tensor: Tensor) -> bool:
    """Whether the derivatives of a result reach a tensor, which is not a leaf."""
    wanted, seen, left = tensor.grad_fn, set(), [result.grad_fn]
    while left:
        node = left.pop()
        if node is wanted:
            return True
        if node is not None and node not in seen:
            seen.add(node)
            left += [before for before, _ in node.next_functions]
    return False


class InAutocast:
    """A loss that is computed under the autocast of the caller, while the estimator is computed without.

    Losses are returned in the type of the codes.
    """

    def __init__(self, loss: CodeLoss, device_type: str) -> None:
        self.loss, self.device_type = loss, device_type
        self.dtype = torch.get_autocast_dtype(device_type)

    def __call__(self, codes: Float[Tensor, "*rows n k"]) -> Float[Tensor, "*rows"]:
        with torch.autocast(self.device_type, self.dtype):
            return self.loss(codes).to(codes.dtype)

    def with_candidates(
        self, codes: Float[Tensor, "*rows n k"]
    ) -> tuple[Float[Tensor, "*rows"], Float[Tensor, "*rows n k"]]:
        with torch.autocast(self.device_type, self.dtype):
            losses, changed = self.loss.with_candidates(codes)
            return losses.to(codes.dtype), changed.to(codes.dtype)

    def shared(self, codes: Float[Tensor, "codes n k"]) -> Float[Tensor, "*leading codes"]:
        with torch.autocast(self.device_type, self.dtype):
            return self.loss.shared(codes).to(codes.dtype)
