"""Encoders and decoders of S independent models at once: the only layers that know the seed axis."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from argmax_vae.models.matmul import seed_product

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "leaky_relu": F.leaky_relu}
NEGATIVE_SLOPE = 0.01
PRECISIONS = ("float32", "tf32", "bfloat16")


class SeedLinear(nn.Module):
    """S linear layers side by side: out[s] = in[s] · weight[s] + bias[s].

    Weights are (seeds, inputs, outputs) and start as `torch.nn.Linear` starts: uniform on ±1/√inputs. With `rounded`
    both factors and the result of a product are bfloat16 on a GPU; on a CPU `products_in` decides.
    """

    rounded = False

    def __init__(self, inputs: int, outputs: int, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        limit = 1 / math.sqrt(inputs)
        weights = [torch.rand(outputs, inputs, generator=g).mul_(2).sub_(1).T for g in generators]
        biases = [torch.rand(1, outputs, generator=g).mul_(2).sub_(1) for g in generators]
        self.weight = nn.Parameter((torch.stack(weights) * limit).contiguous())
        self.bias = nn.Parameter(torch.stack(biases) * limit)

    def forward(self, inputs: Float[Tensor, "seeds rows inputs"]) -> Float[Tensor, "seeds rows outputs"]:
        return self.product(inputs, self.weight) + self.bias

    def product(
        self, left: Float[Tensor, "products rows inner"], right: Float[Tensor, "products inner columns"]
    ) -> Float[Tensor, "products rows columns"]:
        """Products of matrices, in the precision of this layer."""
        if self.rounded and left.device.type != "cpu":
            return torch.bmm(left.bfloat16(), right.bfloat16()).to(self.bias.dtype)
        return seed_product(left, right)


def set_precision(networks: nn.Module, precision: str) -> None:
    """Let all layers that can multiply in the given precision (of PRECISIONS) do so."""
    set_in_layers(networks, "rounded", precision == "bfloat16")


@contextmanager
def products_in(precision: str, device: torch.device) -> Iterator[None]:
    """Inside, factors of float32 products are rounded as they are multiplied, to 10 bits by CUDA in `tf32`.

    In `bfloat16` a CPU rounds them to 7 bits if it can multiply such numbers, and not at all if it cannot; sums stay
    float32. On CUDA the layers themselves round. Of PyTorch's two ways to ask for that, this is the one after which
    `torch.compile` still knows the precision.
    """
    wanted = {("tf32", "cuda"): "high", ("bfloat16", "cpu"): "medium"}.get((precision, device.type))
    if wanted is None:
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(wanted)
    torch.backends.cudnn.allow_tf32 = wanted == "high"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def set_in_layers(networks: nn.Module, name: str, value: bool) -> None:
    """Set an attribute of all layers that have it."""
    for module in networks.modules():
        if hasattr(module, name):
            setattr(module, name, value)


def activation_function(name: str, negative_slope: float = NEGATIVE_SLOPE) -> Callable[[Tensor], Tensor]:
    """The function that ACTIVATIONS names; `negative_slope` is that of leaky_relu."""
    return partial(F.leaky_relu, negative_slope=negative_slope) if name == "leaky_relu" else ACTIVATIONS[name]


class SeedMLP(nn.Module):
    """Linear layers of the given sizes with an activation (of ACTIVATIONS) between them, one network per seed.

    `negative_slope` is that of leaky_relu. The weights of seed s come from a generator seeded by s alone.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        generators: Sequence[torch.Generator],
        activation: str = "relu",
        negative_slope: float = NEGATIVE_SLOPE,
    ) -> None:
        super().__init__()
        self.activation = activation_function(activation, negative_slope)
        self.layers = nn.ModuleList(
            SeedLinear(inputs, outputs, generators) for inputs, outputs in itertools.pairwise(sizes)
        )

    @property
    def is_linear(self) -> bool:
        """True when there is one layer only, which allows losses by row differences."""
        return len(self.layers) == 1

    def forward(self, inputs: Float[Tensor, "seeds rows inputs"]) -> Float[Tensor, "seeds rows outputs"]:
        first, *others = self.layers
        outputs = first(inputs)
        for layer in others:
            outputs = layer(self.activation(outputs))
        return outputs
