"""`argmax-vae report figure7`: class-conditional images of two mixtures side by side, the paper's Figure 7.

The paper has an unsupervised mixture beside a semi-supervised one. Columns are the values of z, rows have the same
Gaussian code; the first seed of each run. A csv file of the same name has the clustering accuracy of both.
"""

from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch
from PIL import Image

from argmax_vae.commands.evaluate import load_best
from argmax_vae.config.stored import config_of_dict
from argmax_vae.errors import UsageError
from argmax_vae.files import require_writable, write_atomic, write_csv
from argmax_vae.models.mixture import GaussianMixtureNetworks
from argmax_vae.runs.directory import RunDirectory
from argmax_vae.runs.provenance import commits
from argmax_vae.training.attribute_vae import AttributeVAE
from argmax_vae.training.build import build
from argmax_vae.training.mixture_vae import MixtureVAE
from argmax_vae.training.samples import class_conditional, grid

ROWS, GAP = 10, 12


def picture(path: Path) -> np.ndarray:
    """The grid of a finished run of a mixture on grey images with classes. Raises UsageError for another run."""
    run = RunDirectory(path)
    config = config_of_dict(run.config(), run.provenance())
    dataset = config.data.load(Path(config.paths.data))
    module = build(config, dataset)
    if not isinstance(module, MixtureVAE) or isinstance(module, AttributeVAE) or not module.classes:
        raise UsageError(f"{path} is no run of model=mixture on a data set with classes")
    load_best(run, module)
    if config.seeds[0] not in run.finished_seeds():
        raise UsageError(f"{path}: its first seed, which the picture would show, diverged")
    with torch.no_grad():
        return grid(
            class_conditional(cast(GaussianMixtureNetworks, module.best), config.seeds[0], 0, ROWS), dataset.shape
        )


def numbers(path: Path) -> pd.DataFrame:
    """What a run's first seed has reached."""
    run = RunDirectory(path)
    chosen = run.seeds().iloc[:1].reset_index(drop=True)
    columns = ["labels", "training", "seed", "epochs", "test_clustering_accuracy", "test_bound", "device"]
    return chosen[columns].assign(run=run.path.name, commit=commits(run.provenance()))


def write_classes(runs: list[Path], results: Path) -> list[Path]:
    """Draw the two runs side by side, and write their numbers; returns the files. Raises UsageError."""
    if len(runs) != 2:
        raise UsageError(f"report figure7: --from names two runs, not {len(runs)}")
    require_writable(results)
    left, right = map(picture, runs)
    if len(left) != len(right):
        raise UsageError(f"{runs[0]} and {runs[1]} have images of different heights")
    frame = pd.concat([numbers(path) for path in runs], ignore_index=True)
    both = np.concatenate([left, np.ones((len(left), GAP)), right], 1)
    image = Image.fromarray((both * 255).round().astype(np.uint8))
    image = image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST)
    written = [results / "figure7.png", results / "figure7.csv"]
    write_atomic(written[0], partial(image.save, format="PNG"))
    write_csv(written[1], frame)
    return written
