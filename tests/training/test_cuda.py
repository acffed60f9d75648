"""On a CUDA device: captured steps equal others, compiled ones eager ones, and CUDA the CPU; small, for any machine."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from argmax_vae.config.compose import cells
from argmax_vae.config.schema import RuntimeConfig
from argmax_vae.data.datasets import load_dataset
from argmax_vae.errors import UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.models.layers import products_in
from argmax_vae.runs.directory import identity
from argmax_vae.training import build
from argmax_vae.training.vae import DiscreteVAE
from helpers import TINY, cell, latents, train

needs_device = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
MIXTURE = (
    *("model=mixture", "model.latents=1x10", "model.hidden=[16]", "model.gaussian=3", "model.row=4"),
    *("model.component_hidden=[5]", "model.decoder_hidden=[12]", "model.discrete_hidden=[6]"),
    *("supervision=joint", "supervision.labels=50"),
)
DEEP = ("model=deep", "model.hidden=[16,8]", "data.binarization=none")


def choices(estimator: str) -> tuple[str, ...]:
    n, k = latents(estimator)
    return (f"estimator={estimator}", f"model.latents={n}x{k}")


MODELS = {name: choices(name) for name in ESTIMATORS} | {
    "imle, adaptive step": (*choices("imle"), "estimator.step=adaptive", "estimator.rate=0.1"),
    "direct, deep": (*choices("direct"), *DEEP),
    "gumbel_softmax, deep": (*choices("gumbel_softmax"), *DEEP),
    "direct, mixture": (*MIXTURE, "estimator=direct"),
    "gumbel_softmax, mixture": (*MIXTURE, "estimator=gumbel_softmax", "supervision.loss=cross_entropy"),
}


def module_of(chosen: tuple[str, ...], device: str, *more: str) -> DiscreteVAE:
    """A module ready to step, of two seeds."""
    (found,) = cells("train", [*TINY, "seeds=[0,1]", *chosen, f"runtime.device={device}", *more])
    module = build.build(found.config, load_dataset("digits", Path())).to(device)
    module.prepare_steps(module.configure_optimizers())
    module.on_train_epoch_start()
    return module


def steps_of(module: DiscreteVAE, count: int) -> Tensor:
    """Losses of the first steps of training, without Lightning."""
    indices = torch.randint(1200, (count, 2, 200), generator=torch.Generator().manual_seed(0))
    return module.runner.run(indices.to(module.device))


def assert_same_steps(one: DiscreteVAE, other: DiscreteVAE) -> None:
    """Sums in another order, which training amplifies: 1e-3 nats of 45 over a few steps."""
    torch.testing.assert_close(steps_of(one, 5), steps_of(other, 5), rtol=0, atol=1e-3)
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)


@pytest.mark.cuda
@needs_device
@pytest.mark.parametrize("kind", MODELS)
def test_captured_steps_equal_step_by_step(kind: str) -> None:
    captured, others = (module_of(MODELS[kind], "cuda", f"runtime.graph={graph}") for graph in ("true", "false"))
    assert_same_steps(captured, others)
    assert "captured as a CUDA graph" in captured.path
    assert "step by step" in others.path


def gradients(module: DiscreteVAE, inputs: tuple[Tensor, ...], noise: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The training bound of a step, and the gradients of all parameters, on the CPU."""
    device = module.device
    moved = {name: values.to(device) for name, values in noise.items()}
    total, bound, *_ = module.terms(tuple(part.to(device) for part in inputs), moved, module.steps_done)
    total.backward()
    found = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return bound.detach().cpu(), [gradient.cpu() for gradient in found]


@pytest.mark.cuda
@needs_device
@pytest.mark.parametrize("kind", MODELS)
def test_a_step_on_cuda_equals_one_on_the_cpu(kind: str) -> None:
    """The same images and noise, drawn on the CPU."""
    cpu, cuda = (module_of(MODELS[kind], device) for device in ("cpu", "cuda"))
    noise = cpu.draw()
    inputs = cpu.inputs(torch.arange(400).reshape(2, 200), noise)
    (bound, expected), (other, found) = gradients(cpu, inputs, noise), gradients(cuda, inputs, noise)
    torch.testing.assert_close(other, bound, rtol=1e-5, atol=1e-3)
    assert len(found) == len(expected)
    for gradient, reference in zip(found, expected, strict=True):
        scale = reference.abs().max().item()
        torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-4 * max(scale, 1e-3))


@pytest.mark.cuda
@needs_device
@pytest.mark.parametrize("kind", ["direct", "gumbel_softmax", "direct, mixture"])
def test_compiled_steps_equal_eager_ones(kind: str) -> None:
    compiled, eager = (module_of(MODELS[kind], "cuda", f"runtime.compile={choice}") for choice in ("true", "false"))
    assert_same_steps(compiled, eager)
    assert "compiled" in compiled.path.split("; ")
    assert "eager" in eager.path.split("; ")


@pytest.mark.cuda
@needs_device
def test_rounded_products_are_close_and_training_alone_rounds(tmp_path: Path) -> None:
    """TF32 keeps 10 bits of a factor: 0.1 % of each product; before and after, float32 is whole."""
    left, right = torch.rand(2, 1, 64, 64, device="cuda")
    whole = left @ right
    with products_in("tf32", torch.device("cuda")):
        rounded = left @ right
    error = ((rounded - whole).abs() / whole).max().item()
    assert 1e-6 < error < 2e-3
    assert torch.equal(left @ right, whole)
    run = train(tmp_path, "runtime.device=cuda", "runtime.precision=tf32")
    assert run.status == "done", run.reason


@pytest.mark.cuda
@needs_device
def test_a_run_is_compiled_and_captured(tmp_path: Path) -> None:
    """In a whole training, whose blocks of indices are not laid out as those of other tests."""
    run = train(tmp_path, "runtime.device=cuda", "runtime.compile=true", "estimator=gumbel_softmax")
    (path,) = run.seeds()["path"].unique()
    assert "compiled; captured as a CUDA graph" in path


def test_asking_for_tf32_leaves_the_precision_known_and_is_put_back() -> None:
    """Compilers ask for it in both of PyTorch's ways, which disagree after some settings."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with products_in("tf32", torch.device("cuda")):
        assert torch.backends.cuda.matmul.fp32_precision == torch.backends.cudnn.conv.fp32_precision == "tf32"
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
    with products_in("bfloat16", torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == before[0]


def test_a_cpu_multiplies_in_no_tf32(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"runtime\.precision=tf32 must be float32 or bfloat16 on a CPU"):
        train(tmp_path, "runtime.precision=tf32")
    assert list(tmp_path.iterdir()) == []


def test_the_precision_is_part_of_the_identity(tmp_path: Path) -> None:
    chosen = ("float32", "tf32", "bfloat16")
    plains = [{**cell(tmp_path).config_dict, "runtime": {"precision": name}} for name in chosen]
    assert len({identity(plain) for plain in plains}) == 3
    assert identity(plains[0]) == identity({**plains[0], "runtime": {}})


def test_what_is_left_to_the_device() -> None:
    """Long chunks and rare checkpoints where a step takes no time; what was chosen stays."""
    left = RuntimeConfig()
    assert (left.on("cpu").chunk, left.on("cpu").checkpoint_every) == (100, 10)
    assert (left.on("cuda").chunk, left.on("cuda").checkpoint_every) == (500, 50)
    chosen = RuntimeConfig(chunk=7, checkpoint_every=3)
    assert (chosen.on("cuda").chunk, chosen.on("cuda").checkpoint_every) == (7, 3)
    with pytest.raises(UsageError, match=r"runtime\.chunk=-1 must be at least 0"):
        RuntimeConfig(chunk=-1)
