"""Trains the estimators of the registry on the 8×8 digits, prints the comparison, and draws it into demo/demo.png."""

import sys
from pathlib import Path

import pandas as pd
from matplotlib import image
from matplotlib.figure import Figure

from argmax_vae.commands.bench import applicable
from argmax_vae.commands.sweep import launch
from argmax_vae.config.compose import cells
from argmax_vae.estimators import ESTIMATORS
from argmax_vae.report.drawing import curve_with_band
from argmax_vae.report.style import style
from argmax_vae.statistics import mean_interval
from argmax_vae.streams import protect

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


def main() -> int:
    """Train, print, draw; returns the exit code of the training."""
    latents = cells("demo", [])[0].config.model.latents
    names = [name for name in ESTIMATORS if name not in LEFT_OUT and applicable(name, latents)]
    overrides = [f"estimator={','.join(names)}", *sys.argv[1:]]
    code = launch("demo", overrides, multirun=True)
    if code:
        return code
    found = {cell.config.estimator.name: cell.run.path for cell in cells("demo", overrides)}
    print(table(found))
    target = Path("demo") / "demo.png"
    draw(found, latents).savefig(target, dpi=150)
    print(f"\ncurves and samples: {target}")
    return 0


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
    above, below = figure.subfigures(2, 1, height_ratios=[4.4, 1.3 * rows])
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


if __name__ == "__main__":
    protect()
    sys.exit(main())
