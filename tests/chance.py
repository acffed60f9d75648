"""Tests of hypotheses about samples.

Seeds are fixed, so a test always passes or always fails. FALSE_ALARM is the probability with which it would
fail for a correct implementation and another seed.
"""

import torch
from scipy import stats
from torch import Tensor

FALSE_ALARM = 1e-6


def mean_p_value(samples: Tensor, expected: Tensor) -> float:
    """Probability of a mean of samples (number, dimensions) as far from `expected`, by chi-square.

    Directions in which nothing varies must have the expected value; dependent dimensions are dealt with.
    """
    number = len(samples)
    difference = (samples.mean(0) - expected).double()
    covariance = torch.cov(samples.double().T).reshape(len(difference), -1) / number
    variances, directions = torch.linalg.eigh(covariance)
    rounding = (1e-12 * samples.abs().max().double()) ** 2
    varying = variances > torch.maximum(1e-9 * variances.max(), rounding)
    along = difference @ directions
    if (along[~varying].abs() > 1e-6 * difference.abs().max() + 1e-9).any():
        return 0.0
    if not varying.any():
        return 1.0
    statistic = (along[varying] ** 2 / variances[varying]).sum().item()
    return float(stats.chi2.sf(statistic, int(varying.sum())))


def counts_p_value(counts: Tensor, probabilities: Tensor) -> float:
    """Pearson's chi-square test of counts (*variables, values) of independent variables."""
    expected = counts.sum(-1, keepdim=True) * probabilities
    statistic = ((counts - expected) ** 2 / expected).sum().item()
    freedom = counts.numel() // counts.shape[-1] * (counts.shape[-1] - 1)
    return float(stats.chi2.sf(statistic, freedom))
