"""Matrix products with a seed axis.

Large ones on a CPU in float32 go through oneDNN, seed by seed, where PyTorch has it and the processor has AVX-512: the
default library does not use such vectors on every processor, and without them it is the faster of the two.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def has_onednn() -> bool:
    """Whether this build of PyTorch offers oneDNN's product of plain float32 matrices."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@torch.library.custom_op("argmax_vae::onednn_product", mutates_args=())
def onednn_product(left: Tensor, right: Tensor) -> Tensor:
    """`torch.bmm` of (seeds, rows, inner) and (seeds, inner, columns) by oneDNN, differentiable."""
    product = torch.ops.mkldnn._linear_pointwise
    return torch.stack([product(a, b.T, None, "none", [], "") for a, b in zip(left, right, strict=True)])


@onednn_product.register_fake
def _(left: Tensor, right: Tensor) -> Tensor:
    return left.new_empty((left.shape[0], left.shape[1], right.shape[2]))


def keep_factors(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def product_gradients(
    ctx: torch.autograd.function.FunctionCtx, gradient: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    left, right = ctx.saved_tensors  # type: ignore[attr-defined]
    needs_left, needs_right = ctx.needs_input_grad  # type: ignore[attr-defined]
    return (
        onednn_product(gradient, right.transpose(1, 2)) if needs_left else None,
        onednn_product(left.transpose(1, 2), gradient) if needs_right else None,
    )


onednn_product.register_autograd(product_gradients, setup_context=keep_factors)
ONEDNN = has_onednn() and torch.backends.cpu.get_cpu_capability() == "AVX512"
SMALLEST_ONEDNN_PRODUCT = 2**23


def seed_product(
    left: Float[Tensor, "seeds rows inner"], right: Float[Tensor, "seeds inner columns"]
) -> Float[Tensor, "seeds rows columns"]:
    """left[s] · right[s] for every seed s, differentiable."""
    multiplications = left.shape[1] * left.shape[2] * right.shape[2]
    on_cpu = left.device.type == "cpu" and left.dtype == torch.float32
    if ONEDNN and on_cpu and multiplications >= SMALLEST_ONEDNN_PRODUCT:
        return onednn_product(left, right)
    return torch.bmm(left, right)
