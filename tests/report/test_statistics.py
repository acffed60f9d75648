"""Intervals against scipy, hand-computed values and their own promise of coverage."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from argmax_vae.statistics import holm, mean_interval, paired_difference, paired_t_p_value, sign_flip_p_value


def test_three_values_by_hand() -> None:
    """Mean 2, deviation 1, t quantile 4.3027 of two degrees of freedom: half width 4.3027 / √3."""
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.mean == 2.0
    assert interval.half_width == pytest.approx(4.302652729911275 / math.sqrt(3))
    assert (interval.low, interval.high) == pytest.approx((2 - 2.484137712, 2 + 2.484137712))
    assert interval.number == 3


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("number", [2, 5, 40])
def test_agrees_with_scipy(number: int, confidence: float) -> None:
    values = np.random.default_rng(number).normal(126.0, 0.3, number)
    low, high = stats.t.interval(confidence, number - 1, loc=values.mean(), scale=stats.sem(values))
    interval = mean_interval(values, confidence)
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-12)


def test_coverage() -> None:
    """4000 samples of five normal values: the count of covering intervals is Binomial(4000, 0.95).

    For a correct interval and another random seed this test would fail with probability 1e-6.
    """
    samples = np.random.default_rng(0).normal(7.0, 2.0, (4000, 5))
    intervals = [mean_interval(sample) for sample in samples]
    covering = sum(interval.low <= 7.0 <= interval.high for interval in intervals)
    low, high = stats.binom.interval(1 - 1e-6, 4000, 0.95)
    assert low <= covering <= high


def test_one_value_has_no_interval() -> None:
    interval = mean_interval([126.4])
    assert interval.mean == 126.4
    assert interval.number == 1
    assert all(math.isnan(value) for value in (interval.low, interval.high, interval.half_width))


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [1.0, math.inf]])
def test_refuses_what_cannot_be_averaged(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"at least one|not finite"):
        mean_interval(values)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_refuses_confidence_outside_its_range(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        mean_interval([1.0, 2.0], confidence)


def test_paired_difference_is_the_paired_t_interval_of_common_seeds() -> None:
    a = {0: 103.6, 1: 104.1, 2: 103.2, 7: 999.0}
    b = pd.Series({2: 104.9, 1: 106.0, 0: 105.5, 8: -999.0})
    interval = paired_difference(a, b)
    expected = stats.ttest_rel([103.6, 104.1, 103.2], [105.5, 106.0, 104.9]).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert interval.number == 3


def test_paired_difference_removes_what_seeds_share() -> None:
    """A constant difference under a large common effect is known exactly."""
    common = pd.Series(np.random.default_rng(1).normal(0, 50, 6))
    assert paired_difference(common + 1.5, common).half_width == pytest.approx(0, abs=1e-10)


def test_paired_difference_needs_common_and_unique_seeds() -> None:
    with pytest.raises(ValueError, match="no common seed"):
        paired_difference({0: 1.0}, {1: 1.0})
    with pytest.raises(ValueError, match=r"twice: \[3\]"):
        paired_difference(pd.Series([1.0, 2.0], index=[3, 3]), {3: 1.0})


def test_sign_flips_by_hand() -> None:
    """Of the eight sign vectors of (1, 2, 4), the two without a change of sign reach 7, and four reach 5."""
    assert sign_flip_p_value([1.0, 2.0, 4.0]) == 2 / 8
    assert sign_flip_p_value([-1.0, 2.0, 4.0]) == 4 / 8
    assert sign_flip_p_value([0.1]) == 1.0
    assert sign_flip_p_value([-0.3, 0.1, 0.2]) == 1.0


@pytest.mark.parametrize("number", [2, 5, 9])
def test_sign_flips_against_scipy(number: int) -> None:
    differences = np.random.default_rng(number).normal(0.3, 1.0, number)
    expected = stats.permutation_test(
        (differences,), lambda x, axis: np.mean(x, axis=axis), permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p_value(differences) == pytest.approx(expected.pvalue)


def test_drawn_sign_flips_are_near_all_of_them() -> None:
    """4096 drawn vectors: four standard errors of a share, a false alarm of 6e-5 for another seed."""
    differences = np.random.default_rng(3).normal(0.4, 1.0, 14)
    exact = sign_flip_p_value(differences)
    drawn = sign_flip_p_value(differences, flips=4096)
    assert abs(drawn - exact) < 4 * math.sqrt(exact * (1 - exact) / 4096) + 1 / 4096


def test_sign_flips_reject_as_often_as_they_say() -> None:
    """2000 samples of five symmetric values: p ≤ 1/8 for Binomial(2000, 1/8); fails for another seed with 1e-6."""
    samples = np.random.default_rng(1).standard_t(3, (2000, 5))
    rejected = sum(sign_flip_p_value(sample) <= 1 / 8 for sample in samples)
    low, high = stats.binom.interval(1 - 1e-6, 2000, 1 / 8)
    assert low <= rejected <= high


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_sign_flips_of_nothing(values: list[float]) -> None:
    with pytest.raises(ValueError, match="all of them finite"):
        sign_flip_p_value(values)


@pytest.mark.parametrize("m", [2, 5, 12])
def test_paired_t_is_that_of_scipy_and_agrees_with_the_interval(m: int) -> None:
    a, b = np.random.default_rng(m).normal(size=(2, m))
    assert paired_t_p_value(a - b) == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-9)
    shifted = a - b - (a - b).mean()
    width = mean_interval(shifted).half_width
    assert paired_t_p_value(shifted + 1.001 * width) < 0.05 < paired_t_p_value(shifted + 0.999 * width)


def test_paired_t_without_spread() -> None:
    assert math.isnan(paired_t_p_value([1.0]))
    assert (paired_t_p_value([0.5, 0.5]), paired_t_p_value([0.0, 0.0])) == (0.0, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_the_closed_test_of_bonferroni(seed: int) -> None:
    """A hypothesis is rejected when every set of hypotheses that holds it is, each by Bonferroni's test."""
    p = np.random.default_rng(seed).uniform(0, 0.3, 6)
    for index, corrected in enumerate(holm(p.tolist())):
        sets = (s for size in range(1, 7) for s in itertools.combinations(range(6), size) if index in s)
        assert corrected == pytest.approx(max(min(1, len(s) * min(p[list(s)])) for s in sets))


def test_holm_leaves_out_what_is_unknown() -> None:
    first, unknown, last = holm([0.01, math.nan, 0.04])
    assert (first, last) == (0.02, 0.04)
    assert math.isnan(unknown)
    assert holm([]) == []
