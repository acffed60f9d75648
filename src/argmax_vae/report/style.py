"""One fixed look per estimator, so that a colour means the same in every figure; text as LaTeX.

Any two colours differ clearly, also as a person with a colour deficiency sees them. Too few such colours exist for all
estimators: within a family, two whose line styles differ may have colours half as far apart. Every estimator has a
marker of its own, and two of similar luminance differ in line style, so that a grey print can be read too.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

LineStyle = str | tuple[int, tuple[float, ...]]

SOLID: LineStyle = "-"
DASHED: LineStyle = (0, (5, 2))
SHORT_DASHED: LineStyle = (0, (2.5, 1.5))
DOTTED: LineStyle = (0, (1.2, 1.6))
DASH_DOT: LineStyle = (0, (6, 2, 1.2, 2))
LONG_DASHED: LineStyle = (0, (10, 3))
DASH_DOT_DOT: LineStyle = (0, (6, 2, 1.2, 2, 1.2, 2))

CARET_LEFT, CARET_RIGHT, CARET_UP, CARET_DOWN = 4, 5, 6, 7
"""Markers that matplotlib knows by numbers."""


class Style(NamedTuple):
    """How matplotlib draws one estimator, what people call it, and the family of estimators it is one of."""

    label: str
    color: str
    line: LineStyle
    marker: str | int
    family: str = ""


STYLES: dict[str, Style] = {
    "direct": Style("direct", "#1056B0", SOLID, "o", "perturbed"),
    "direct_rao_blackwell": Style("direct, Rao-Blackwell", "#409ADF", LONG_DASHED, "h", "perturbed"),
    "imle": Style("I-MLE", "#FC9CA8", DASH_DOT, CARET_LEFT, "perturbed"),
    "gumbel_softmax": Style("Gumbel-Softmax", "#CA5A02", DASHED, "s", "relaxed"),
    "straight_through": Style("straight-through", "#D4A104", DOTTED, "<", "relaxed"),
    "decoupled_straight_through": Style("decoupled straight-through", "#C8BE50", SOLID, CARET_RIGHT, "relaxed"),
    "gapped_straight_through": Style("gapped straight-through", "#B43C0A", DASH_DOT_DOT, CARET_UP, "relaxed"),
    "gumbel_rao": Style("Gumbel-Rao", "#965A42", DASH_DOT, ">", "relaxed"),
    "zgr": Style("ZGR", "#960A3C", SHORT_DASHED, CARET_DOWN, "relaxed"),
    "reinmax": Style("ReinMax", "#9D1C0E", LONG_DASHED, "p", "relaxed"),
    "rebar": Style("REBAR", "#239F73", DASH_DOT, "^", "control variate"),
    "relax": Style("RELAX", "#91005C", DOTTED, "v", "control variate"),
    "direct_control_variate": Style("direct as control variate", "#4050F8", DOTTED, "1", "control variate"),
    "double_control_variates": Style("double control variates", "#2828FA", DASHED, "_", "control variate"),
    "rodeo": Style("RODEO", "#500A3C", LONG_DASHED, ".", "control variate"),
    "reinforce": Style("REINFORCE", "#3F7E90", SOLID, "X", "score"),
    "nvil": Style("NVIL", "#A8C078", SHORT_DASHED, "2", "score"),
    "arm": Style("ARM", "#501579", DASH_DOT_DOT, "P", "score"),
    "arsm": Style("ARSM", "#321E00", DASH_DOT, "|", "score"),
    "disarm": Style("DisARM", "#C4A7D6", DASHED, "d", "score"),
    "disarm_categorical": Style("DisARM, categorical", "#240C54", SHORT_DASHED, "3", "score"),
    "carms": Style("CARMS", "#180084", DASHED, "4", "score"),
    "unordered_set": Style("unordered set", "#6C90B4", SHORT_DASHED, "x", "score"),
    "sum_and_sample": Style("sum and sample", "#0C18B4", SOLID, "+", "score"),
    "local_expectation": Style("local expectation", "#7FA453", DASH_DOT_DOT, "*", "score"),
    "exact": Style("exact gradient", "#000000", DASHED, "D", "exact"),
}
"""Registered estimators, in the order in which tables and legends list them."""

_FALLBACK_COLORS = ("#44748A", "#7A6A53", "#8C5A6E", "#5F7A3A")
LINES = (SOLID, DASHED, DOTTED, DASH_DOT, LONG_DASHED, DASH_DOT_DOT)
_FALLBACK_MARKERS = ("8", "H")

FAMILIES = {
    "perturbed": "perturbed arg max",
    "relaxed": "relaxed codes",
    "control variate": "control variates",
    "score": "score function",
}
"""What a panel calls each family of estimators."""


def style(estimator: str) -> Style:
    """The look of an estimator by its registry name.

    An unregistered name gets a look computed from the name alone, the same in every process, and is
    labelled with the name itself.
    """
    if estimator in STYLES:
        return STYLES[estimator]
    number = zlib.crc32(estimator.encode())
    number, color = divmod(number, len(_FALLBACK_COLORS))
    number, line = divmod(number, len(LINES))
    return Style(
        label=estimator.replace("_", " "),
        color=_FALLBACK_COLORS[color],
        line=LINES[line],
        marker=_FALLBACK_MARKERS[number % len(_FALLBACK_MARKERS)],
    )


def rank(estimator: str) -> tuple[int, str]:
    """Sort key: registered estimators in the order of :data:`STYLES`, others after them by name."""
    names = list(STYLES)
    return (names.index(estimator) if estimator in STYLES else len(names), estimator)
