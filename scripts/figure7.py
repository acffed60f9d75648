"""Draws the paper's Figure 7: class-conditional images of an unsupervised mixture beside a semi-supervised one.

    python scripts/figure7.py RUN_UNSUPERVISED RUN_SEMI_SUPERVISED [results/figure7.png]

Columns are the values of z, rows have the same Gaussian code; the first seed of each run. A csv file of the same name
has the clustering accuracy of both.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from argmax_vae.commands.evaluate import load_best
from argmax_vae.config.stored import from_plain
from argmax_vae.errors import UsageError
from argmax_vae.files import require_writable, write_atomic, write_csv
from argmax_vae.runs.directory import RunDirectory
from argmax_vae.runs.provenance import commits
from argmax_vae.streams import protect
from argmax_vae.training.attribute_vae import AttributeVAE
from argmax_vae.training.build import build
from argmax_vae.training.mixture_vae import MixtureVAE
from argmax_vae.training.samples import class_conditional, grid

ROWS, GAP = 10, 12


def picture(path: Path) -> np.ndarray:
    """The grid of a finished run of a mixture on grey images with classes. Raises UsageError for another run."""
    run = RunDirectory(path)
    config = from_plain(run.config())
    dataset = config.data.load(Path(config.paths.data))
    module = build(config, dataset)
    if not isinstance(module, MixtureVAE) or isinstance(module, AttributeVAE) or not module.classes:
        raise UsageError(f"{path} is no run of model=mixture on a data set with classes")
    load_best(run, module)
    if config.seeds[0] not in run.finished_seeds():
        raise UsageError(f"{path}: its first seed, which the picture would show, diverged")
    with torch.no_grad():
        return grid(class_conditional(module.best, config.seeds[0], 0, ROWS), dataset.shape)


def numbers(path: Path) -> pd.DataFrame:
    """What a run's first seed has reached."""
    run = RunDirectory(path)
    chosen = run.seeds().iloc[:1].reset_index(drop=True)
    columns = ["labels", "training", "seed", "epochs", "test_clustering_accuracy", "test_bound", "device"]
    return chosen[columns].assign(run=run.path.name, commit=commits(run.provenance()))


def make(runs: list[Path], output: Path) -> None:
    """Draw the two runs side by side, and write their numbers. Raises UsageError."""
    if output.suffix != ".png":
        raise UsageError(f"{output}: the picture's name must end in .png")
    require_writable(output.parent)
    left, right = (picture(path) for path in runs)
    if len(left) != len(right):
        raise UsageError(f"{runs[0]} and {runs[1]} have images of different heights")
    frame = pd.concat([numbers(path) for path in runs], ignore_index=True)
    both = np.concatenate([left, np.ones((len(left), GAP)), right], 1)
    image = Image.fromarray((both * 255).round().astype(np.uint8))
    image = image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST)
    write_atomic(output, lambda temporary: image.save(temporary, format="PNG"))
    write_csv(output.with_suffix(".csv"), frame)
    print(output)


def main(arguments: list[str]) -> int:
    if len(arguments) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    output = Path(arguments[2]) if len(arguments) == 3 else Path("results/figure7.png")
    try:
        make([Path(argument) for argument in arguments[:2]], output)
    except UsageError as error:
        print(f"figure7: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    protect()
    sys.exit(main(sys.argv[1:]))
