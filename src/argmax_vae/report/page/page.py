"""All results as one HTML file that needs no other: tables, curves, generated images and, where given, runs.

A function of the files of record and the files of runs alone: the same files give the same bytes. Tables have the
cells of their Markdown files. Nothing is loaded from anywhere when the page is opened.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from argmax_vae.errors import UsageError
from argmax_vae.files import write_text
from argmax_vae.report import gradients as laboratory
from argmax_vae.report import records, tables
from argmax_vae.report.labels import FIGURES, build, caption, cells, load, named_by_training
from argmax_vae.report.page import charts
from argmax_vae.report.page import runs as page_runs
from argmax_vae.report.page.markup import image, table
from argmax_vae.report.records import TABLES, read, recorded
from argmax_vae.runs.directory import RunDirectory

TITLE = "argmax-vae: results"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
HINT = (
    "Lines are means over seeds, bands their 95 % Student-t intervals at each epoch; the axis leaves out the first "
    "fifth of the epochs. Tables have the epoch that validation chose."
)
USE = (
    "Point at a chart, or focus it and use the arrow keys, to read the values at an epoch; a legend entry hides and "
    "shows its curve, and the axis follows."
)
PICTURES = {
    "figure7": (
        "Figure 7: class-conditional images",
        "A component in each column, the same Gaussian code in each row; an unsupervised run on the left, a "
        "semi-supervised one on the right.",
        "argmax-vae report figure7 --from RUN_UNSUPERVISED RUN_SEMI_SUPERVISED",
    ),
    "figure4": (
        "Figure 4: generated faces",
        "The same code in each row, a combination of attributes in each column.",
        "argmax-vae report figure4 --from RUN...",
    ),
}
"""Pictures of generated images that may lie in the results directory: title, caption, command."""


@dataclass(frozen=True)
class Section:
    """A part of the page: its id, its heading, and its content as HTML."""

    identity: str
    title: str
    content: str


def labelled(caption: str, commands: Sequence[str]) -> str:
    """A caption, its provenance as a paragraph of its own, and the commands that make what it describes."""
    what, separator, origin = caption.partition(" Origin: ")
    provenance = f'<p class="origin">Origin: {escape(origin)}</p>' if separator else ""
    code = escape("\n".join(commands))
    return f'<p>{escape(what)}</p>{provenance}<pre tabindex="0"><code>{code}</code></pre>'


def curves_of(name: str, results: Path, runs: pd.DataFrame) -> str:
    """The charts of a table, or nothing where no curve was recorded. Raises UsageError as ``page_charts.charts``."""
    if not (results / "curves.csv").exists():
        return ""
    curves = read(results / "curves.csv", "make it with: argmax-vae reproduce")
    if name in FIGURES:
        curves = named_by_training(curves, read(results / "runs.csv", ""))
    drawn = [
        charts.render(chart, f"{name}-chart-{number}")
        for number, chart in enumerate(charts.charts(name, curves, runs), start=1)
    ]
    if not drawn:
        return ""
    return f'<p>{HINT} <span class="with-script">{USE}</span></p>\n<div class="charts">{"".join(drawn)}</div>'


def bounds(name: str, results: Path) -> Section:
    """A table of test bounds with its curves. Raises UsageError as :func:`argmax_vae.report.tables.build` does."""
    about, frames = TABLES[name], records.read_inputs(name, results)
    frame = tables.build(name, **frames)
    content = [
        table(tables.cells(about, frame), "Test bounds over seeds", f"{name}-table"),
        labelled(tables.caption(name, frame), about.commands),
        curves_of(name, results, frames["runs"]),
    ]
    return Section(name, about.title, "\n".join(filter(None, content)))


def accuracies(name: str, results: Path) -> Section:
    """A semi-supervised table with its curves. Raises UsageError as :func:`semi_supervised.build` does."""
    runs, paper = load(name, results)
    frame = build(name, runs, paper)
    commands = [f"argmax-vae reproduce {name}", f"argmax-vae report {name}"]
    content = [
        table(cells(frame), "Accuracies and test bounds over seeds", f"{name}-table"),
        labelled(caption(name, frame), commands),
        curves_of(name, results, runs),
    ]
    return Section(name, FIGURES[name], "\n".join(filter(None, content)))


def gradients(name: str, results: Path) -> Section:
    """What the gradient laboratory measured. Raises UsageError as :func:`laboratory.load` does."""
    frame = laboratory.load(results / f"{name}.csv")
    parts = {"Gradient of the logits": "logits", "Gradient of the encoder's weights": "encoder"}
    content = [table(laboratory.cells(frame, target), heading, f"{name}-{target}") for heading, target in parts.items()]
    commands = [f"argmax-vae gradients {name}", f"argmax-vae report {name}"]
    content.append(labelled(laboratory.caption(frame), commands))
    return Section(name, laboratory.FIGURES[name], "\n".join(content))


def pictures(results: Path) -> list[Section]:
    """The pictures of generated images that are there, each with the numbers in the csv file beside it."""
    found = []
    for name, (title, described, command) in PICTURES.items():
        path, numbers = results / f"{name}.png", results / f"{name}.csv"
        if not path.exists():
            continue
        content = [f'<figure class="picture">{image(path, f"{title}. {described}")}</figure>']
        if numbers.exists():
            frame = read(numbers, f"make it with: {command}").rename(columns=lambda column: column.replace("_", " "))
            rows = [{str(key): brief(value) for key, value in row.items()} for row in frame.to_dict("records")]
            content.append(table(rows, "Runs in the picture", f"{name}-table", header=str(frame.columns[0])))
        found.append(Section(name, title, "\n".join([*content, labelled(described, [command])])))
    return found


def brief(value: Any) -> str:
    """A value of a csv file as text; numbers with six digits."""
    if pd.isna(value):
        return tables.MISSING
    return f"{value:.6g}".replace("-", "−") if isinstance(value, float) else str(value)


def readable_runs(runs: Sequence[RunDirectory], default: Mapping[str, Any]) -> Iterator[page_runs.Run]:
    """The runs whose files can be read; of others a line on standard error says why they are left out."""
    for run in runs:
        try:
            yield page_runs.read(run, default)
        except UsageError as error:
            print(f"argmax-vae: left out: {error}", file=sys.stderr)


def sections(results: Path, runs: Sequence[RunDirectory], default: Mapping[str, Any]) -> list[Section]:
    """Every section that there are files for, that of runs first.

    Raises:
        UsageError: there are none, or a file that a section is made of is damaged.
    """
    names = recorded(results)
    readable = list(readable_runs(runs, default))
    found = [Section("runs", "Runs", page_runs.render(readable))] if readable else []
    found += [bounds(name, results) for name in TABLES if name in names]
    found += [accuracies(name, results) for name in FIGURES if name in names]
    found += [gradients(name, results) for name in laboratory.FIGURES if (results / f"{name}.csv").exists()]
    found += pictures(results)
    if not found:
        raise UsageError(
            f"{results}: nothing to show, neither runs.csv with rows of a table nor runs; "
            "make some with: argmax-vae reproduce figure2"
        )
    return found


def render(parts: Sequence[Section]) -> str:
    """The whole page: contents, then the sections."""
    assets = Path(__file__).parent
    styles, script = ((assets / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    contents = "".join(f'<li><a href="#{part.identity}">{escape(part.title)}</a></li>' for part in parts)
    body = "\n".join(
        f'<section id="{part.identity}" aria-labelledby="{part.identity}-title">'
        f'<h2 id="{part.identity}-title">{escape(part.title)}</h2>\n{part.content}\n</section>'
        for part in parts
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{TITLE}</title>
<style>
{styles}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the results</a>
<header>
<h1>{TITLE}</h1>
<button type="button" id="theme" hidden>Dark</button>
<p>Gradient estimators for discrete variational auto-encoders on one objective, with intervals over seeds.
Written by <code>argmax-vae page</code> from the files of record.</p>
<nav aria-label="Contents"><ul>{contents}</ul></nav>
</header>
<main id="content" tabindex="-1">
{body}
</main>
<script>
{script}</script>
</body>
</html>
"""


def write(results: Path, runs: Sequence[RunDirectory], default: Mapping[str, Any], output: Path) -> None:
    """Write the page atomically.

    Args:
        results: directory of the files of record.
        runs: runs to list, of any state.
        default: the configuration that the runs' are compared with.
        output: the file to replace.

    Raises:
        UsageError: nothing to show, a damaged file, or a directory that cannot be written to.
    """
    write_text(output, render(sections(results, runs, default)))
