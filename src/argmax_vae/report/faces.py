"""What a classifier found on generated faces, the paper's Figure 4: its table, from figure4.csv alone.

`argmax-vae report figure4 --from RUN` measures and draws (`commands.faces`).
"""

from __future__ import annotations

from pathlib import Path

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
    *("run", "estimator", "labels", "epochs", "seed", "attribute", "generated_with_attribute", "classifier_on_real"),
    *("more_frequent_value", "test_accuracy", "test_bound", "images_per_second", "device", "commit"),
)


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


def render(frame: pd.DataFrame) -> str:
    """Means over seeds, with the half width of the 95 % interval, as Markdown."""
    columns = {"generated_with_attribute": 3, "test_accuracy": 3, "test_bound": 1}
    heads = ["estimator", "labels", "epochs", "attribute", "shown when asked for", "accuracy on test", "test bound"]
    heads += ["images/s", "seeds"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    groups = frame.groupby(["run", "estimator", "labels", "epochs", "attribute"], sort=False)
    for key, cell in groups:
        _, estimator, labels, epochs, attribute = map(str, key)
        values = []
        for column, digits in columns.items():
            interval = mean_interval(cell[column])
            half = f" ± {interval.half_width:.{digits}f}" if len(cell) > 1 else ""
            values.append(f"{interval.mean:.{digits}f}{half}")
        speed = f"{cell['images_per_second'].mean():.0f}"
        cells = [style(estimator).label, labels, epochs, attribute, *values, speed, str(len(cell))]
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
            "Shown when asked for: how often a classifier that was trained on real images finds, in generated ones, "
            "the attribute that was set, or does not find the one that was not (0.5: as often as by chance); ± is the "
            f"half width of the 95 % interval over seeds. Its accuracy on real test images: {known}; of always "
            f"saying the more frequent value: {always}. Labelled images have every combination equally often. "
            "Accuracy and bound are those of the networks with the best validation bound. Test bound: squared error of "
            "pixels scaled to [−1, 1] plus KL in nats per image. images/s: of training, with whatever ran beside it. "
            f"Origin: {origin}.",
            "",
        ]
    )
