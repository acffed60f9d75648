"""Text as LaTeX and as Markdown, symbols of choices, and durations in words."""

from __future__ import annotations

import math
import re

SYMBOLS = {"epsilon": "ε", "temperature": "τ"}
"""How tables write the scheduled choices of estimators."""

_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_TEX |= {character: f"\\{character}" for character in "&%$#_{}"}
_TEX |= {
    "×": r"$\times$",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "·": r"$\cdot$",
    "†": r"$\dagger$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
}
_TEX |= {"α": r"$\alpha$", "ε": r"$\varepsilon$", "η": r"$\eta$", "θ": r"$\theta$", "λ": r"$\lambda$", "τ": r"$\tau$"}


def escape(text: str) -> str:
    """The text as LaTeX: special characters escaped, mathematical signs as commands."""
    return "".join(_TEX.get(character, character) for character in text)


_MARKDOWN = re.compile(r"(?P<entity>&(?=[#A-Za-z]))|(?P<tag><(?=\S))|[|`]|(?<=\])[(\[]")


def markdown(text: str) -> str:
    """The text in Markdown, in one line: nothing in it is HTML, code, a link or the border of a cell."""
    names = {"entity": "&amp;", "tag": "&lt;", None: r"\\\g<0>"}
    return _MARKDOWN.sub(lambda found: found.expand(names[found.lastgroup]), one_line(text))


def one_line(text: str) -> str:
    """The text without line breaks, which would end a comment or a row of a table."""
    return " ".join(text.splitlines())


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as people write them."""
    if math.isnan(seconds):
        return ""
    minutes, hours = round(seconds / 60), seconds / 3600
    return f"{seconds:.0f} s" if seconds < 120 else f"{minutes} min" if minutes < 120 else f"{hours:.1f} h"
