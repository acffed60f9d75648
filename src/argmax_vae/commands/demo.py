"""`argmax-vae reproduce demo`: trains the registry's estimators on the 8×8 digits, prints and draws the comparison."""

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
from argmax_vae.report.drawing import curve_with_band
from argmax_vae.report.style import style
from argmax_vae.statistics import mean_interval

LEFT_OUT = (
    "decoupled_straight_through",
    "gapped_straight_through",
    "zgr",
    "nvil",
    "disarm_categorical",
    "unordered_set",
    "sum_and_sample",
)
"""Estimators that are too much like a shown one to wait for."""


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
    lines = [f"{'estimator':22} {'test bound (nats)':>20} {'KL':>6} {'codes in use':>13} {'seeds':>6} {'seconds':>8}"]
    for name, path in found.items():
        rows = pd.read_csv(path / "seeds.csv")
        bound = mean_interval(rows["test_bound"])
        lines.append(
            f"{style(name).label:22} {bound.mean:11.2f} ± {bound.half_width:6.2f} {rows['test_kl'].mean():6.2f} "
            f"{rows['test_codes_in_use'].mean():13.2f} {len(rows):6d} {rows['seconds'].iloc[0]:8.1f}"
        )
    return "\n".join(lines)


def draw(found: dict[str, Path], latents: str) -> Figure:
    """Test bound over epochs with interval bands above prior samples of each estimator."""
    columns = min(5, len(found))
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(12, 4.4 + 1.3 * rows), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[4.4, 1.3 * rows])
    above, below = parts
    axes = above.subplots()
    for name, path in found.items():
        metrics = pd.read_csv(path / "metrics.csv")
        curve_with_band(axes, metrics.pivot(index="epoch", columns="seed", values="test_bound"), style(name))
    axes.set(xlabel="epoch", ylabel="test bound (nats)", title=f"8×8 digits, {latents.replace('x', '×')} latents")
    above.legend(loc="outside right center", frameon=False)
    panels = below.subplots(rows, columns, squeeze=False).flatten()
    for panel in panels:
        panel.axis("off")
    for panel, (name, path) in zip(panels, found.items(), strict=False):
        panel.imshow(image.imread(path / "samples.png"), cmap="gray")
        panel.set_title(f"samples, {style(name).label}", fontsize=8)
    return figure
