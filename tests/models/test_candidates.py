"""Every form of the candidate losses against decoding every changed code in float64."""

import copy
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from argmax_vae import files, latents
from argmax_vae.latents import one_hot_argmax
from argmax_vae.models import candidates, native
from argmax_vae.models.candidates import FORMS, CandidateLosses
from argmax_vae.models.discrete import Perceptrons
from argmax_vae.models.likelihoods import LIKELIHOODS
from argmax_vae.models.reconstruction import Reconstruction

SHAPES = [(1, 2, 5), (1, 40, 33), (3, 2, 1), (3, 2, 17), (2, 10, 31), (2, 17, 100), (5, 3, 64), (4, 10, 784)]
"""n, k and pixels."""
KERNELS = ["native", "pytorch"]

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="the kernel needs a C++ compiler"
)


@pytest.fixture(params=[pytest.param("native", marks=needs_compiler), "pytorch"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test with the C++ kernel and as on a machine without a compiler."""
    if request.param == "native":
        assert native.load() is not None
    else:
        monkeypatch.setattr(native, "load", lambda: None)
    return request.param


class Batch:
    """A linear or deeper decoder, images and codes; the decoder's weights are multiplied by `scale`."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        generator: torch.Generator,
        *,
        scale: float = 1.0,
        samples: int = 1,
        hidden: tuple[int, ...] = (),
        seeds: int = 2,
        batch: int = 3,
        likelihood: str = "bernoulli",
    ) -> None:
        n, k, pixels = shape
        self.networks = Perceptrons(pixels, n, k, hidden, list(range(seeds)), likelihood)
        with torch.no_grad():
            for parameter in self.networks.decoder.parameters():
                parameter.mul_(scale)
        self.images = torch.rand(seeds, batch, pixels, generator=generator).round()
        self.codes = one_hot_argmax(torch.rand(samples, seeds, batch, n, k, generator=generator))

    def losses(self, form: str) -> tuple[Tensor, Tensor, str]:
        """Loss, candidate losses and the path that was taken."""
        chosen = CandidateLosses(form)
        loss, changed = Reconstruction(self.networks, self.images, chosen).with_candidates(self.codes)
        return loss, changed, chosen.path

    def reference(self) -> Tensor:
        """The candidate losses in float64, one changed coordinate at a time."""
        decoder = copy.deepcopy(self.networks).double()
        images, codes = self.images.double(), self.codes.double()
        samples, n, k = codes.shape[0], *codes.shape[-2:]
        losses = torch.empty_like(codes)
        for i in range(n):
            for j in range(k):
                changed = codes.clone()
                changed[..., i, :] = 0.0
                changed[..., i, j] = 1.0
                for sample in range(samples):
                    outputs = decoder.decode(changed[sample])
                    terms = F.softplus(outputs) - images * outputs
                    if decoder.likelihood == "squared_error":
                        terms = (1 - 2 / (1 + torch.exp(2 * outputs)) - 2 * images + 1) ** 2
                    losses[sample, :, :, i, j] = terms.sum(-1)
        return losses

    def largest_logit(self) -> float:
        return self.networks.decode(self.codes[0]).abs().max().item()


def assert_equal_losses(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=3e-6, atol=3e-4)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_forms_agree(
    shape: tuple[int, int, int], form: str, samples: int, kernel: str, generator: torch.Generator
) -> None:
    batch = Batch(shape, generator, samples=samples, scale=3.0)
    loss, changed, _ = batch.losses(form)
    reference = batch.reference()
    assert_equal_losses(changed, reference)
    own = (reference * batch.codes).sum(-1)
    torch.testing.assert_close(own, loss.double()[..., None].expand_as(own), rtol=3e-6, atol=3e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("largest", [30.0, 42.0, 55.0, 100.0, 200.0])
@pytest.mark.parametrize("shape", [(1, 4, 33), (2, 3, 17), (3, 10, 64), (2, 17, 100)])
def test_extreme_logits(
    shape: tuple[int, int, int], largest: float, form: str, kernel: str, generator: torch.Generator
) -> None:
    """Decoders whose largest logit has the given size, on both sides of the limits of the grouped forms."""
    ordinary = Batch(shape, torch.Generator().manual_seed(0))
    batch = Batch(shape, torch.Generator().manual_seed(0), scale=largest / ordinary.largest_logit())
    assert batch.largest_logit() == pytest.approx(largest, rel=1e-4)
    _, changed, _ = batch.losses(form)
    assert changed.isfinite().all()
    assert_equal_losses(changed, batch.reference())


@pytest.mark.parametrize("form", FORMS)
def test_ordinary_and_extreme_seeds_together(form: str, kernel: str, generator: torch.Generator) -> None:
    """One seed far beyond the limits of the grouped forms, the others ordinary."""
    batch = Batch((3, 4, 50), generator, seeds=3)
    with torch.no_grad():
        batch.networks.decoder.layers[0].weight[1] *= 500.0
    _, changed, _ = batch.losses(form)
    assert_equal_losses(changed, batch.reference())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(1, 4, 33), (3, 4, 50)])
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_broken_seed_leaves_the_others_right(
    shape: tuple[int, int, int], poison: float, form: str, kernel: str, generator: torch.Generator
) -> None:
    batch = Batch(shape, generator, seeds=3)
    reference = batch.reference()
    with torch.no_grad():
        batch.networks.decoder.layers[0].weight[1] = poison
    loss, changed, _ = batch.losses(form)
    assert not changed[:, 1].isfinite().any()
    assert not loss[:, 1].isfinite().any()
    assert_equal_losses(changed[:, [0, 2]], reference[:, [0, 2]])


@pytest.mark.parametrize("form", FORMS)
def test_path_of_a_linear_decoder(form: str, generator: torch.Generator) -> None:
    expected = {"auto": "grouped products", "grouped": "grouped products", "rows": "row differences"}
    assert Batch((3, 4, 20), generator).losses(form)[2] == expected.get(form, "dense")
    assert Batch((1, 4, 20), generator).losses(form)[2] == ("dense" if form == "dense" else "shared")


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("hidden", [(), (9,), (6, 8, 5)])
@pytest.mark.parametrize("shape", [(3, 4, 20), (5, 2, 17), (1, 6, 9), (2, 5, 1)])
@pytest.mark.parametrize("form", FORMS)
def test_every_decoder_and_likelihood(
    form: str, shape: tuple[int, int, int], hidden: tuple[int, ...], likelihood: str, generator: torch.Generator
) -> None:
    batch = Batch(shape, generator, hidden=hidden, samples=2, likelihood=likelihood, scale=2.0)
    loss, changed, path = batch.losses(form)
    general = shape[0] > 1 and (bool(hidden) or likelihood == "squared_error")
    assert (path == "first-layer differences") == (general and form != "dense")
    reference = batch.reference()
    assert_equal_losses(changed, reference)
    torch.testing.assert_close((reference * batch.codes).sum(-1)[..., 0].float(), loss, rtol=3e-6, atol=3e-4)


def test_unknown_form() -> None:
    with pytest.raises(ValueError, match="auto, dense, rows, grouped"):
        CandidateLosses("quick")


def test_one_coordinate_codes(generator: torch.Generator) -> None:
    codes = one_hot_argmax(torch.rand(5, 3, 4, generator=generator))
    changed = latents.one_coordinate_codes(codes)
    for i in range(3):
        for j in range(4):
            expected = codes.argmax(-1)
            expected[:, i] = j
            assert torch.equal(changed[i, j].argmax(-1), expected)
            assert torch.equal(changed[i, j].sum(-1), torch.ones(5, 3))


def sums_problem(
    generator: torch.Generator, n: int, k: int, pixels: int, spread: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs and weights on ±`spread`, unrelated to each other, and values."""
    outputs = (torch.rand(2, 6, pixels, generator=generator) * 2 - 1) * spread
    weight = (torch.rand(2, n, k, pixels, generator=generator) * 2 - 1) * spread
    return outputs, weight, torch.randint(k, (2, 6, n), generator=generator)


@pytest.mark.parametrize("spread", [1.0, 10.0, 19.9, 21.0, 45.0, 70.0, 200.0])
@pytest.mark.parametrize("shape", [(1, 2, 1), (1, 17, 33), (3, 10, 32), (2, 5, 300)])
def test_sums_of_softplus(shape: tuple[int, int, int], spread: float, kernel: str, generator: torch.Generator) -> None:
    """The operator and the row form against float64, within and beyond the limits of the grouped forms."""
    outputs, weight, values = sums_problem(generator, *shape, spread)
    expected = candidates.softplus_sums_rows(outputs.double(), weight.double(), values)
    assert_equal_losses(candidates.softplus_sums(outputs, weight, values), expected)
    assert_equal_losses(candidates.softplus_sums_rows(outputs, weight, values), expected)


def test_outputs_whose_exponentials_vanish(kernel: str) -> None:
    """Outputs of −100 with weights of −80: e⁻¹⁰⁰ has lost its digits, the changed logits are ordinary."""
    outputs = -100.0 + torch.linspace(0.0, 1.0, 40).repeat(1, 1, 1)
    weight = torch.tensor([-80.0, 30.0, 22.0]).reshape(1, 1, 3, 1).repeat(1, 1, 1, 40)
    values = torch.zeros(1, 1, 1, dtype=torch.int64)
    expected = candidates.softplus_sums_rows(outputs.double(), weight.double(), values)
    assert_equal_losses(candidates.softplus_sums(outputs, weight, values), expected)


@pytest.mark.parametrize("pixels", [1, 15, 16, 17, 33, 50, 65, 100, 112, 784])
def test_grouped_sums_in_pytorch(pixels: int, generator: torch.Generator) -> None:
    """Every number of factors in a group, up to the largest logit."""
    outputs, weight, values = sums_problem(generator, 2, 3, pixels, 14.0)
    assert candidates.within_grouped_limits(outputs, weight)
    expected = candidates.softplus_sums_rows(outputs.double(), weight.double(), values)
    assert_equal_losses(candidates.softplus_sums_grouped(outputs, weight, values), expected)


def test_limits_of_the_grouped_form(generator: torch.Generator) -> None:
    outputs, weight, _ = sums_problem(generator, 2, 3, 20, 14.0)
    for broken_outputs, broken_weight in (
        (outputs + 100.0, weight),
        (outputs, weight * 10.0),
        (outputs - 100.0, weight + 41.0),
        (outputs * torch.nan, weight),
        (outputs, weight * torch.nan),
    ):
        assert not candidates.within_grouped_limits(broken_outputs, broken_weight)


def test_operator_can_be_traced(kernel: str, generator: torch.Generator) -> None:
    problem = sums_problem(generator, 2, 3, 20, 1.0)
    torch.library.opcheck(candidates.softplus_sums, problem, test_utils=("test_schema", "test_faketensor"))


def test_operator_takes_any_layout(kernel: str, generator: torch.Generator) -> None:
    outputs, weight, values = sums_problem(generator, 2, 3, 20, 1.0)
    expected = candidates.softplus_sums(outputs, weight, values)
    strided = [tensor.movedim(0, -1).contiguous().movedim(-1, 0) for tensor in (outputs, weight, values)]
    assert not any(tensor.is_contiguous() for tensor in strided)
    assert torch.equal(candidates.softplus_sums(*strided), expected)


def test_without_a_cuda_device_triton_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not native.triton_works.__wrapped__()


def test_a_triton_kernel_that_fails_is_told_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here for want of a device."""
    pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def refuse(*shape: int, **options: object) -> Tensor:
        raise RuntimeError("no kernel image\nand more lines")

    monkeypatch.setattr(torch, "zeros", refuse)
    with pytest.warns(UserWarning, match="Triton kernel does not run, PyTorch is used instead: no kernel image$"):
        assert not native.triton_works.__wrapped__()


INTERPRETED = """
import sys, torch
from argmax_vae.models.native.softplus_sums_triton import softplus_sums
for name in sys.argv[1:]:
    problem = torch.load(name, weights_only=True)
    torch.save(softplus_sums(*problem), name)
"""


def test_the_triton_kernel_in_its_interpreter(tmp_path: Path, generator: torch.Generator) -> None:
    """On a CPU, within and beyond the limits of products, with rows, values and pixels that fill no block, and NaN."""
    pytest.importorskip("triton", reason="Triton is not installed")
    spreads = [1.0, 14.0, 21.0, 45.0, 200.0]
    problems = [sums_problem(generator, 2, k, 70, spread) for k, spread in zip((2, 3, 5, 4, 3), spreads, strict=True)]
    vanishing = torch.tensor([-80.0, 30.0, 22.0]).reshape(1, 1, 3, 1).repeat(1, 1, 1, 40)
    problems.append((-100.0 + torch.linspace(0.0, 1.0, 40).repeat(1, 1, 1), vanishing, problems[1][2][:1, :1, :1]))
    mixed = sums_problem(generator, 2, 3, 70, 10.0)
    mixed[0][0, 2] *= 9.0
    mixed[0][0, 4, 69] = torch.nan
    mixed[1][1, 1, 0, 5] = torch.inf
    problems.append(mixed)
    files = [tmp_path / f"{number}.pt" for number in range(len(problems))]
    for path, problem in zip(files, problems, strict=True):
        torch.save(problem, path)
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-W", "ignore", "-c", INTERPRETED, *map(str, files)]
    subprocess.run(command, env=environment, check=True)
    for path, problem in zip(files, problems, strict=True):
        found, expected = torch.load(path, weights_only=True), candidates.softplus_sums_rows(*problem)
        assert torch.equal(found.isfinite(), expected.isfinite())
        exact = candidates.softplus_sums_rows(problem[0].double(), problem[1].double(), problem[2])
        assert_equal_losses(found[expected.isfinite()], exact[expected.isfinite()])


def test_the_triton_kernel_compiles_without_a_device() -> None:
    """What its interpreter takes, Triton's compiler may still refuse; for compute capability 9.0."""
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    from triton.backends.compiler import GPUTarget

    from argmax_vae.models.native import softplus_sums_triton

    pointers = ("outputs", "weight", "changes", "limits", "values", "sums")
    constants = {"PIXELS": 784, "K": 10, "BLOCK": 4, "ROWS": 4, "LANES": 32}
    signature = {name: "*i64" if name == "values" else "*fp32" for name in pointers} | {"rows": "i32", "n": "i32"}
    signature |= dict.fromkeys(constants, "constexpr")
    source = triton.compiler.ASTSource(fn=softplus_sums_triton.kernel, signature=signature, constexprs=constants)
    options = {"num_warps": 1, "enable_fp_fusion": True}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert "ex2.approx" in compiled.asm["ptx"]
    assert len(compiled.asm["cubin"]) > 1000


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("spread", [1.0, 14.0, 45.0, 200.0])
@pytest.mark.parametrize("shape", [(1, 17, 33), (20, 10, 784), (2, 2, 784)])
def test_the_triton_kernel_on_the_device(
    shape: tuple[int, int, int], spread: float, generator: torch.Generator
) -> None:
    problem = [tensor.cuda() for tensor in sums_problem(generator, *shape, spread)]
    chosen = CandidateLosses()
    found = chosen.softplus_sums(*problem)
    assert chosen.path == "grouped products in Triton"
    assert_equal_losses(found, candidates.softplus_sums_rows(problem[0].double(), problem[1].double(), problem[2]))


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_directory() == tmp_path / "argmax-vae"
    return tmp_path


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def load_anew():
    """`native.load` as in a new process."""
    return native.load.__wrapped__()


def test_no_compiler(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert load_anew() is None
    with pytest.raises(OSError, match="no-such-compiler"):
        native.build("no-such-compiler", empty_cache / "kernel.so")


@pytest.mark.parametrize("text", ["exit 1", 'test "$1" = --version', ":"])
def test_failing_compiler(text: str, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that always fails, one that only tells its version, and one that succeeds but writes nothing."""
    monkeypatch.setenv("CXX", str(script(empty_cache / "compiler", text)))
    assert load_anew() is None


def test_failing_build_leaves_nothing_behind(empty_cache: Path) -> None:
    target = files.cache_directory() / "kernel.so"
    with pytest.raises(subprocess.CalledProcessError):
        native.build(str(script(empty_cache / "compiler", "exit 1")), target)
    assert list(target.parent.iterdir()) == []


def test_damaged_kernel_is_not_used(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = script(empty_cache / "compiler", "echo 1.0")
    monkeypatch.setenv("CXX", str(compiler))
    target = files.cache_directory() / f"softplus_sums-{native.identity(str(compiler))}.so"
    target.write_bytes(b"not a library")
    target.chmod(0o700)
    assert load_anew() is None


@needs_compiler
def test_kernel_is_built_once(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_anew() is not None
    assert len(list(files.cache_directory().glob("softplus_sums-*.so"))) == 1

    def refuse(compiler: str, target: Path) -> None:
        raise AssertionError("built a second time")

    monkeypatch.setattr(native, "build", refuse)
    assert load_anew() is not None


def test_what_others_could_have_written_is_built_anew(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = script(empty_cache / "compiler", "echo 1.0")
    monkeypatch.setenv("CXX", str(compiler))
    target = files.cache_directory() / f"softplus_sums-{native.identity(str(compiler))}.so"
    built: list[Path] = []
    monkeypatch.setattr(native, "build", lambda compiler, target: built.append(target))
    planted = empty_cache / "planted.so"
    planted.write_bytes(b"not a library")
    planted.chmod(0o700)
    target.symlink_to(planted)
    assert load_anew() is None
    target.unlink()
    target.write_bytes(b"not a library")
    target.chmod(0o722)
    assert load_anew() is None
    assert built == [target, target]
    monkeypatch.setattr(native.os, "geteuid", lambda: os.getuid() + 1)
    assert not files.is_own(planted)


def test_the_cache_is_for_its_owner_alone(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = empty_cache / "argmax-vae"
    folder.chmod(0o777)
    assert files.cache_directory() == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    elsewhere = empty_cache / "elsewhere"
    elsewhere.mkdir()
    folder.rmdir()
    folder.symlink_to(elsewhere)
    own = empty_cache / f"argmax-vae-{os.geteuid()}"
    assert files.cache_directory() == own
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    own.rmdir()
    own.symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="set XDG_CACHE_HOME to a folder of your own"):
        files.cache_directory()
    assert load_anew() is None
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("given", ["", "relative"])
def test_a_cache_is_never_in_the_working_directory(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert files.cache_directory() == tmp_path / "home" / ".cache" / "argmax-vae"
