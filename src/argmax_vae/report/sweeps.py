"""The runs of a directory as a table: their state, what they differ in, and their results."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from argmax_vae.errors import UsageError
from argmax_vae.files import csv_text
from argmax_vae.markup import SYMBOLS, duration, escape, markdown
from argmax_vae.report.style import style
from argmax_vae.runs.directory import NOT_IDENTITY, RunDirectory, flat
from argmax_vae.statistics import mean_interval

FORMATS = ("text", "csv", "md", "tex")
SAME = "all alike"
MEASURES = {
    "bound": ("test_bound", 1, "test bound (nats)"),
    "weighted": ("test_importance_weighted", 1, "importance-weighted (nats)"),
    "accuracy": ("test_accuracy", 100, "accuracy (%)"),
}
SORTS = {"name": False, "bound": False, "weighted": False, "accuracy": True, "epochs": True, "time": True}
"""What runs can be sorted by, and whether the largest comes first."""


def choices(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a run's numbers but its seeds, by dotted key; a schedule is one value, such as `= 0.1`."""
    known = {key: value for key, value in config.items() if key not in (*NOT_IDENTITY, "seeds")}
    estimator = dict(known.get("estimator", {}))
    for key, value in estimator.items():
        if isinstance(value, Mapping):
            rest = ", ".join(f"{name} {each}" for name, each in value.items() if name != "name")
            estimator[key] = f"= {value['value']}" if value["name"] == "constant" else f"{value['name']}, {rest}"
    return dict(flat({**known, "estimator": estimator}))


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The dotted keys in which configurations differ. A key counts among those that have it, but an ε or τ always.

    `seeds` are named where some differ in nothing else.
    """
    values: dict[str, list[Any]] = {}
    for config in configs:
        for key, value in choices(config).items():
            values.setdefault(key, []).append(value)

    def differs(key: str, found: Sequence[Any]) -> bool:
        missing = key.rsplit(".", maxsplit=1)[-1] in SYMBOLS and len(found) < len(configs)
        return missing or any(value != found[0] for value in found[1:])

    found = [key for key, each in values.items() if differs(key, each)]
    words = [(in_words(config, found), str(config.get("seeds"))) for config in configs]
    alike = [text for text, _ in dict.fromkeys(words)]
    found = sorted(found, key=lambda key: not key.startswith("estimator."))
    return found if len(set(alike)) == len(alike) else [*found, "seeds"]


def in_words(config: Mapping[str, Any], keys: Sequence[str]) -> str:
    """What a configuration has at these keys, such as `direct, ε = 0.1, binarization dynamic`."""
    known = {**choices(config), "seeds": ", ".join(map(str, config.get("seeds", ())))}
    words = []
    for key in (key for key in keys if key in known):
        value, last = known[key], key.split(".")[-1]
        if key == "estimator.name":
            words.append(style(str(value)).label)
        elif last in SYMBOLS:
            words.append(f"{SYMBOLS[last]} {value}")
        else:
            words.append(str(value) if last == "name" else f"{last.replace('_', ' ')} {value}")
    return ", ".join(words)


def rows_of_runs(runs: Sequence[RunDirectory]) -> list[dict[str, Any]]:
    """A row for each run: state, what it differs in, means and half widths of 95 % intervals, seeds, epochs, time.

    A run whose files are damaged has its state and the reason alone.
    """
    configs: dict[RunDirectory, dict[str, Any]] = {}
    for run in runs:
        try:
            configs[run] = run.config()
        except UsageError as error:
            print(f"argmax-vae: {error}", file=sys.stderr)
    keys = differing(list(configs.values()))
    return [row_of(run, configs.get(run), keys) for run in runs]


def row_of(run: RunDirectory, config: Mapping[str, Any] | None, keys: Sequence[str]) -> dict[str, Any]:
    """The row of one run; numbers are NaN where it has none."""
    status = run.status
    row: dict[str, Any] = {
        "state": status,
        "what differs": "",
        "seeds": "",
        "epochs": float("nan"),
        "time": float("nan"),
    }
    row |= {name: (float("nan"), float("nan")) for name in MEASURES}
    row |= {"reason": run.reason if status == "failed" else "", "run": run.path.name}
    if config is None:
        return row
    row["what differs"] = in_words(config, keys) or SAME
    row["seeds"], row["epochs"] = str(len(config["seeds"])), config["trainer"]["epochs"]
    if not run.has_ended:
        return row
    try:
        seeds = run.seeds()
    except UsageError as error:
        print(f"argmax-vae: {error}", file=sys.stderr)
        return row
    done = seeds[seeds["status"] == "done"]
    row["seeds"] = str(len(done)) if len(done) == len(seeds) else f"{len(done)} of {len(seeds)}"
    row["time"] = float(seeds["seconds"].iloc[0])
    for name, (column, factor, _) in MEASURES.items():
        if column in done and done[column].notna().any():
            interval = mean_interval(factor * done[column].dropna())
            row[name] = (interval.mean, interval.half_width)
    return row


def sorted_rows(rows: list[dict[str, Any]], by: str) -> list[dict[str, Any]]:
    """Rows in the order of a column of SORTS, those without a number last. Raises UsageError for another column."""
    if by not in SORTS:
        raise UsageError(f"--sort {by}: unknown; allowed: {', '.join(SORTS)}")
    if by == "name":
        return rows

    def key(row: Mapping[str, Any]) -> tuple[bool, float]:
        value = row[by][0] if by in MEASURES else row[by]
        return math.isnan(value), -value if SORTS[by] else value

    return sorted(rows, key=key)


def cells(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The rows as people read them; measures that no run has are left out."""
    shown = {
        name: heading for name, (_, _, heading) in MEASURES.items() if not all(math.isnan(row[name][0]) for row in rows)
    }
    found = []
    for row in rows:
        cell = {"state": row["state"], "what differs": row["what differs"]}
        cell |= {heading: with_interval(*row[name]) for name, heading in shown.items()}
        cell |= {
            "seeds": row["seeds"],
            "epochs": number(row["epochs"]),
            "time": duration(row["time"]),
            "run": row["run"],
        }
        cell["run"] += f" {row['reason']}" if row["reason"] else ""
        found.append(cell)
    return found


LARGEST_IN_FULL = 1e6
"""What is larger is written with an exponent."""


def with_interval(mean: float, half_width: float) -> str:
    """A mean with the half width of its interval, which one seed has not."""
    if math.isnan(mean):
        return ""
    form = ".2f" if abs(mean) < LARGEST_IN_FULL else ".3g"
    return f"{mean:{form}}" if math.isnan(half_width) else f"{mean:{form}} ± {half_width:{form}}"


def number(value: float) -> str:
    """A whole number, or nothing."""
    return "" if math.isnan(value) else f"{value:g}"


def table(rows: Sequence[Mapping[str, Any]], format: str) -> str:
    """The runs as text in aligned columns, csv in full precision, Markdown or LaTeX. Raises UsageError for another."""
    if format == "csv":
        return csv(rows)
    shown = cells(rows)
    heads = list(shown[0])
    if format == "md":
        lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
        return "\n".join([*lines, *(f"| {' | '.join(map(markdown, row.values()))} |" for row in shown)]) + "\n"
    if format == "tex":
        lines = [
            rf"\begin{{tabular}}{{{'l' * len(heads)}}}",
            r"\toprule",
            f"{' & '.join(map(escape, heads))} \\\\",
            r"\midrule",
        ]
        lines += [f"{' & '.join(map(escape, row.values()))} \\\\" for row in shown]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"
    if format != "text":
        raise UsageError(f"--format {format}: unknown; allowed: {', '.join(FORMATS)}")
    return aligned(shown) + "\n"


def aligned(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows of text as columns of equal width, under their names."""
    heads = list(rows[0])
    widths = {head: max(len(head), *(len(row[head]) for row in rows)) for head in heads}
    lines = ["  ".join(head.ljust(widths[head]) for head in heads)]
    lines += ["  ".join(row[head].ljust(widths[head]) for head in heads) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The runs as csv: means and half widths in columns of their own."""
    import pandas as pd

    flat_rows = []
    for row in rows:
        numbers = {name: value for name, value in row.items() if name not in MEASURES}
        for name, (column, _, _) in MEASURES.items():
            numbers |= {column: row[name][0], f"{column}_half_width": row[name][1]}
        flat_rows.append(numbers)
    return csv_text(pd.DataFrame(flat_rows))
