"""The picture of the gradient laboratory: the error of every estimator, what it trades, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from argmax_vae.report.drawing import figure_settings
from argmax_vae.report.gradients import averaged, best, finish, in_words, label, of_setting
from argmax_vae.report.style import style
from argmax_vae.statistics import mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILLS = ("full", "none", "left", "bottom", "right", "top")
EXACT = 1e-8
VISIBLE = 1e-6
ROW = 0.19
"""Inches of a row."""


@figure_settings()
def draw_frontier(frame: pd.DataFrame) -> Figure:
    """Three panels of the logits' gradients, errors as fractions of the squared norm of the exact gradient.

    Left: every estimator in order of its error, at its best ε or τ. Right: what ε and τ trade, then direction against
    decoder evaluations. What is exact up to rounding is left out.
    """
    from matplotlib.figure import Figure

    chosen = best(frame, "logits")
    chosen = chosen[chosen["mean_squared_error"] > EXACT].sort_values("mean_squared_error", kind="stable")
    figure = Figure(figsize=(12.0, max(5.6, ROW * len(chosen) + 1.2)), layout="constrained")
    panels = figure.subplot_mosaic([["errors", "traded"], ["errors", "cost"]], width_ratios=[1, 1])
    draw_errors(panels["errors"], frame, chosen)
    draw_traded(panels["traded"], frame)
    draw_cost(panels["cost"], frame)
    return figure


def draw_errors(axes: Axes, frame: pd.DataFrame, chosen: pd.DataFrame) -> None:
    """A row for each estimator: mean-squared error with its interval over seeds, and the part of it that is bias."""
    repeats = float(frame["repeats"].iloc[0])
    for place, (_, row) in enumerate(chosen.iterrows()):
        look = style(row["estimator"])
        errors = mean_interval(of_setting(frame, "logits", row)["mean_squared_error"])
        low = min(errors.half_width, 0.9 * errors.mean) if np.isfinite(errors.half_width) else 0.0
        high = errors.half_width if np.isfinite(errors.half_width) else 0.0
        spread = [[low], [high]]
        axes.errorbar(errors.mean, place, xerr=spread, color=look.color, marker=look.marker, markersize=5, capsize=2)
        if row["squared_bias"] > row["variance"] / repeats:
            axes.plot(row["squared_bias"], place, marker="|", color="0.2", markersize=8, markeredgewidth=1.4)
        cost = f"{row['decoder_evaluations']:g}"
        axes.text(1.01, place, cost, transform=axes.get_yaxis_transform(), va="center", fontsize=7)
    axes.text(1.01, -1.1, "evaluations", transform=axes.get_yaxis_transform(), va="center", fontsize=7)
    axes.axvline(1, color="0.5", linewidth=0.9, linestyle="--", zorder=0)
    finish(axes, "mean-squared error / squared norm", "", "error, each at its best ε or τ   ( | squared bias)")
    axes.set_yscale("linear")
    axes.set_yticks(range(len(chosen)), [label(row) for _, row in chosen.iterrows()], fontsize=7)
    axes.set_ylim(len(chosen) - 0.4, -1.6)
    axes.text(1, -1.1, " an estimate of zero", fontsize=7, color="0.35", va="center")


def draw_traded(axes: Axes, frame: pd.DataFrame) -> None:
    """Squared bias against variance of those that have an ε or τ, whose values a line joins.

    Squared biases below the noise of their estimate lie on the left edge, variances of rounding errors on the lower
    one. Variants of an estimator differ in how their markers are filled.
    """
    means = averaged(frame, "logits")
    means = means[(means["parameter"] != "") & (means["mean_squared_error"] > EXACT)]
    if means.empty:
        axes.axis("off")
        return
    noise = means["variance"] / float(frame["repeats"].iloc[0])
    visible = means.loc[means["variance"] > VISIBLE, "variance"]
    shown = means["squared_bias"].where(means["squared_bias"] > noise)
    edge = 0.5 * float(shown.min()) if shown.notna().any() else VISIBLE
    means = means.assign(
        shown=shown.fillna(edge), variance=means["variance"].clip(lower=visible.min() / 3 if len(visible) else VISIBLE)
    )
    for (estimator, choices), rows in means.groupby(["estimator", "choices"], sort=False):
        look = style(str(estimator))
        variants = means.loc[means["estimator"] == estimator, "choices"].unique().tolist()
        fill = FILLS[variants.index(choices) % len(FILLS)]
        name = ", ".join(filter(None, (look.label, in_words(str(choices)))))
        line: dict[str, Any] = {
            "color": look.color,
            "linestyle": look.line,
            "linewidth": 0.9,
            "marker": look.marker,
            "fillstyle": fill,
        }
        ordered = rows.sort_values("value")
        axes.plot(ordered["shown"], ordered["variance"], markersize=4.5, label=name, **line)
    finish(axes, "squared bias / squared norm", "variance / squared norm", "what ε and τ trade")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles, labels, frameon=False, fontsize=6.5, loc="upper left", bbox_to_anchor=(1.0, 1.04))


def draw_cost(axes: Axes, frame: pd.DataFrame) -> None:
    """Mean cosine of single estimates with the exact gradient, which no scale of them changes, against their cost.

    Each estimator is at the ε or τ with the largest cosine. Named are those that no other has more for less of.
    """
    means = averaged(frame, "logits")
    means = means[means["mean_squared_error"] > EXACT]
    chosen = means.loc[means.groupby(["estimator", "choices"], sort=False)["cosine"].idxmax()]
    cheap = chosen.sort_values(["decoder_evaluations", "cosine"], ascending=[True, False], kind="stable")
    front = cheap[cheap["cosine"] > cheap["cosine"].cummax().shift(fill_value=-np.inf)]
    axes.plot(front["decoder_evaluations"], front["cosine"], color="0.7", drawstyle="steps-post", zorder=0)
    for _, row in chosen.iterrows():
        look = style(row["estimator"])
        axes.plot(row["decoder_evaluations"], row["cosine"], color=look.color, marker=look.marker, markersize=5)
    finish(axes, "decoder evaluations per image", "cosine with the exact gradient", "direction against cost")
    axes.set_yscale("linear")
    axes.margins(x=0.12, y=0.12)
    middle = float(np.sqrt(np.prod(axes.get_xlim())))
    for place, (_, row) in enumerate(front.iterrows()):
        left = row["decoder_evaluations"] < middle
        axes.annotate(
            label(pd.Series({**row, "parameter": ""})),
            (row["decoder_evaluations"], row["cosine"]),
            xytext=(-4, 5 if place else -11),
            textcoords="offset points",
            ha="left" if left else "right",
            fontsize=7,
        )
