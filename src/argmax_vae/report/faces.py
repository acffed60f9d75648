"""What a classifier found on generated faces, the paper's Figure 4: its table, from figure4.csv alone.

`argmax-vae report figure4 --from RUN` measures and draws (`commands.faces`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from argmax_vae.errors import UsageError
from argmax_vae.files import csv_text, write_text
from argmax_vae.markup import markdown
from argmax_vae.report.changes import changed_lines
from argmax_vae.report.records import read, require
from argmax_vae.report.style import style
from argmax_vae.statistics import mean_interval

FIGURE = "figure4"
COMMAND = "argmax-vae report figure4 --from RUN"
COLUMNS = (
    *("run", "estimator", "labels", "labelled_classes", "gaussian", "component_bias", "epochs", "seed", "attribute"),
    *("generated_with_attribute", "centred_with_attribute", "reconstructed_with_attribute", "component_with_attribute"),
    *("classifier_on_real", "more_frequent_value", "test_accuracy", "test_bound", "images_per_second"),
    *("device", "commit"),
)
CHOICES = {
    "estimator": "estimator",
    "labels": "labels",
    "labelled_classes": "labelled classes",
    "gaussian": "c",
    "component_bias": "component bias",
    "epochs": "epochs",
    "attribute": "attribute",
}
"""What tells rows apart, with the heads of the table."""
MEANS = {
    "generated_with_attribute": ("shown when asked for", 3),
    "centred_with_attribute": ("around the component's mean", 3),
    "reconstructed_with_attribute": ("in reconstructions", 3),
    "component_with_attribute": ("in the component's images", 3),
    "test_accuracy": ("accuracy on test", 3),
    "test_bound": ("test bound", 1),
}
"""What is averaged over seeds, with the heads of the table and the digits."""


def load(name: str, results: Path) -> pd.DataFrame:
    """The rows, one for each run, seed and attribute. Raises UsageError when the file is missing or lacks a column."""
    frame = read(results / f"{name}.csv", f"make it with: {COMMAND}")
    require(frame, COLUMNS, f"{name}.csv")
    return frame


def rendered(name: str, results: Path, format: str) -> str:
    """The table as md, or the rows as csv. Raises UsageError as `load`, and for tex."""
    if format == "tex":
        raise UsageError(f"report {name}: --format={format} must be one of md, csv")
    frame = load(name, results)
    return csv_text(frame) if format == "csv" else render(frame)


def write(name: str, results: Path) -> list[Path]:
    """Write the table beside its rows. Raises UsageError as `load`."""
    path = results / f"{name}.md"
    write_text(path, rendered(name, results, "md"))
    return [path]


def check(name: str, results: Path) -> list[str]:
    """A line for each in which the table differs from what its rows give now. Raises UsageError as `load`."""
    return changed_lines(results / f"{name}.md", rendered(name, results, "md"))


def _word(value: Any) -> str:
    return ("no", "yes")[int(value)] if isinstance(value, bool | np.bool_) else str(value)


def render(frame: pd.DataFrame) -> str:
    """Means over seeds, with the half width of the 95 % interval, as Markdown."""
    heads = [*CHOICES.values(), *(head for head, _ in MEANS.values()), "images/s", "seeds"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for (_, estimator, *choices), cell in frame.groupby(["run", *CHOICES], sort=False):
        cells = [style(str(estimator)).label, *map(_word, choices)]
        for column, (_, digits) in MEANS.items():
            interval = mean_interval(cell[column])
            half = f" ± {interval.half_width:.{digits}f}" if len(cell) > 1 else ""
            cells.append(f"{interval.mean:.{digits}f}{half}")
        cells += [f"{cell['images_per_second'].mean():.0f}", str(len(cell))]
        lines.append("| " + " | ".join(map(markdown, cells)) + " |")
    real = frame.groupby("attribute", sort=False)["classifier_on_real"].first()
    known = ", ".join(f"{name} {share:.3f}" for name, share in real.items())
    frequent = frame.groupby("attribute", sort=False)["more_frequent_value"].first()
    always = ", ".join(f"{name} {share:.3f}" for name, share in frequent.items())
    origin = f"{', '.join(frame['device'].unique())}, commit {', '.join(frame['commit'].unique())}"
    return "\n".join(
        [
            "# Figure 4: attributes of generated faces",
            "",
            "![Generated faces: a combination of attributes in each column, a Gaussian code in each row](figure4.png)",
            "",
            *lines,
            "",
            "Shown when asked for: how often a classifier that was trained on real images finds, in images generated "
            "from Gaussian codes of N(0, 1), the attribute that was set, or does not find the one that was not (0.5: "
            "as often as by chance); ± is the half width of the 95 % interval over seeds. The next three columns tell "
            "what stops it. Around the component's mean: the same with the codes moved to the mean of the Gaussians of "
            "the training images that the arg max gives to the component. In reconstructions: of test images, decoded "
            "from their own combination. In the component's images: of the test images that the arg max gives to a "
            "component, how many have its attribute; generated images that were like them would show it as often. The "
            f"classifier's accuracy on real test images: {known}; of always saying the more frequent value: {always}. "
            "Labels are of all combinations equally often (balanced) or as often as these are (stratified); c is the "
            "dimension of the Gaussians; with component bias the decoder has a bias for each component, which the "
            "paper's has not. "
            "Accuracy and bound are those of the networks with the best validation bound. Test bound: squared error of "
            "pixels scaled to [−1, 1] plus KL in nats per image. images/s: of training, with whatever ran beside it. "
            f"Origin: {origin}.",
            "",
        ]
    )
