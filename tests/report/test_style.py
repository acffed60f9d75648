"""Every estimator is recognisable, also in grey and under colour deficiencies."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from argmax_vae.estimators import ESTIMATORS
from argmax_vae.estimators.imle import ImleConfig
from argmax_vae.markup import escape, markdown
from argmax_vae.report.style import STYLES, rank, style


def luminance(color: str) -> float:
    """Relative luminance of an sRGB colour (IEC 61966-2-1), raised to 1/2.2: the grey of a print."""
    linear = [((c + 0.055) / 1.055) ** 2.4 if c > 0.04045 else c / 12.92 for c in to_rgb(color)]
    return (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]) ** (1 / 2.2)


VISIONS = {
    "normal": (np.eye(3), 18.0),
    "protanopia": (
        np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
        18.0,
    ),
    "deuteranopia": (
        np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
        18.0,
    ),
    "tritanopia": (
        np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
        12.0,
    ),
}
"""How linear RGB is seen (Machado, Oliveira and Fernandes 2009, severity 1), and the least difference ΔE allowed: half
of it for members of one family whose lines differ.
"""
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = np.array([0.95047, 1.0, 1.08883])


def lab(color: str, vision: np.ndarray) -> np.ndarray:
    """The colour in CIE L*a*b*, whose Euclidean distance is ΔE (1976), as this vision sees it."""
    coded = np.array(to_rgb(color))
    linear = np.where(coded > 0.04045, ((coded + 0.055) / 1.055) ** 2.4, coded / 12.92)
    x, y, z = (
        np.cbrt(value) if value > 0.008856 else 7.787 * value + 16 / 116
        for value in XYZ @ np.clip(vision @ linear, 0, 1) / WHITE
    )
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISIONS)
def test_colours_differ_however_they_are_seen(vision: str) -> None:
    matrix, least = VISIONS[vision]
    for one, other in combinations(STYLES.values(), 2):
        near = one.family == other.family and one.line != other.line
        difference = np.linalg.norm(lab(one.color, matrix) - lab(other.color, matrix))
        assert difference >= (least / 2 if near else least), (one.label, other.label)


def test_differences_are_those_of_known_colours() -> None:
    """Red and green are far apart, and as a deuteranope sees them much nearer; a colour does not differ from itself."""
    red, green = "#C00000", "#407000"
    normal, deutan = VISIONS["normal"][0], VISIONS["deuteranopia"][0]
    assert np.allclose(lab("#FFFFFF", normal), [100, 0, 0], atol=0.01)
    assert np.linalg.norm(lab(red, normal) - lab(green, normal)) > 90
    assert np.linalg.norm(lab(red, deutan) - lab(green, deutan)) < 25


def test_markers_are_unique() -> None:
    assert len({look.marker for look in STYLES.values()}) == len(STYLES)


@pytest.mark.parametrize(("one", "other"), list(combinations(STYLES, 2)))
def test_lines_differ_in_grey(one: str, other: str) -> None:
    a, b = STYLES[one], STYLES[other]
    assert a.line != b.line or abs(luminance(a.color) - luminance(b.color)) > 0.1


@pytest.mark.parametrize("look", list(STYLES.values()), ids=list(STYLES))
def test_lines_stand_out_on_white(look) -> None:
    assert luminance(look.color) < 0.75


def test_unregistered_name_has_a_fixed_look() -> None:
    assert style("some_new_one") == style("some_new_one")
    assert style("some_new_one").label == "some new one"
    assert style("some_new_one").marker not in {look.marker for look in STYLES.values()}
    assert rank("direct") < rank("exact") < rank("another") < rank("some_new_one")


def test_escape_leaves_nothing_for_latex_to_misread() -> None:
    assert escape("95 % of a_b & {c}") == r"95 \% of a\_b \& \{c\}"
    assert escape("\\~^") == r"\textbackslash{}\textasciitilde{}\textasciicircum{}"
    assert escape("20×2 ± ε –").isascii()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_escape_knows_the_symbols_of_every_estimator(name: str) -> None:
    assert escape(ESTIMATORS[name].config_class().describe_schedule()).isascii()


def test_escape_knows_the_symbol_of_an_adaptive_step() -> None:
    assert escape(ImleConfig(step="adaptive").describe_schedule()) == r"$\lambda$ adaptive, target 1"


def test_markdown_is_neither_html_nor_code_nor_a_link_nor_another_cell() -> None:
    assert markdown("<script>a|b</script> & `c`\nd") == r"&lt;script>a\|b&lt;/script> & \`c\` d"
    assert markdown("[a](javascript:b) ![c][d]") == r"[a]\(javascript:b) ![c]\[d]"
    assert markdown("&lt;a> p < 0.05") == "&amp;lt;a> p < 0.05"
    assert markdown("**412.30 ± 1.20**") == "**412.30 ± 1.20**"
