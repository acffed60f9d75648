"""`argmax-vae report figure4`: generated faces scored by a classifier of their own, and the paper's Figures 4 and 8.

A classifier that no run has seen is trained on the real training images. For every run and seed it then looks at images
that were generated with each combination of the attributes and the same Gaussian codes, and counts how often it finds
the attribute that was asked for. Writes figure4.csv (a row per run, seed and attribute), figure4.md (means with
intervals), figure4.png (the first seed of every run: a code in each row, a combination in each column) and figure8.png
(more rows of the first run).
"""

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn

from argmax_vae.commands import judge
from argmax_vae.commands.evaluate import load_best
from argmax_vae.config.stored import config_of_dict
from argmax_vae.data.images import Dataset
from argmax_vae.errors import UsageError, require_count
from argmax_vae.files import require_writable, write_atomic, write_csv
from argmax_vae.report import faces as report
from argmax_vae.report.style import style
from argmax_vae.runs.directory import RunDirectory
from argmax_vae.runs.provenance import commits
from argmax_vae.training.attribute_vae import AttributeVAE
from argmax_vae.training.build import build
from argmax_vae.training.samples import class_conditional, grid

ROWS = {"figure4": 8, "figure8": 24}
"""The codes, one a row, of the paper's figures."""
PANELS = 4
"""How many runs stand beside each other, at most."""


def scores(
    path: Path, network: nn.Module, module: AttributeVAE, dataset: Dataset, real: list[float], codes: int
) -> list[dict[str, Any]]:
    """Rows for every finished seed and attribute of a run."""
    run, names = RunDirectory(path), module.attributes
    seeds = run.seeds()
    config_dict = run.config()
    rows = []
    finished = run.finished_seeds()
    for position, seed in enumerate(module.seeds):
        if seed not in finished:
            continue
        final = seeds[seeds["seed"] == seed].iloc[0]
        judgements = judge.judgements(network, module, dataset, position, codes)
        for name, on_real, shares in zip(names, real, judgements, strict=True):
            rows.append(
                {
                    "run": run.path.name,
                    "estimator": config_dict["estimator"]["name"],
                    "labels": config_dict["supervision"]["labels"],
                    "labelled_classes": module.supervision.labelled_classes,
                    "gaussian": module.mixture.gaussian,
                    "component_bias": module.mixture.component_bias,
                    "epochs": final["epochs"],
                    "seed": seed,
                    "attribute": name,
                    **shares,
                    "classifier_on_real": on_real,
                    "test_accuracy": final[f"test_accuracy_{name}"],
                    "test_bound": final["test_bound"],
                    "images_per_second": final["steps_per_second"]
                    * config_dict["trainer"]["batch"]
                    * len(module.seeds),
                    "device": final["device"],
                    "commit": commits(run.provenance()),
                }
            )
    return rows


@torch.no_grad()
def faces(module: AttributeVAE, dataset: Dataset, codes: int) -> np.ndarray:
    """Generated faces of a run's first seed in one picture: a code in each row, all combinations."""
    return grid(class_conditional(judge.best_networks(module), module.seeds[0], 0, codes), dataset.shape)


def title(module: AttributeVAE) -> str:
    """What a run is called above its faces."""
    labels = f"{module.supervision.labels:,} labels"
    if module.supervision.labelled_classes != "balanced":
        labels += f", {module.supervision.labelled_classes}"
    networks = f"c = {module.mixture.gaussian}" + (", component bias" if module.mixture.component_bias else "")
    return "\n".join([style(module.estimator.config.name).label, labels, networks])


def draw(grids: list[tuple[str, np.ndarray]], attributes: list[str]) -> Figure:
    """A panel for each run, titles and grids, at most PANELS in a row, with the attributes that are set below."""
    combinations = [
        "\n".join(name for name, there in zip(attributes, row, strict=True) if there) or "none"
        for row in itertools.product((False, True), repeat=len(attributes))
    ]
    columns = min(len(grids), PANELS)
    rows = -(-len(grids) // columns)
    width = 0.45 * len(combinations)
    height = width * grids[0][1].shape[0] / grids[0][1].shape[1] + 1.8
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained", dpi=150)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(grids) :]:
        axes.set_axis_off()
    for axes, (above, picture) in zip(panels[: len(grids)], grids, strict=True):
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(above)
        step = picture.shape[1] / len(combinations)
        axes.set_xticks([(index + 0.5) * step for index in range(len(combinations))], combinations, rotation=90)
        axes.set_yticks([])
        axes.tick_params(length=0, labelsize=7)
        axes.spines[:].set_visible(False)
    return figure


def load(paths: list[Path]) -> list[tuple[Path, AttributeVAE, Dataset]]:
    """The best networks of finished runs, and their data.

    Raises UsageError for another model, a run that is given twice, and attributes or a shape other than the first's.
    """
    datasets: dict[str, Dataset] = {}
    loaded: list[tuple[Path, AttributeVAE, Dataset]] = []
    for path in paths:
        config = config_of_dict(RunDirectory(path).config(), RunDirectory(path).provenance())
        if str(config.data) not in datasets:
            datasets[str(config.data)] = config.data.load(Path(config.paths.data))
        dataset = datasets[str(config.data)]
        module = build(config, dataset)
        if not isinstance(module, AttributeVAE) or not module.attributes:
            raise UsageError(f"{path} is no run of model=attributes on a data set with attributes")
        if path in [other for other, *_ in loaded]:
            raise UsageError(f"{path} is given twice")
        first = loaded[0][1] if loaded else module
        if (module.attributes, module.networks.shape) != (first.attributes, first.networks.shape):
            raise UsageError(
                f"{path} has the attributes {', '.join(module.attributes)} and the shape {module.networks.shape}, "
                f"the first run {', '.join(first.attributes)} and {first.networks.shape}: they must be the same"
            )
        load_best(RunDirectory(path), module)
        RunDirectory(path).finished_seeds()
        loaded.append((path, module, dataset))
    return loaded


def write_faces(runs: list[Path], results: Path, codes: int = 256, classifier_epochs: int = 5) -> list[Path]:
    """Score the runs, write the tables and pictures, and print the table; returns the files.

    `codes`: Gaussian codes for each combination. Raises UsageError.
    """
    require_count("--codes", codes)
    require_count("--classifier-epochs", classifier_epochs)
    require_writable(results)
    loaded = load(runs)
    _, first, dataset = loaded[0]
    network = judge.classifier(dataset, len(first.attributes), classifier_epochs)
    real = judge.accuracy(network, dataset.test, dataset.shape)
    frame = pd.DataFrame(
        [row for path, module, _ in loaded for row in scores(path, network, module, dataset, real, codes)]
    )
    shares = dict(zip(first.attributes, judge.most_frequent(dataset.test, len(first.attributes)), strict=True))
    frame.insert(list(frame).index("classifier_on_real") + 1, "more_frequent_value", frame["attribute"].map(shares))
    grids = [(title(module), faces(module, dataset, ROWS["figure4"])) for _, module, _ in loaded]
    more = [(grids[0][0], faces(first, dataset, ROWS["figure8"]))]
    written = [results / name for name in ("figure4.csv", "figure4.png", "figure8.png")]
    write_csv(written[0], frame)
    write_atomic(written[1], partial(draw(grids, first.attributes).savefig, format="png"))
    write_atomic(written[2], partial(draw(more, first.attributes).savefig, format="png"))
    print(report.rendered("figure4", results, "md"))
    return [*written, *report.write("figure4", results)]
