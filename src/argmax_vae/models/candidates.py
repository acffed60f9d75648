"""Losses of all one-coordinate changes of a code: θ_i(j) = θ(z_1, …, z_i := j, …, z_n), the paper's section 5.2.

Five forms give the same numbers, in nats:

- `dense`: decode every changed code; works with any decoder, the reference (n·k decodes per image);
- `shared`: for n = 1 the k changed codes are the same for every image (k decodes in all, not k per image);
- `rows`: with a linear decoder the changed outputs are a − W_i,z_i + W_i,j, no decode at all;
- with a deeper decoder, the first layer's outputs change in the same way, and the other layers are dense
  (`Reconstruction.first_layer_differences`, n·(k − 1) decodes per image without their first layer);
- `grouped`: `rows` without an exponential or a logarithm per element, using
  Σ_d softplus(a_d) = log Π_d (1 + e^{a_d}) and e^{a − W_i,z_i + W_i,j} = e^{a − W_i,z_i} · e^{W_i,j}. Products of two
  factors fit into float32 up to logits of 43; the binary exponent is then taken off and summed as an integer, so one
  logarithm serves a group of factors (all of them in the C++ kernel of `native`, which is used where a compiler is
  present, and those of a lane in the Triton kernel for CUDA). Beyond that limit a softplus per element is used instead,
  so the result is always right.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor

from argmax_vae.models import native
from argmax_vae.models.matmul import seed_product

LARGEST_LOGIT = 43.0
LARGEST_WEIGHT = 40.0
LANES = 16
GROUP = 7
FORMS = ("auto", "dense", "rows", "grouped")


def changed_sums(
    sums: Float[Tensor, "seeds rows outputs"],
    weight: Float[Tensor, "seeds n k outputs"],
    values: Int[Tensor, "seeds rows n"],
    others: Int[Tensor, "seeds rows n m"],
) -> Float[Tensor, "seeds rows n m outputs"]:
    """A linear layer's outputs a − W_i,z_i + W_i,j when latent i takes each of m other values j in place of its own."""
    seed = torch.arange(weight.shape[0], device=weight.device).view(-1, 1, 1, 1)
    latent = torch.arange(weight.shape[1], device=weight.device).view(1, 1, -1, 1)
    own = weight[seed, latent, values.unsqueeze(-1)]
    return sums[:, :, None, None] - own + weight[seed, latent, others]


def softplus_sums_rows(
    outputs: Float[Tensor, "seeds rows pixels"],
    weight: Float[Tensor, "seeds n k pixels"],
    values: Int[Tensor, "seeds rows n"],
) -> Float[Tensor, "seeds rows n k"]:
    """Σ_d softplus(a_d − W_i,z_i,d + W_i,j,d) for all i and j, a softplus per element."""
    others = without_own_row(outputs, weight, values)
    sums = [F.softplus(others + weight[:, :, None, j]).sum(-1) for j in range(weight.shape[2])]
    return torch.stack(sums, -1).movedim(1, 2)


def without_own_row(
    outputs: Float[Tensor, "seeds rows pixels"],
    weight: Float[Tensor, "seeds n k pixels"],
    values: Int[Tensor, "seeds rows n"],
) -> Float[Tensor, "seeds n rows pixels"]:
    """Decoder outputs with the contribution of coordinate i taken off: a − W_i,z_i."""
    index = values.movedim(2, 1).unsqueeze(-1).expand(*values.movedim(2, 1).shape, weight.shape[-1])
    return outputs.unsqueeze(1) - weight.gather(2, index)


def softplus_sums_grouped(
    outputs: Float[Tensor, "seeds rows pixels"],
    weight: Float[Tensor, "seeds n k pixels"],
    values: Int[Tensor, "seeds rows n"],
) -> Float[Tensor, "seeds rows n k"]:
    """The sums of `softplus_sums_rows` as logarithms of products, in PyTorch. float32, logits up to LARGEST_LOGIT."""
    pixels = outputs.shape[-1]
    group = min(GROUP, math.ceil(pixels / LANES))
    length = math.ceil(pixels / group)
    padding = (0, group * length - pixels)
    factors = F.pad(without_own_row(outputs, weight, values).exp(), padding).unsqueeze(3)
    changes = F.pad(weight.exp(), padding).unsqueeze(2)
    product = torch.ones((), device=outputs.device)
    exponent = torch.zeros((), dtype=torch.int32, device=outputs.device)
    shifts = 0
    for q in range(group):
        part = slice(q * length, (q + 1) * length)
        product = product * (1 + factors[..., part] * changes[..., part])
        if q % 2 == 1 and q < group - 1:
            bits = product.view(torch.int32)
            exponent = exponent + (bits >> 23)
            product = ((bits & 0x007FFFFF) | 0x3F800000).view(torch.float32)
            shifts += 1
    logarithm = product.log() + (exponent - 127 * shifts) * math.log(2)
    return logarithm.sum(-1).movedim(1, 2)


def within_grouped_limits(
    outputs: Float[Tensor, "seeds rows pixels"], weight: Float[Tensor, "seeds n k pixels"]
) -> bool:
    """Whether every changed logit is certain to fit the grouped form in PyTorch (False when any is NaN)."""
    spread = weight.amax(2) - weight.amin(2)
    largest = (outputs.amax((0, 1)) + spread.amax((0, 1))).amax()
    return bool((largest <= LARGEST_LOGIT) & (weight.abs().amax() <= LARGEST_WEIGHT))


@torch.library.custom_op("argmax_vae::softplus_sums", mutates_args=())
def softplus_sums(outputs: Tensor, weight: Tensor, values: Tensor) -> Tensor:
    """The sums of `softplus_sums_rows` in float32, grouped: on a CPU by the C++ kernel, or by PyTorch without one."""
    kernel = native.load()
    if kernel is None:
        form = softplus_sums_grouped if within_grouped_limits(outputs, weight) else softplus_sums_rows
        return form(outputs, weight, values).contiguous()
    seeds, rows, pixels = outputs.shape
    n, k = weight.shape[1:3]
    outputs, weight, values = outputs.contiguous(), weight.contiguous(), values.contiguous()
    sums = torch.empty((seeds, rows, n, k))
    largest, sizes = outputs.amax(-1), weight.abs().amax((2, 3))
    inputs = (outputs, weight, outputs.exp(), weight.exp(), largest, sizes, values, sums)
    kernel.softplus_sums(
        *(tensor.data_ptr() for tensor in inputs),
        *(seeds, rows, n, k, pixels),
        torch.get_num_threads(),
    )
    return sums


@softplus_sums.register_fake
def _(outputs: Tensor, weight: Tensor, values: Tensor) -> Tensor:
    return outputs.new_empty((*outputs.shape[:2], *weight.shape[1:3]))


@softplus_sums.register_kernel("cuda")
def _(outputs: Tensor, weight: Tensor, values: Tensor) -> Tensor:
    from argmax_vae.models.native.softplus_sums_triton import softplus_sums

    return softplus_sums(outputs, weight, values)


class CandidateLosses:
    """Chooses the form of the candidate losses for a linear decoder.

    `form` is one of FORMS; `auto` is `grouped` in float32 on a CPU, or on CUDA where Triton runs, else `rows`.
    `path` says what ran last.
    """

    def __init__(self, form: str = "auto") -> None:
        if form not in FORMS:
            raise ValueError(f"form {form!r} must be one of {', '.join(FORMS)}")
        self.form = form
        self.path = form
        self.on_cuda = torch.cuda.is_available() and native.triton_works()

    def linear(
        self,
        images: Float[Tensor, "seeds batch pixels"],
        outputs: Float[Tensor, "seeds rows pixels"],
        weight: Float[Tensor, "seeds n_k pixels"],
        codes: Float[Tensor, "seeds rows n k"],
    ) -> Float[Tensor, "seeds rows n k"]:
        """Bernoulli losses −log p(x|z) of all changes of `codes`, whose decoder outputs are `outputs`.

        `rows` is a whole multiple of `batch`: row r belongs to image r modulo batch.
        """
        n, k = codes.shape[-2:]
        values = codes.argmax(-1)
        sums = self.softplus_sums(outputs, weight.unflatten(1, (n, k)), values)
        samples = codes.shape[1] // images.shape[1]
        agreement = seed_product(images, weight.transpose(1, 2)).unflatten(-1, (n, k)).repeat(1, samples, 1, 1)
        base = (outputs.unflatten(1, (samples, -1)) * images.unsqueeze(1)).sum(-1).flatten(1)
        own = (agreement * codes).sum(-1, keepdim=True)
        return sums - (base[..., None, None] - own + agreement)

    def softplus_sums(self, outputs: Tensor, weight: Tensor, values: Tensor) -> Tensor:
        device = outputs.device.type
        able = device == "cpu" or (device == "cuda" and self.on_cuda)
        if self.form in ("auto", "grouped") and able and outputs.dtype == torch.float32:
            self.path = "grouped products" if device == "cpu" else "grouped products in Triton"
            return softplus_sums(outputs, weight, values)
        self.path = "row differences"
        return softplus_sums_rows(outputs, weight, values)
