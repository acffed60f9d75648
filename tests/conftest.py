"""Fixtures of all tests. The hook that checks shape annotations precedes any import of the package."""

import pytest

import shape_checks

shape_checks.install()

import torch  # noqa: E402


@pytest.fixture
def generator() -> torch.Generator:
    """A generator at a fixed state, for test data and noise."""
    return torch.Generator().manual_seed(20190226)
