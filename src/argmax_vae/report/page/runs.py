"""The runs of a directory for the page: numbers, curves, what they choose differently, origin, generated images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from argmax_vae.report import sweeps
from argmax_vae.report.page.charts import METRICS, Chart, line, shown
from argmax_vae.report.page.charts import render as render_chart
from argmax_vae.report.page.markup import definitions, image, table
from argmax_vae.report.style import LINES, Style, rank, style
from argmax_vae.runs.directory import RunDirectory, flat
from argmax_vae.statistics import mean_interval

NOT_COMPARED = ("paths", "tracker", "laboratory", "table", "protocol", "chosen")
"""Sections of a configuration that say nothing about how a run was trained."""

SAMPLES = "samples.png"
ABOUT = (
    "Measures are means over the seeds that are done, ± the half width of the 95 % Student-t interval. Choices are "
    "those in which a run differs from the default configuration. The table has the final evaluation of the best "
    "networks of each seed; curves end with those of the last epoch."
)
SEARCH = (
    '<p class="with-script"><label>Show runs with <input type="search" id="runs-filter" autocomplete="off"></label> '
    "A heading sorts.</p>"
)
UNFOLDED = 4
"""Up to so many runs are shown unfolded."""
OVERLAID = 12
"""The most runs of one chart, those that are best in its measure at their last evaluation."""
BETTER = {"test_bound": 1, "test_importance_weighted": 1, "test_accuracy": -1}
"""1 where less is better, −1 where more is."""


@dataclass(frozen=True)
class Run:
    """What the page says of a run: row of the table, measures, choices and origin as text by their names, curves.

    `config`: its configuration; `history`: a row for each evaluation and seed that did not diverge.
    """

    name: str
    row: dict[str, str]
    metrics: dict[str, str]
    choices: dict[str, str]
    origin: dict[str, str]
    reason: str
    samples: Path | None
    config: Mapping[str, Any]
    history: pd.DataFrame


def trained_samples(config_dict: Mapping[str, Any]) -> int:
    """M of the importance-weighted bound that a run trains and follows in its curves; 0 without one."""
    trained = config_dict.get("objective", {}).get("kl") == "importance_weighted"
    return int(config_dict.get("estimator", {}).get("samples", 1)) if trained else 0


def weighted_cell(config_dict: Mapping[str, Any], measured: Mapping[str, str]) -> str:
    """The final importance-weighted bound, and of how many samples it is."""
    if "test_importance_weighted" not in measured:
        return "–"
    samples = config_dict.get("trainer", {}).get("importance_samples") or trained_samples(config_dict)
    return f"{measured['test_importance_weighted']} (M = {samples})"


def choices(config_dict: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, str]:
    """What a run's configuration has other than the default one, by dotted key; what it lacks is left out."""
    known = dict(flat(default))
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in flat(config_dict)
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
    config_dict, status = run.config(), run.status
    seeds = run.seeds() if run.has_ended else None
    measured = metrics(seeds) if seeds is not None else {}
    done = seeds[seeds["status"] == "done"]["seed"] if seeds is not None else pd.Series(config_dict.get("seeds", ()))
    finished = len(done) if seeds is not None else 0
    history = pd.DataFrame(columns=["epoch", "seed"])
    if (run.path / "metrics.csv").exists():
        history = run.table("metrics.csv", ("epoch", "seed"))
        history = history[history["seed"].isin(done)]
    row = {
        "test bound": measured.get("test_bound", "–"),
        "importance-weighted": weighted_cell(config_dict, measured),
        "status": status,
        "seeds done": f"{finished} of {len(config_dict.get('seeds', ()))}",
        "epochs": str(config_dict.get("trainer", {}).get("epochs", "–")),
        "table": str(config_dict.get("table") or "–"),
        "protocol": str(config_dict.get("protocol") or "–"),
        "run": run.path.name,
    }
    samples = run.path / SAMPLES
    return Run(
        run.path.name,
        row,
        measured,
        choices(config_dict, default),
        origin(run, seeds),
        run.reason if status == "failed" else "",
        samples if status == "done" and samples.exists() else None,
        config_dict,
        history,
    )


def in_words(found: Sequence[Run]) -> list[str]:
    """What each run differs in from the others; of those whose words are the same, the name too."""
    keys = sweeps.differing([run.config for run in found])
    words = [sweeps.in_words(run.config, keys) for run in found]
    return [
        ", ".join(filter(None, (each, run.name if words.count(each) > 1 or not each else "")))
        for run, each in zip(found, words, strict=True)
    ]


def charts_of(found: Sequence[Run], words: Sequence[str]) -> list[Chart]:
    """Curves of runs on the same data over each other, a chart for each measure.

    Bounds of several samples are drawn together for one number of samples M. Runs of one estimator have its colour, and
    dashes of their own.
    """
    groups: dict[tuple[str, str, int], list[tuple[Run, str]]] = {}
    for run, word in zip(found, words, strict=True):
        data = str(run.config.get("data", {}).get("name", ""))
        for metric in METRICS:
            if metric in run.history and run.history[metric].notna().any():
                samples = trained_samples(run.config) if metric == "test_importance_weighted" else 0
                groups.setdefault((data, metric, samples), []).append((run, word))
    sets, metrics_in_order = list(dict.fromkeys(data for data, _, _ in groups)), list(METRICS)
    drawn = []
    for data, metric, samples in sorted(
        groups, key=lambda group: (sets.index(group[0]), metrics_in_order.index(group[1]), group[2])
    ):
        able, (measure, factor) = groups[data, metric, samples], METRICS[metric]
        best = sorted(able, key=lambda pair: BETTER[metric] * last_mean(pair[0].history, metric))[:OVERLAID]
        lines = [
            line(estimator, run.history.dropna(subset=metric), metric, factor, look)
            for run, estimator, look in looks(best)
        ]
        title = f"{data}, M = {samples}" if samples else data
        title += f", the best {len(lines)} of {len(able)}" if len(lines) < len(able) else ""
        drawn.append(Chart(title, measure, tuple(lines)))
    return drawn


def last_mean(history: pd.DataFrame, metric: str) -> float:
    """The mean over seeds of a metric at the last epoch at which it has a value."""
    rows = history.dropna(subset=metric)
    return float(rows.loc[rows["epoch"] == rows["epoch"].max(), metric].mean())


def looks(found: Sequence[tuple[Run, str]]) -> list[tuple[Run, str, Style]]:
    """Runs with their estimators and looks, in the fixed order of estimators."""
    named = [(run, str(run.config.get("estimator", {}).get("name", "")), word) for run, word in found]
    drawn: dict[str, int] = {}
    result = []
    for run, estimator, word in sorted(named, key=lambda each: (rank(each[1]), each[2])):
        own = style(estimator)
        number = drawn.setdefault(estimator, 0)
        drawn[estimator] += 1
        others = [own.line, *(each for each in LINES if each != own.line)]
        result.append((run, estimator, own._replace(label=word, line=others[number % len(others)])))
    return result


def render(found: Sequence[Run]) -> str:
    """A table of the runs and their curves, then for each of them what is to be known, folded where there are many."""
    links = {run.name: f"run-{number}" for number, run in enumerate(found, start=1)}
    words = in_words(found)
    told = {column for run in found for column, value in run.row.items() if value != "–" or column == "test bound"}
    rows = [
        {"what differs": word, **{column: value for column, value in run.row.items() if column in told}}
        for word, run in zip(words, found, strict=True)
    ]
    drawn = [render_chart(chart, f"runs-chart-{number}") for number, chart in enumerate(charts_of(found, words), 1)]
    blocks = [
        f"<p>{ABOUT}</p>",
        SEARCH,
        table(rows, "State and test bounds (nats)", "runs-table", header="what differs", links=links, linked="run"),
        f'<div class="charts">{"".join(drawn)}</div>' if drawn else "",
    ]
    unfolded = " open" if len(found) <= UNFOLDED else ""
    for run, word in zip(found, words, strict=True):
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
                ("Origin", {"run": run.name, **run.origin}),
            )
            if values
        ]
        bound = run.row["test bound"]
        state = run.row["status"] if bound == "–" else f"{run.row['status']}, {bound}"
        blocks.append(
            f'<details id="{links[run.name]}"{unfolded}><summary>{escape(word)} <span class="status">{state}'
            f'</span></summary><div class="run">{picture}<div>{"".join(parts)}</div></div></details>'
        )
    return "\n".join(blocks)
