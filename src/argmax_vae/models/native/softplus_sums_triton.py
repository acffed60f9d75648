"""The Triton kernel of the candidate losses on CUDA; needs Triton, so `native.triton_works` is asked first.

Products of factors 1 + e^{a − W_i,z_i} · e^{W_i,j} whose binary exponent is taken off after every second one, as in
`softplus_sums.cpp`, and one logarithm for each lane. Rows whose factors might leave float32's range are summed with a
softplus per element instead, by the same kernel: nothing is read on the host, so a step with it can be captured.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

LARGEST_LOGIT = 43.0
"""Two factors of e^43 and a mantissa stay below the largest float32."""
LARGEST_WEIGHT = 40.0
"""Exponentials of such weights, and what they leave of a factor that counts, are ordinary numbers."""
ROWS, LANES, WARPS = 4, 32, 1
"""One warp for each program, so that no thread waits for another."""


@triton.jit
def kernel(  # type: ignore[no-untyped-def]
    outputs,
    weight,
    changes,
    limits,
    values,
    sums,
    rows,
    n,
    PIXELS: tl.constexpr,  # noqa: N803
    K: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    LANES: tl.constexpr,  # noqa: N803
):
    """ROWS rows, one latent of one seed, BLOCK of its values; e^{a − W} is formed once for all of these values."""
    blocks: tl.constexpr = (K + BLOCK - 1) // BLOCK
    latent = tl.program_id(1) // blocks
    value = tl.program_id(1) % blocks * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    seed = tl.program_id(2).to(tl.int64)
    table = (seed * n + latent) * K * PIXELS
    at = (seed * rows + row) * n + latent
    own = tl.load(values + at, mask=row < rows, other=0)
    row_outputs = outputs + ((seed * rows + row) * PIXELS)[:, None]
    row_weight = weight + table + (own * PIXELS)[:, None]
    new_weight = table + (value * PIXELS)[:, None]
    limit = tl.load(limits + seed * n + latent)
    lane = tl.arange(0, LANES)
    inside, known = (row < rows)[:, None], (value < K)[:, None]
    product = tl.full((ROWS, BLOCK, LANES), 1.0, tl.float32)
    exponent = tl.zeros((ROWS, BLOCK, LANES), tl.int32)
    beyond = tl.zeros((ROWS, LANES), tl.int32)
    for first in range(0, PIXELS, 2 * LANES):
        for half in tl.static_range(2):
            pixel = (first + half * LANES + lane)[None, :]
            mask = inside & (pixel < PIXELS)
            rest = tl.load(row_outputs + pixel, mask=mask, other=float("-inf"))
            rest -= tl.load(row_weight + pixel, mask=mask, other=0.0)
            change = tl.load(changes + new_weight + pixel, mask=known & (pixel < PIXELS), other=0.0)
            product *= 1.0 + tl.exp(rest)[:, None, :] * change[None, :, :]
            beyond |= ((rest <= limit) == 0).to(tl.int32)
        bits = product.to(tl.int32, bitcast=True)
        exponent += bits >> 23
        product = ((bits & 0x007FFFFF) | 0x3F800000).to(tl.float32, bitcast=True)
    shifts: tl.constexpr = (PIXELS + 2 * LANES - 1) // (2 * LANES)
    total = tl.sum(tl.log(product) + (exponent - 127 * shifts).to(tl.float32) * 0.6931471805599453, 2)
    slow = tl.max(beyond, 1)
    if tl.max(slow, 0) > 0:
        softplus = tl.zeros((ROWS, BLOCK, LANES), tl.float32)
        for first in range(0, PIXELS, LANES):
            pixel = (first + lane)[None, :]
            mask = inside & (pixel < PIXELS)
            rest = tl.load(row_outputs + pixel, mask=mask, other=float("-inf"))
            rest -= tl.load(row_weight + pixel, mask=mask, other=0.0)
            new = tl.load(weight + new_weight + pixel, mask=known & (pixel < PIXELS), other=0.0)
            logit = rest[:, None, :] + new[None, :, :]
            softplus += tl.maximum(logit, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(logit)))
        total = tl.where((slow > 0)[:, None], tl.sum(softplus, 2), total)
    tl.store(sums + (at * K)[:, None] + value[None, :], total, mask=inside & (value < K)[None, :])


def softplus_sums(outputs: Tensor, weight: Tensor, values: Tensor) -> Tensor:
    """The sums of `candidates.softplus_sums_rows`, on CUDA in float32.

    outputs (seeds, rows, pixels), weight (seeds, n, k, pixels) and values (seeds, rows, n) give (seeds, rows, n, k).
    """
    seeds, rows, pixels = outputs.shape
    n, k = weight.shape[1:3]
    outputs, weight, values = outputs.contiguous(), weight.contiguous(), values.contiguous()
    sums = torch.empty((seeds, rows, n, k), device=outputs.device)
    ordinary = weight.abs().amax((2, 3)) <= LARGEST_WEIGHT
    limits = torch.where(ordinary, LARGEST_LOGIT - weight.amax((2, 3)), torch.nan)
    block = 2 if k == 2 else 4
    grid = (triton.cdiv(rows, ROWS), n * triton.cdiv(k, block), seeds)
    kernel[grid](
        *(outputs, weight, weight.exp(), limits, values, sums, rows, n),
        PIXELS=pixels,
        K=k,
        BLOCK=block,
        ROWS=ROWS,
        LANES=LANES,
        num_warps=WARPS,
        enable_fp_fusion=True,
    )
    return sums
