"""Fixtures of all tests. The hook that checks shape annotations precedes any import of the package."""

import os
import signal
from pathlib import Path

import pytest

import shape_checks

shape_checks.install()

import torch  # noqa: E402

for sent, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    # Tests of interruptions send them; a shell starts jobs in the background without Ctrl-C, and nohup without SIGHUP.
    if signal.getsignal(sent) is signal.SIG_IGN:
        signal.signal(sent, handler)
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    threads = max(1, torch.get_num_threads() // workers)
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)


@pytest.fixture
def generator() -> torch.Generator:
    """A generator at a fixed state, for test data and noise."""
    return torch.Generator().manual_seed(20190226)


@pytest.fixture
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory is the test's own, with nothing in it, and no other directory is named for data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ARGMAX_VAE_DATA", raising=False)
    return tmp_path
