"""Matrix products with a seed axis: `torch.bmm`, or oneDNN's products where they are faster.

They are for large products in float32 on processors that have AVX-512 but are not Intel's: there PyTorch's default
library (MKL) leaves these vectors unused. Eager code calls oneDNN, as a function that can be differentiated twice, also
by `torch.func`. Compiled code is traced and differentiated with `torch.bmm`; the products of the finished graph are
then replaced.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST_ONEDNN_PRODUCT = 2**23
"""Multiplications of one seed's product from which on oneDNN is asked."""


def has_onednn() -> bool:
    """Whether this build of PyTorch offers oneDNN's product of plain float32 matrices."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def is_intel(processor: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor is Intel's, or cannot be asked for its maker."""
    return not processor.exists() or "GenuineIntel" in processor.read_text()


ONEDNN = has_onednn() and torch.backends.cpu.get_cpu_capability() == "AVX512" and not is_intel()


def is_rounding() -> bool:
    """Whether products of float32 matrices on a CPU round their factors to bfloat16."""
    return torch.get_float32_matmul_precision() == "medium"


def is_large(left: Float[Tensor, "seeds rows inner"], right: Float[Tensor, "seeds inner columns"]) -> bool:
    """Whether a product is one that oneDNN is for."""
    multiplications = left.shape[1] * left.shape[2] * right.shape[2]
    on_cpu = left.device.type == "cpu" and left.dtype == torch.float32
    return on_cpu and multiplications >= SMALLEST_ONEDNN_PRODUCT and not is_rounding()


def onednn_matrix_product(
    left: Float[Tensor, "rows inner"], right: Float[Tensor, "inner columns"]
) -> Float[Tensor, "rows columns"]:
    """One product by oneDNN, by an operator that PyTorch does not document."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right.T, None, "none", [], "")
    return product


@torch.library.custom_op("argmax_vae::onednn_product", mutates_args=())
def onednn_product(left: Tensor, right: Tensor) -> Tensor:
    """`torch.bmm` of (seeds, rows, inner) and (seeds, inner, columns) by oneDNN, seed by seed."""
    products = [onednn_matrix_product(a, b) for a, b in zip(left, right, strict=True)]
    return torch.stack(products) if len(products) > 1 else products[0].unsqueeze(0)


@onednn_product.register_fake
def _(left: Tensor, right: Tensor) -> Tensor:
    return left.new_empty((left.shape[0], left.shape[1], right.shape[2]))


class OnednnProduct(torch.autograd.Function):
    """`onednn_product`, differentiable: gradients are products of the same kind. Not for traced code."""

    @staticmethod
    def forward(left: Tensor, right: Tensor) -> Tensor:
        return onednn_product(left, right)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        left, right = ctx.saved_tensors
        (gradient,) = gradients
        needs_left, needs_right = ctx.needs_input_grad
        return (
            seed_product(gradient, right.transpose(1, 2)) if needs_left else None,
            seed_product(left.transpose(1, 2), gradient) if needs_right else None,
        )


def compiler_options() -> dict[str, Any] | None:
    """Options of `torch.compile` under which large products are oneDNN's where that is faster."""
    if not ONEDNN:
        return None
    from argmax_vae.models.graph_pass import ProductsByOnednn

    return {"post_grad_custom_pre_pass": ProductsByOnednn()}


def seed_product(
    left: Float[Tensor, "seeds rows inner"], right: Float[Tensor, "seeds inner columns"]
) -> Float[Tensor, "seeds rows columns"]:
    """left[s] · right[s] for every seed s, differentiable."""
    if ONEDNN and not torch.compiler.is_compiling() and is_large(left, right):
        product: Tensor = OnednnProduct.apply(left, right)
        return product
    return torch.bmm(left, right)
