"""What bookkeeping costs: the share of training time that is neither steps nor evaluation, for every tracker."""

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from argmax_vae.commands.bench import synthetic_images
from argmax_vae.config.compose import cells
from argmax_vae.files import write_csv
from argmax_vae.runs.provenance import device_name
from argmax_vae.runs.start import Fresh
from argmax_vae.runs.trackers import TRACKERS
from argmax_vae.training.build import device_of
from argmax_vae.training.callbacks import Stopwatch
from argmax_vae.training.fit import fit

IMAGES = 50_000
SMALLEST = ("model.latents=20x2", "trainer.evaluate_every=5", "trainer.final_samples=1", "runtime.checkpoint_every=5")


def measure(tracker: str, epochs: int, images: int = IMAGES) -> dict[str, Any]:
    """Train the smallest model of the tables, one seed, as `train` does, and time it."""
    with tempfile.TemporaryDirectory() as directory:
        overrides = [f"tracker={tracker}", f"trainer.epochs={epochs}", f"paths.runs={directory}", *SMALLEST]
        (cell,) = cells("train", overrides)
        run, stopwatch = cell.run, Stopwatch()
        run.start(cell.config_dict)
        device = device_of(cell.config.runtime.device)
        with contextlib.redirect_stderr(io.StringIO()):
            fit(cell, synthetic_images(images=images), device, Fresh(), callbacks=[stopwatch])
    return {
        "tracker": tracker,
        "latents": cell.config.model.latents,
        "seeds": 1,
        "epochs": epochs - 1,
        "seconds": round(stopwatch.whole, 3),
        "overhead_percent": round(100 * (1 - stopwatch.busy / stopwatch.whole), 2),
        "device": device_name(device),
        "torch": torch.__version__,
    }


def run_overhead(output: Path | None, epochs: int = 10) -> pd.DataFrame:
    """Measure every tracker and print the shares; also write a csv to `output` when given."""
    rows = []
    for tracker in TRACKERS:
        rows.append(measure(tracker, epochs))
        print(f"{tracker:12} {rows[-1]['overhead_percent']:6.2f} % of {rows[-1]['seconds']:.1f} seconds", flush=True)
    frame = pd.DataFrame(rows)
    if output is not None:
        write_csv(output, frame)
    return frame
