"""Kernels of the candidate losses: C++ for the CPU, built once by the machine's own compiler, and Triton for CUDA.

Without a compiler nothing breaks: `load` returns None, `triton_works` False, and the caller uses PyTorch alone.
"""

import ctypes
import functools
import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import torch

from argmax_vae.files import PRIVATE, cache_directory, is_own

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("softplus_sums.cpp")
FLAGS = (
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp",
    "-shared",
    "-fPIC",
    "-std=c++17",
)


def build(compiler: str, target: Path) -> None:
    """Compile the kernel to `target` through a temporary name. Raises OSError or CalledProcessError."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder) / target.name
        subprocess.run([compiler, *FLAGS, "-o", str(built), str(SOURCE)], check=True, capture_output=True, timeout=120)
        built.chmod(PRIVATE)
        built.replace(target)


def identity(compiler: str) -> str:
    """Hash of everything the built file depends on: source, flags, compiler, and the processor's features."""
    processor = Path("/proc/cpuinfo")
    features = (
        [line for line in processor.read_text().splitlines() if line.startswith("flags")][:1]
        if processor.exists()
        else []
    )
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=60).stdout
    parts = [SOURCE.read_bytes(), " ".join(FLAGS).encode(), version, "".join(features).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


@functools.cache
def load() -> ctypes.CDLL | None:
    """The built kernel, or None when there is no compiler or the build fails."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        return None
    try:
        target = cache_directory() / f"softplus_sums-{identity(compiler)}.so"
        if not (target.exists() and is_own(target)):
            build(compiler, target)
        library = ctypes.CDLL(str(target))
    except PermissionError as error:
        logger.warning("the C++ kernel is not used: %s", error.strerror)
        return None
    except (OSError, RuntimeError, subprocess.SubprocessError):
        return None
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    library.softplus_sums.argtypes = [pointer] * 8 + [integer] * 5 + [ctypes.c_int]
    library.softplus_sums.restype = None
    return library


@functools.cache
def triton_works() -> bool:
    """Whether there is a CUDA device and the Triton kernel runs on it; tried once in a process, on a tiny problem.

    A kernel that is there but fails is told in a warning.
    """
    if not torch.cuda.is_available() or importlib.util.find_spec("triton") is None:
        return False
    try:
        from argmax_vae.models.native.softplus_sums_triton import softplus_sums

        softplus_sums(
            torch.zeros(1, 1, 1, device="cuda"),
            torch.zeros(1, 1, 2, 1, device="cuda"),
            torch.zeros(1, 1, 1, dtype=torch.int64, device="cuda"),
        ).cpu()
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        warnings.warn(f"the Triton kernel does not run, PyTorch is used instead: {reason}", stacklevel=2)
        return False
    return True
