"""Products with a seed axis, by every library and under every transformation that estimators use."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from argmax_vae.commands import bench
from argmax_vae.config.schema import Config, RuntimeConfig
from argmax_vae.data.images import Dataset, Images
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.models import matmul
from argmax_vae.models.layers import products_in
from argmax_vae.models.matmul import compiler_options, seed_product
from argmax_vae.training import build
from helpers import cell, latents

MODELS = {
    "linear": (),
    "deep": ("model.hidden=[6]",),
    "mixture": (
        "model.latents=1x3",
        "model.hidden=[6]",
        "model.discrete_hidden=[5]",
        "model.decoder_hidden=[6]",
        "model.row=4",
        "model.component_hidden=[5]",
        "model.gaussian=3",
    ),
    "attributes": (
        "model.latents=1x3",
        "model.channels=[2]",
        "model.row=4",
        "model.component_hidden=[5]",
        "model.gaussian=3",
    ),
}

needs_onednn = pytest.mark.skipif(not matmul.has_onednn(), reason="needs a PyTorch with oneDNN")


@pytest.fixture
def onednn_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Sends all products through oneDNN, on any processor; returns a list that shapes of products are added to."""
    calls: list[tuple[int, ...]] = []
    product = matmul.onednn_matrix_product

    def counted(left: Tensor, right: Tensor) -> Tensor:
        calls.append((*left.shape, right.shape[1]))
        return product(left, right)

    monkeypatch.setattr(matmul, "onednn_matrix_product", counted)
    monkeypatch.setattr(matmul, "ONEDNN", True)
    monkeypatch.setattr(matmul, "SMALLEST_ONEDNN_PRODUCT", 1)
    return calls


def random_images() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    split = Images(torch.randint(256, (20, 16), generator=generator, dtype=torch.uint8), None)
    return Dataset("random", (1, 4, 4), split, split, split, binary=False)


@functools.cache
def config_of(model: str) -> Config:
    """A tiny model of two seeds."""
    return cell(Path("unused"), f"model={model}", *MODELS[model], "seeds=[0,1]", "trainer.batch=4").config


def gradients_of_a_step(estimator: str, model: str, size: str, precision: str = "float32") -> list[Tensor]:
    """The gradients of all parameters, the estimator's own included, in the first step."""
    config = config_of(model)
    config = replace(config, runtime=replace(config.runtime, precision=precision))
    chosen = replace(config.model, latents=size)
    config = replace(config, model=chosen, estimator=ESTIMATORS[estimator].config_class())
    module = build.build(config, random_images())
    module.prepare_steps(module.configure_optimizers())
    module.on_train_epoch_start()
    with products_in(precision, module.device):
        module.runner.run(torch.arange(8).reshape(1, 2, 4))
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


def product_and_gradients(left: Tensor, right: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    left, right = left.detach().requires_grad_(), right.detach().requires_grad_()
    product = seed_product(left, right)
    return product, *torch.autograd.grad((product * weight).sum(), (left, right))


@pytest.mark.parametrize("onednn", [False, pytest.param(True, marks=needs_onednn)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (100, 784, 20), (3, 17, 5)])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("seeds", [1, 2])
def test_product_with_a_seed_axis(
    shape: tuple[int, int, int],
    transposed: bool,
    seeds: int,
    onednn: bool,
    generator: torch.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Product and both gradients in float32, with oneDNN where it is present and without, against float64."""
    monkeypatch.setattr(matmul, "ONEDNN", onednn)
    monkeypatch.setattr(matmul, "SMALLEST_ONEDNN_PRODUCT", 1)
    rows, inner, columns = shape
    left = torch.randn(seeds, rows, inner, generator=generator)
    right = torch.randn(seeds, inner, columns, generator=generator)
    if transposed:
        right = right.transpose(1, 2).contiguous().transpose(1, 2)
    weight = torch.randn(seeds, rows, columns, generator=generator)
    found = product_and_gradients(left, right, weight)
    expected = product_and_gradients(left.double(), right.double(), weight.double())
    for value, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(value.double(), reference, rtol=1e-5, atol=1e-4)


def nested_gradients(left: Tensor, right: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
    """What REBAR asks for: a gradient, the gradient of its square, and an ordinary loss, all of a product."""

    def loss(left: Tensor, scale: Tensor) -> Tensor:
        return seed_product(torch.tanh(left * scale), right).sigmoid().square().sum()

    def square(scale: Tensor) -> tuple[Tensor, Tensor]:
        slope = torch.func.grad(loss)(left, scale)
        return slope.square().sum(), slope

    slope_of_square, slope = torch.func.grad(square, has_aux=True)(scale)
    return slope_of_square, slope, seed_product(slope, right).sum()


@needs_onednn
@pytest.mark.parametrize("compiled", [False, True])
def test_second_order_under_torch_func(
    compiled: bool, onednn_calls: list[tuple[int, ...]], generator: torch.Generator
) -> None:
    """First and second derivatives, eager and compiled, with the backward pass of the whole, against float64."""
    left = torch.randn(2, 5, 7, generator=generator)
    right = torch.randn(2, 7, 3, generator=generator)

    def found(function: Callable[..., tuple[Tensor, ...]], dtype: torch.dtype) -> tuple[Tensor, ...]:
        factor = right.to(dtype, copy=True).requires_grad_()
        slopes = function(left.to(dtype), factor, torch.tensor(0.5, dtype=dtype))
        return *(value.detach() for value in slopes), *torch.autograd.grad(slopes[-1], factor)

    options = {"dynamic": False, "fullgraph": True, "options": compiler_options()}
    function = torch.compile(nested_gradients, **options) if compiled else nested_gradients
    expected = found(nested_gradients, torch.float64)
    assert not onednn_calls
    for value, reference in zip(found(function, torch.float32), expected, strict=True):
        torch.testing.assert_close(value.double(), reference, rtol=1e-4, atol=1e-4)
    assert {(5, 7, 3), (5, 3, 7), (7, 5, 3)} <= set(onednn_calls)


@needs_onednn
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_trains_every_model(
    name: str, model: str, monkeypatch: pytest.MonkeyPatch, onednn_calls: list[tuple[int, ...]]
) -> None:
    """A step whose products are all oneDNN's has the gradients of one without it."""
    n, k = latents(name, *((2, 3) if model in ("linear", "deep") else (1, 3)))
    found = gradients_of_a_step(name, model, f"{n}x{k}")
    assert onednn_calls
    monkeypatch.setattr(matmul, "ONEDNN", False)
    expected = gradients_of_a_step(name, model, f"{n}x{k}")
    for gradient, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("transposed", [False, True])
def test_rounded_products(transposed: bool, generator: torch.Generator) -> None:
    """In bfloat16 a CPU that can rounds factors and nothing else, in both directions; outside all is float32 again."""
    left = torch.randn(2, 100, 784, generator=generator)
    right = torch.randn(2, 784, 50, generator=generator)
    if transposed:
        right = right.transpose(1, 2).contiguous().transpose(1, 2)
    weight = torch.randn(2, 100, 50, generator=generator)
    before = product_and_gradients(left, right, weight)
    with products_in("bfloat16", torch.device("cpu")):
        found = product_and_gradients(left, right, weight)
    whole = product_and_gradients(left.double(), right.double(), weight.double())
    rounded = product_and_gradients(*(values.bfloat16().double() for values in (left, right, weight)))
    expected = rounded if (found[0] - whole[0]).abs().max() > 1e-3 else whole
    for value, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(value.double(), reference, rtol=1e-5, atol=1e-4)
    for value, reference in zip(before, product_and_gradients(left, right, weight), strict=True):
        assert torch.equal(value, reference)


@pytest.mark.parametrize("model", MODELS)
def test_rounded_training(model: str) -> None:
    """In bfloat16, whose relative error is 2⁻⁸, a step's gradients are float32's within a few percent."""
    size = "2x3" if model in ("linear", "deep") else "1x3"
    rounded, expected = (
        gradients_of_a_step("gumbel_softmax", model, size, precision) for precision in ("bfloat16", "float32")
    )
    for gradient, reference in zip(rounded, expected, strict=True):
        assert gradient.dtype == torch.float32
        assert (gradient - reference).norm() < 0.04 * reference.norm()


@needs_onednn
def test_default_size(monkeypatch: pytest.MonkeyPatch, onednn_calls: list[tuple[int, ...]]) -> None:
    """A step of RELAX at 20x10 on images of MNIST's size, whose products are large."""
    monkeypatch.setattr(matmul, "SMALLEST_ONEDNN_PRODUCT", 2**23)
    config = bench.configured("linear", "20x10", "relax", 1, RuntimeConfig(compile=False))
    assert config is not None
    module = bench.module_for(bench.synthetic_images(images=100), config, "cpu")
    bounds = module.runner.run(torch.arange(100).reshape(1, 1, 100))
    assert bounds.isfinite().all()
    assert {(100, 784, 200), (100, 200, 784), (200, 100, 784)} <= set(onednn_calls)


def test_makers_of_processors(tmp_path: Path) -> None:
    processor = tmp_path / "cpuinfo"
    assert matmul.is_intel(processor)
    for maker, intel in (("GenuineIntel", True), ("AuthenticAMD", False)):
        processor.write_text(f"processor : 0\nvendor_id : {maker}\n")
        assert matmul.is_intel(processor) == intel
