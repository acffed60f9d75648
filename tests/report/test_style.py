"""Every estimator is recognisable, also in grey and under colour deficiencies."""

from itertools import combinations

import pytest
from matplotlib.colors import to_rgb

from argmax_vae.report.style import STYLES, escape, markdown, rank, style


def luminance(color: str) -> float:
    """Relative luminance of an sRGB colour (IEC 61966-2-1), raised to 1/2.2: the grey of a print."""
    linear = [((c + 0.055) / 1.055) ** 2.4 if c > 0.04045 else c / 12.92 for c in to_rgb(color)]
    return (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]) ** (1 / 2.2)


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


def test_markdown_is_neither_html_nor_code_nor_a_link_nor_another_cell() -> None:
    assert markdown("<script>a|b</script> & `c`\nd") == r"&lt;script>a\|b&lt;/script> & \`c\` d"
    assert markdown("[a](javascript:b) ![c][d]") == r"[a]\(javascript:b) ![c]\[d]"
    assert markdown("&lt;a> p < 0.05") == "&amp;lt;a> p < 0.05"
    assert markdown("**412.30 ± 1.20**") == "**412.30 ± 1.20**"
