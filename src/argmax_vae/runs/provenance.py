"""What a number depends on besides its configuration: commit, versions, device."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from argmax_vae import __version__
from argmax_vae.errors import UsageError


@cache
def commit() -> tuple[str, bool]:
    """The commit of the package's source and whether it has uncommitted changes; empty where nothing tells.

    The environment variable ARGMAX_VAE_COMMIT tells first, on a machine that got the files without their repository:
    a commit, with `-dirty` behind it for uncommitted changes. A repository that does not track the package's files,
    such as one around a virtual environment, says nothing of them. Raises UsageError when the variable holds no commit.
    """
    if given := os.environ.get("ARGMAX_VAE_COMMIT", ""):
        if not re.fullmatch("[0-9a-f]{7,40}(-dirty)?", given):
            raise UsageError(f"ARGMAX_VAE_COMMIT={given} must be a commit's 7 to 40 digits, with -dirty behind or not")
        return given.removesuffix("-dirty")[:12], given.endswith("-dirty")
    here = Path(__file__).parents[1] / "__init__.py"

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=here.parent, capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", here.name)
        return git("rev-parse", "--short=12", "HEAD"), bool(git("status", "--porcelain", "--", "."))
    except (OSError, subprocess.SubprocessError):
        return "", False


def device_name(device: str) -> str:
    """Human name of `cpu` or `cuda`."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if cpuinfo.exists()
        else []
    )
    return f"{names[0] if names else platform.processor() or platform.machine()} ({os.cpu_count()} cores)"


def provenance() -> dict[str, Any]:
    """What a number depends on besides the configuration."""
    name, dirty = commit()
    packages = ("torch", "pytorch-lightning", "hydra-core", "numpy", "pandas")
    return {
        "version": __version__,
        "commit": name,
        "dirty": dirty,
        "command": " ".join(sys.argv),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in packages},
    }


def origins(stored: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Everything that trained a part of a run, from its provenance: its first origin, then what is named in that."""
    yield stored
    continued = [stored["continues"]] if "continues" in stored else []
    for other in (*stored.get("resumed", []), *continued, *stored.get("joins", [])):
        yield from origins(other)


def commits(stored: Mapping[str, Any]) -> str:
    """The commits that trained a part of a run, each once, from its provenance."""
    return ", ".join(dict.fromkeys(filter(None, (each["commit"] for each in origins(stored)))))
