"""`argmax-vae reproduce demo`: trains the registry's estimators on the 8×8 digits, prints and draws the comparison."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import image
from matplotlib.figure import Figure

from argmax_vae.commands.bench import applicable
from argmax_vae.commands.sweep import launch
from argmax_vae.config.compose import cells
from argmax_vae.errors import DONE, UsageError
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.files import write_atomic
from argmax_vae.report.drawing import Dot, curve_with_band, dots_with_intervals
from argmax_vae.report.style import FAMILIES, style
from argmax_vae.statistics import mean_interval

LEFT_OUT = (
    "decoupled_straight_through",
    "gapped_straight_through",
    "zgr",
    "double_control_variates",
    "rodeo",
    "nvil",
    "arsm",
    "disarm_categorical",
    "unordered_set",
    "sum_and_sample",
)
"""Estimators that are too much like a shown one to wait for."""
SAMPLED = ("direct", "gumbel_softmax")
"""Estimators whose samples are drawn, of those that there are."""


def run_demo(overrides: list[str], dry_run: bool = False, train_only: bool = False) -> int:
    """Train every estimator that fits, or those that are given, then print and draw; returns the exit code.

    Raises UsageError, also when an estimator would have more than one run.
    """
    chosen = with_estimators(overrides)
    found: dict[str, Path] = {}
    for cell in cells("demo", chosen):
        name = cell.config.estimator.name
        if name in found:
            raise UsageError(f"the demo compares one run of each estimator, and these overrides select more of {name}")
        found[name] = cell.run.path
        latents, results = cell.config.model.latents, Path(cell.config.paths.results)
    code = launch("demo", chosen, multirun=True, dry_run=dry_run)
    if code != DONE or dry_run or train_only:
        return code
    print(table(found))
    target = results / "demo.png"
    write_atomic(target, partial(draw(found, latents).savefig, format="png", dpi=150))
    print(f"\ncurves and samples: {target}")
    return DONE


def with_estimators(overrides: list[str]) -> list[str]:
    """The overrides behind one for the estimators that fit the latents, unless estimators are given."""
    latents = {cell.config.model.latents for cell in cells("demo", overrides)}
    if any(override.startswith("estimator=") for override in overrides):
        return overrides
    names = [name for name in ESTIMATORS if name not in LEFT_OUT and all(applicable(name, each) for each in latents)]
    return [f"estimator={','.join(names)}", *overrides]


def table(found: dict[str, Path]) -> str:
    """Test bound and its parts, mean ± half width of the 95 % Student-t interval over seeds."""
    width = max(len(style(name).label) for name in found)
    heading = (
        f"{'estimator':{width}} {'test bound (nats)':>20} {'KL':>6} {'codes in use':>13} {'seeds':>6} {'seconds':>8}"
    )
    lines = [heading]
    for name, path in found.items():
        rows = pd.read_csv(path / "seeds.csv")
        bound = mean_interval(rows["test_bound"])
        lines.append(
            f"{style(name).label:{width}} {bound.mean:11.2f} ± {bound.half_width:6.2f} {rows['test_kl'].mean():6.2f} "
            f"{rows['test_codes_in_use'].mean():13.2f} {len(rows):6d} {rows['seconds'].iloc[0]:8.1f}"
        )
    return "\n".join(lines)


def draw(found: dict[str, Path], latents: str) -> Figure:
    """Curves of each family beside the exact gradient's, test bounds with intervals, and samples of a few."""
    families: dict[str, list[str]] = {}
    for name in found:
        families.setdefault(style(name).family or "others", []).append(name)
    reference = families.pop("exact", [])
    panels = list((families or {"exact": reference}).items())
    shown = [name for name in SAMPLED if name in found] or list(found)[:1]
    figure = Figure(figsize=(13, 4.2 + max(3.4, 0.26 * len(found))), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[4.2, max(3.4, 0.26 * len(found))])
    curves(parts[0], [(family, [*reference, *names]) for family, names in panels], found, latents)
    below: Any = parts[1].subfigures(1, 2, width_ratios=[1.1, 1])
    axes = below[0].subplots()
    rows = {name: mean_interval(pd.read_csv(path / "seeds.csv")["test_bound"].dropna()) for name, path in found.items()}
    best_first = sorted(rows, key=lambda name: rows[name].mean)
    dots_with_intervals(
        axes,
        [Dot(style(n).label, rows[n].mean, rows[n].half_width, math.nan, style(n)) for n in best_first],
    )
    axes.set(xlabel="test bound (nats), lower is better; mean and 95 % interval over seeds")
    grids = below[1].subplots(len(shown), 1, squeeze=False)[:, 0]
    for grid, name in zip(grids, shown, strict=True):
        grid.imshow(image.imread(found[name] / "samples.png"), cmap="gray", interpolation="nearest")
        grid.set_title(f"{style(name).label}: images of random codes", fontsize=9, loc="left")
        grid.axis("off")
    return figure


def curves(figure: Any, panels: list[tuple[str, list[str]]], found: dict[str, Path], latents: str) -> None:
    """A panel of test bounds over epochs for each family."""
    all_axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (family, names) in zip(all_axes, panels, strict=True):
        for name in names:
            metrics = pd.read_csv(found[name] / "metrics.csv")
            curve_with_band(axes, metrics.pivot(index="epoch", columns="seed", values="test_bound"), style(name))
        axes.set_title(FAMILIES.get(family, family), loc="left")
        axes.set_xlabel("epoch")
        axes.grid(color="0.9", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="upper right")
    all_axes[0].set_ylabel("test bound (nats)")
    figure.suptitle(f"8×8 digits, {latents.replace('x', '×')} latents", fontsize=11)
