"""`argmax-vae report figure7`: class-conditional images of two mixtures side by side, the paper's Figure 7.

The paper has an unsupervised mixture beside a semi-supervised one. Columns are the values of z, rows have the same
Gaussian code; the first seed of each run. A csv file of the same name has the clustering accuracy of both.
"""

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

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

ROWS = 10


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


def title(numbers: Mapping[Hashable, Any]) -> str:
    """What a run is called above its grid."""
    labels = numbers["labels"] or "without"
    return f"{labels} labels, {numbers['epochs']} epochs, seed {numbers['seed']}"


def draw(grids: Sequence[tuple[str, np.ndarray]]) -> Figure:
    """Grids of square images side by side under their titles, a component in each column, a code in each row."""
    width = 5.0
    height = width * len(grids[0][1]) / grids[0][1].shape[1] + 0.8
    figure = Figure(figsize=(width * len(grids), height), layout="constrained", dpi=150)
    for axes, (above, picture) in zip(figure.subplots(1, len(grids), squeeze=False)[0], grids, strict=True):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(above, loc="left")
        axes.set_xlabel("component z")
        columns = round(ROWS * (picture.shape[1] - 1) / (len(picture) - 1))
        axes.set_xticks([(index + 0.5) * picture.shape[1] / columns for index in range(columns)], range(columns))
        axes.set_yticks([])
        axes.tick_params(length=0, labelsize=8)
        axes.spines[:].set_visible(False)
    return figure


def write_classes(runs: list[Path], results: Path) -> list[Path]:
    """Draw the two runs side by side, and write their numbers; returns the files. Raises UsageError."""
    if len(runs) != 2:
        raise UsageError(f"report figure7: --from names two runs, not {len(runs)}")
    require_writable(results)
    left, right = map(picture, runs)
    if len(left) != len(right):
        raise UsageError(f"{runs[0]} and {runs[1]} have images of different heights")
    frame = pd.concat([numbers(path) for path in runs], ignore_index=True)
    figure = draw([(title(row), each) for row, each in zip(frame.to_dict("records"), (left, right), strict=True)])
    written = [results / "figure7.png", results / "figure7.csv"]
    write_atomic(written[0], partial(figure.savefig, format="png"))
    write_csv(written[1], frame)
    return written
