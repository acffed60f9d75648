"""Intervals over seeds: the mean of one cell, and the paired difference of two; tests of such differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit


class Interval(NamedTuple):
    """A sample mean with its confidence interval, in the units of the values.

    ``low = mean - half_width`` and ``high = mean + half_width``; ``number`` counts the values.
    With a single value the mean is known and the three others are NaN.
    """

    mean: float
    low: float
    high: float
    half_width: float
    number: int


def mean_interval(values: Sequence[float] | np.ndarray | pd.Series, confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean of independent values, such as one test bound per seed.

        x̄ ± t_{(1 + confidence)/2, m-1} · s / √m,    s² = Σ (x_i - x̄)² / (m - 1)

    Exact for normal values; for m = 1 the half width is NaN. Source: Student (1908), "The probable error
    of a mean".

    Args:
        values: m numbers, one per seed.
        confidence: probability with which the interval covers the true mean, in (0, 1).

    Raises:
        ValueError: no values, a value that is NaN or infinite (which seeds to leave out is the caller's
            decision, and has to be reported), or a confidence outside (0, 1).
    """
    sample = np.asarray(values, dtype=np.float64).ravel()
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: must lie in (0, 1)")
    if sample.size == 0:
        raise ValueError("an interval needs at least one value")
    if not np.isfinite(sample).all():
        raise ValueError(f"{np.sum(~np.isfinite(sample))} of {sample.size} values are not finite")
    mean = float(sample.mean())
    half_width = math.nan
    if sample.size > 1:
        quantile = float(stdtrit(sample.size - 1, (1 + confidence) / 2))
        half_width = quantile * float(sample.std(ddof=1)) / math.sqrt(sample.size)
    return Interval(mean, mean - half_width, mean + half_width, half_width, sample.size)


def paired_difference(
    a: Mapping[int, float] | pd.Series, b: Mapping[int, float] | pd.Series, confidence: float = 0.95
) -> Interval:
    """Student's t interval of the mean of a_s - b_s over the seeds s that both have.

    Seeds that share initial weights and data order make the two values positively correlated, so the
    paired interval is narrower than that of two independent means. Seeds that only one side has are
    ignored; ``number`` counts the common ones.

    Args:
        a: values by seed.
        b: values by seed, in the same units.
        confidence: as for :func:`mean_interval`.

    Raises:
        ValueError: no common seed, a seed that occurs twice, or a value of a common seed that is not finite.
    """
    left, right = pd.Series(a, dtype=np.float64), pd.Series(b, dtype=np.float64)
    for series in (left, right):
        if not series.index.is_unique:
            raise ValueError(f"seeds occur twice: {sorted(set(series.index[series.index.duplicated()]))}")
    common = left.index.intersection(right.index)
    if common.empty:
        raise ValueError(f"no common seed: {sorted(left.index)} against {sorted(right.index)}")
    return mean_interval(left.loc[common] - right.loc[common], confidence)


def sign_flip_p_value(differences: Sequence[float] | np.ndarray | pd.Series, flips: int = 2**16) -> float:
    """Two-sided p-value of the paired sign-flip test of the mean difference.

        p = share of sign vectors σ ∈ {−1, 1}^m with |Σ σ_s d_s| ≥ |Σ d_s|

    Valid when, without an effect, each difference is as likely as its negative; no distribution is assumed. With m
    seeds p is at least 2^(1-m). All 2^m vectors are taken where there are at most ``flips``, else as many drawn ones
    (from a fixed seed), counting the observed one. Source: Fisher (1935), "The design of experiments", section 21.

    Args:
        differences: m paired differences, one per seed.
        flips: the most sign vectors to try.

    Raises:
        ValueError: no differences, or one that is not finite.
    """
    sample = np.asarray(differences, dtype=np.float64).ravel()
    if sample.size == 0 or not np.isfinite(sample).all():
        raise ValueError("the sign-flip test needs differences, all of them finite")
    observed = abs(sample.sum())
    least = observed * (1 - 1e-12)
    if 2.0**sample.size <= flips:
        numbers = np.arange(2**sample.size)[:, None] >> np.arange(sample.size) & 1
        return float((np.abs((2 * numbers - 1) @ sample) >= least).mean())
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (flips, sample.size))
    return float((1 + (np.abs(signs @ sample) >= least).sum()) / (1 + flips))


def paired_t_p_value(differences: Sequence[float] | np.ndarray | pd.Series) -> float:
    """Two-sided p-value of Student's t test of the mean of paired differences, NaN for a single one.

        p = 2 P(T_{m-1} ≥ |d̄| √m / s)

    It is below 5 % where the 95 % interval of :func:`paired_difference` excludes zero. Exact for normal differences.
    With few seeds it can say more than the sign-flip test, whose p-value is at least 2^(1-m), because it assumes more.

    Args:
        differences: m paired differences, one per seed.

    Raises:
        ValueError: no differences, or one that is not finite.
    """
    interval = mean_interval(differences)
    if interval.number == 1:
        return math.nan
    if interval.half_width == 0:
        return float(interval.mean == 0)
    error = interval.half_width / float(stdtrit(interval.number - 1, 0.975))
    return 2 * float(stdtr(interval.number - 1, -abs(interval.mean) / error))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number: rejecting those below α, a true hypothesis is rejected with probability ≤ α.

        p̃_(i) = max_{j ≤ i} min(1, (m - j + 1) p_(j)),    p_(1) ≤ … ≤ p_(m)

    NaN stays NaN and is not counted. Source: Holm (1979), "A simple sequentially rejective multiple test procedure".
    """
    corrected = [math.nan] * len(p_values)
    known = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    largest = 0.0
    for position, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - position) * p))
        corrected[index] = largest
    return corrected
