"""What trackers are given of a run: its labels, and rows of an evaluation."""

from pathlib import Path

from argmax_vae.runs.trackers import RunLabels

ROWS = [
    {"epoch": 5, "seed": 0, "validation_bound": 100.0, "epsilon": 0.5},
    {"epoch": 5, "seed": 1, "validation_bound": 104.0, "epsilon": 0.5},
    {"epoch": 5, "seed": 2, "validation_bound": 102.0, "epsilon": 0.5},
]


def labels(directory: Path) -> RunLabels:
    """The labels of a run of three seeds that is tracked in this directory."""
    config = {"seeds": [0, 1, 2], "model": {"latents": "20x2"}}
    return RunLabels("20x2 direct", "figure2", ("mnist", "as written"), config, directory)
