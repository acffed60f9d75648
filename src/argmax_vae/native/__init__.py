"""The C++ kernel of the candidate losses: built once by the machine's own compiler, cached, and called on the CPU.

Without a compiler nothing breaks: `load` returns None and the caller uses PyTorch alone.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

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


def cache_directory() -> Path:
    """Where the built kernel is kept: `$XDG_CACHE_HOME/argmax-vae`, by default `~/.cache/argmax-vae`."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "argmax-vae"


def build(compiler: str, target: Path) -> None:
    """Compile the kernel to `target` through a temporary name. Raises OSError or CalledProcessError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder) / target.name
        subprocess.run([compiler, *FLAGS, "-o", str(built), str(SOURCE)], check=True, capture_output=True, timeout=120)
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
        if not target.exists():
            build(compiler, target)
        library = ctypes.CDLL(str(target))
    except (OSError, subprocess.SubprocessError):
        return None
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    library.softplus_sums.argtypes = [pointer] * 8 + [integer] * 5 + [ctypes.c_int]
    library.softplus_sums.restype = None
    return library
