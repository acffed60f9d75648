"""Fixtures of all tests. The hook that checks shape annotations precedes any import of the package."""

import os
import signal

import pytest

import shape_checks

shape_checks.install()

import torch  # noqa: E402

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts jobs in the background without Ctrl-C, which the tests of interruptions send.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    threads = max(1, torch.get_num_threads() // workers)
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)


@pytest.fixture
def generator() -> torch.Generator:
    """A generator at a fixed state, for test data and noise."""
    return torch.Generator().manual_seed(20190226)
