"""Finished runs against each other, on the seeds that they share: differences, their intervals, and tests of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from argmax_vae.errors import UsageError
from argmax_vae.report.drawing import figure_settings, save
from argmax_vae.report.style import style
from argmax_vae.report.sweeps import SAME, aligned, differing, in_words, with_interval
from argmax_vae.runs.directory import NOT_IDENTITY, RunDirectory
from argmax_vae.statistics import Interval, holm, mean_interval, paired_difference, paired_t_p_value, sign_flip_p_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Comparison:
    """A metric of two runs by seed, and what their configurations differ in (dotted key: value of A, value of B)."""

    metric: str
    names: tuple[str, str]
    labels: tuple[str, str]
    estimators: tuple[str, str]
    values: tuple[pd.Series, pd.Series]
    lost: tuple[int, int]
    choices: dict[str, tuple[Any, Any]]

    @property
    def common(self) -> pd.Index:
        return self.values[0].index.intersection(self.values[1].index)

    @property
    def difference(self) -> Interval:
        """A − B over the common seeds, with its 95 % interval."""
        return paired_difference(*self.values)

    @property
    def p_value(self) -> float:
        a, b = (values.loc[self.common] for values in self.values)
        return sign_flip_p_value(a - b)


def compare(a: Path, b: Path, metric: str = "test_bound") -> Comparison:
    """Read two runs.

    Raises:
        UsageError: no finished run, an unknown metric, or no seed that is done in both.
    """
    runs = [RunDirectory(path) for path in (a, b)]
    plains = [run.config() for run in runs]
    values, lost = zip(*(values_by_seed(run, metric) for run in runs), strict=True)
    found = Comparison(
        metric,
        (a.name, b.name),
        (label(plains[0]), label(plains[1])),
        (plains[0]["estimator"]["name"], plains[1]["estimator"]["name"]),
        (values[0], values[1]),
        (lost[0], lost[1]),
        dict(differences(plains[0], plains[1])),
    )
    if found.common.empty:
        raise UsageError(
            f"{a} and {b} have no seed in common that is done: {list(values[0].index)}, {list(values[1].index)}"
        )
    return found


def values_by_seed(run: RunDirectory, metric: str) -> tuple[pd.Series, int]:
    """A metric of a run's finished seeds, and how many seeds have none. Raises UsageError for an unknown metric."""
    seeds = run.seeds()
    numbers = [name for name in seeds.select_dtypes("number").columns if name != "seed"]
    if metric not in numbers:
        raise UsageError(f"--metric {metric}: not among the numbers of {run.path}: {', '.join(numbers)}")
    done = seeds[(seeds["status"] == "done") & seeds[metric].notna()]
    return done.set_index("seed")[metric].astype(float), len(seeds) - len(done)


def compare_all(paths: Sequence[Path], metric: str = "test_bound") -> str:
    """More than two runs as a table, the best first, and how far each is behind it on their common seeds.

    Largest is best for accuracies, smallest for all else. p values are of the paired t test, corrected by Holm's method
    for the number of comparisons. Raises UsageError as `compare` does.
    """
    runs = [RunDirectory(path) for path in paths]
    configs = [run.config() for run in runs]
    keys = differing(configs)
    values = [values_by_seed(run, metric)[0] for run in runs]
    for run, found in zip(runs, values, strict=True):
        if found.empty:
            raise UsageError(f"{run.path}: no seed has a {metric}")
    sign = -1 if "accuracy" in metric else 1
    order = sorted(range(len(runs)), key=lambda index: sign * values[index].mean())
    best, others = order[0], order[1:]
    common = {index: values[index].index.intersection(values[best].index) for index in others}
    behind = {index: paired_difference(values[index], values[best]) for index in others if len(common[index])}
    raw = [
        paired_t_p_value(values[index][common[index]] - values[best][common[index]]) if index in behind else math.nan
        for index in others
    ]
    corrected = dict(zip(others, holm(raw), strict=True))
    rows = []
    for index in order:
        interval = mean_interval(values[index])
        row = {
            "what differs": in_words(configs[index], keys) or SAME,
            metric: with_interval(interval.mean, interval.half_width),
        }
        row["behind the best"] = "best" if index == best else "no common seed"
        if index in behind:
            row["behind the best"] = f"{sign * behind[index].mean:+.2f}" + half_width(behind[index])
        row["p (Holm)"] = "" if math.isnan(corrected.get(index, math.nan)) else f"{corrected[index]:.2g}"
        rows.append({**row, "seeds": str(len(values[index])), "run": runs[index].path.name})
    return aligned(rows)


def half_width(interval: Interval) -> str:
    """The half width of an interval behind its mean; nothing for one seed."""
    return "" if math.isnan(interval.half_width) else f" ± {interval.half_width:.2g}"


def label(config_dict: Mapping[str, Any]) -> str:
    """A few words for a run."""
    model, estimator, objective = (config_dict[section] for section in ("model", "estimator", "objective"))
    return f"{model['latents']} {style(estimator['name']).label}, KL {objective['kl']}"


def differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Keys that decide a run's numbers and have different values in two configurations; – for a key that is absent."""
    for key in sorted({*a, *b}):
        if not prefix and key in (*NOT_IDENTITY, "seeds"):
            continue
        left, right = a.get(key, "–"), b.get(key, "–")
        if isinstance(left, dict) and isinstance(right, dict):
            yield from differences(left, right, f"{prefix}{key}.")
        elif left != right:
            yield f"{prefix}{key}", (left, right)


def counted(seeds: int) -> str:
    """So many seeds, in words."""
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


def text(found: Comparison) -> str:
    """The comparison in a few lines."""
    lines = []
    for letter, name, what, values, lost in zip("AB", found.names, found.labels, found.values, found.lost, strict=True):
        interval = mean_interval(values)
        note = f", {lost} without a value" if lost else ""
        lines.append(f"{letter}  {name}")
        lines.append(
            f"   {what}: {found.metric} {interval.mean:.6g}{half_width(interval)}, {counted(len(values))}{note}"
        )
    difference, number = found.difference, len(found.common)
    if number == 1:
        lines.append(f"A − B = {difference.mean:+.4g} on one paired seed: an interval needs two")
    else:
        lines.append(
            f"A − B = {difference.mean:+.4g}, 95 % interval {difference.low:+.4g} to {difference.high:+.4g}, "
            f"on {number} paired seeds"
        )
        lines.append(f"sign-flip test: p = {found.p_value:.3g} (at least {2.0 ** (1 - number):.3g} with so many seeds)")
    if found.choices:
        lines.append("choices that differ (A | B):")
        lines += [f"   {key}: {left} | {right}" for key, (left, right) in found.choices.items()]
    return "\n".join(lines)


@figure_settings()
def draw(found: Comparison) -> Figure:
    """Both runs' values, a line for each seed (left), and their difference with its interval (right)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
    a, b = (values.loc[found.common] for values in found.values)
    for seed in found.common:
        left.plot([0, 1], [a[seed], b[seed]], color="0.7", linewidth=1)
    for place, values, estimator in ((0, a, found.estimators[0]), (1, b, found.estimators[1])):
        look = style(estimator)
        left.plot([place] * len(values), values, linestyle="", color=look.color, marker=look.marker, markersize=6)
    left.set_xticks(
        [0, 1], [f"{letter}: {words}" for letter, words in zip("AB", found.labels, strict=True)], fontsize=7
    )
    left.set_xlim(-0.4, 1.4)
    left.set_ylabel(found.metric.replace("_", " "))
    right.plot([0] * len(a), a - b, linestyle="", color="0.6", marker="o", markersize=4)
    difference = found.difference
    right.errorbar(0.15, difference.mean, difference.half_width, color="black", marker="o", capsize=4)
    right.axhline(0, color="0.3", linewidth=0.8)
    right.set_xlim(-0.5, 0.6)
    right.set_xticks([])
    right.set_ylabel("A − B")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.ticklabel_format(axis="y", useOffset=False)
    return figure


def write(found: Comparison, path: Path) -> None:
    """Draw the comparison as SVG, atomically. Raises UsageError for another format."""
    if path.suffix != ".svg":
        raise UsageError(f"--output {path}: must end in .svg")
    save(draw(found), path, f"{found.names[0]} against {found.names[1]}")
