"""The runs of a directory for the page: their numbers, what they choose differently, their origin, generated images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from argmax_vae.report.page.charts import shown
from argmax_vae.report.page.markup import definitions, image, table
from argmax_vae.runs.directory import RunDirectory, flat
from argmax_vae.statistics import mean_interval

NOT_COMPARED = ("paths", "tracker", "laboratory", "table", "protocol", "chosen")
"""Sections of a configuration that say nothing about how a run was trained."""

SAMPLES = "samples.png"
ABOUT = (
    "Measures are means over the seeds that are done, ± the half width of the 95 % Student-t interval. Choices are "
    "those in which a run differs from the default configuration."
)


@dataclass(frozen=True)
class Run:
    """What the page says of a run, all of it text: row of the table, measures, choices and origin by their names."""

    name: str
    row: dict[str, str]
    metrics: dict[str, str]
    choices: dict[str, str]
    origin: dict[str, str]
    reason: str
    samples: Path | None


def choices(plain: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, str]:
    """What a run's configuration has other than the default one, by dotted key; what it lacks is left out."""
    known = dict(flat(default))
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in flat(plain)
        if key.split(".")[0] not in NOT_COMPARED and (key not in known or known[key] != value)
    }


def metrics(seeds: pd.DataFrame) -> dict[str, str]:
    """The mean over seeds that are done, with the half width of its 95 % interval, of every test measure."""
    done = seeds[seeds["status"] == "done"]
    found = {}
    for column in (name for name in map(str, done.select_dtypes("number")) if name.startswith("test_")):
        values = done[column][np.isfinite(done[column])]
        if len(values):
            factor = 100 if column.endswith("accuracy") else 1
            found[f"{column} (%)" if factor == 100 else column] = shown(mean_interval(factor * values))
    return found


def distinct(seeds: pd.DataFrame | None, column: str) -> str:
    """The texts of a column of seeds.csv, nothing where there are none."""
    return ", ".join(sorted(set(seeds[column].dropna().astype(str)))) if seeds is not None and column in seeds else ""


def origin(run: RunDirectory, seeds: pd.DataFrame | None) -> dict[str, str]:
    """Commit, versions and device of a run, and which run it went on from."""
    if not (run.path / "provenance.json").exists():
        return {}
    stored = run.provenance()

    def commit(of: Mapping[str, Any]) -> str:
        return f"{of.get('commit') or 'unknown'}{' with uncommitted changes' if of.get('dirty') else ''}"

    packages = ", ".join(f"{name} {number}" for name, number in stored.get("packages", {}).items())
    found = {"commit": commit(stored), "argmax-vae": stored.get("version", ""), "python": stored.get("python", "")}
    found["packages"] = packages
    found["device"] = distinct(seeds, "device")
    if before := stored.get("continues"):
        found["goes on from"] = f"{before.get('run', '')}, commit {commit(before)}"
    return {name: str(text) for name, text in found.items() if text}


def read(run: RunDirectory, default: Mapping[str, Any]) -> Run:
    """Read a run's files. Raises UsageError when one of them is damaged."""
    plain, status = run.config(), run.status
    seeds = run.seeds() if run.has_ended else None
    measured = metrics(seeds) if seeds is not None else {}
    finished = (seeds["status"] == "done").sum() if seeds is not None else 0
    row = {
        "run": run.path.name,
        "status": status,
        "seeds done": f"{finished} of {len(plain.get('seeds', ()))}",
        "epochs": str(plain.get("trainer", {}).get("epochs", "–")),
        "test bound": measured.get("test_bound", "–"),
        "schedule": distinct(seeds, "schedule") or "–",
        "table": str(plain.get("table") or "–"),
        "protocol": str(plain.get("protocol") or "–"),
    }
    samples = run.path / SAMPLES
    return Run(
        run.path.name,
        row,
        measured,
        choices(plain, default),
        origin(run, seeds),
        run.reason if status == "failed" else "",
        samples if status == "done" and samples.exists() else None,
    )


def render(found: Sequence[Run]) -> str:
    """A table of the runs, then for each of them what is to be known, folded."""
    links = {run.name: f"run-{number}" for number, run in enumerate(found, start=1)}
    blocks = [
        f"<p>{ABOUT}</p>",
        table([run.row for run in found], "State and test bound", "runs-table", header="run", links=links),
    ]
    for run in found:
        picture = (
            f'<figure class="sample-grid">{image(run.samples, f"Images generated by {run.name}")}'
            "<figcaption>images of random codes</figcaption></figure>"
            if run.samples
            else ""
        )
        parts = [f"<p>{escape(run.reason)}</p>"] if run.reason else []
        parts += [
            f"<h3>{heading}</h3>{definitions(values)}"
            for heading, values in (
                ("Test measures", run.metrics),
                ("Choices other than the default", run.choices),
                ("Origin", run.origin),
            )
            if values
        ]
        blocks.append(
            f'<details id="{links[run.name]}"><summary>{escape(run.name)} <span class="status">{run.row["status"]}'
            f'</span></summary><div class="run">{picture}<div>{"".join(parts)}</div></div></details>'
        )
    return "\n".join(blocks)
