"""Batch norm and sign as thresholds, against exact fractions."""

from fractions import Fraction

import numpy as np
import pytest

from training.fold import threshold_of


def expected(gamma, beta, mean, deviation, v):
    """The sign of gamma (v - mean) / deviation + beta without any rounding."""
    gamma, beta, mean, deviation = map(Fraction, (gamma, beta, mean, deviation))
    return gamma * (v - mean) / deviation + beta >= 0


def got(gamma, beta, mean, deviation, v, bound):
    threshold, flip = threshold_of(*(np.array([x]) for x in (gamma, beta, mean, deviation)), bound)
    return bool((v >= threshold[0]) != flip[0])


@pytest.mark.parametrize("gamma", [1.0, -1.0, 0.25, -0.25, 0.0])
@pytest.mark.parametrize("beta", [0.0, 0.5, -0.5, 3.0, -3.0])
@pytest.mark.parametrize("mean", [0.0, 2.0, -2.0, 2.5, -0.5])
def test_threshold_is_the_sign_of_batch_norm(gamma, beta, mean):
    # All of them short binary fractions: float64 is exact, and many sums hit t exactly.
    for deviation in (1.0, 4.0, 0.5):
        for v in range(-27, 28):
            assert got(gamma, beta, mean, deviation, v, 27) == expected(
                gamma, beta, mean, deviation, v
            )


@pytest.mark.parametrize("gamma", [5e-324, -5e-324, 1e-300, -1e-300])
@pytest.mark.parametrize("beta", [1.0, -1.0, 0.0])
def test_gamma_next_to_zero_leaves_it_to_beta(gamma, beta):
    for v in (-9, -1, 1, 9):
        assert got(gamma, beta, 0.0, 1e3, v, 9) == expected(gamma, beta, 0.0, 1e3, v)


def test_thresholds_stay_just_out_of_reach():
    gamma, beta = np.array([1.0, 1.0, -1.0, -1.0]), np.array([1e9, -1e9, 1e9, -1e9])
    threshold, flip = threshold_of(gamma, beta, np.zeros(4), np.ones(4), 10)
    assert threshold.tolist() == [-10, 11, 11, -10]
    assert flip.tolist() == [False, False, True, True]
