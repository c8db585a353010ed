"""How sure an accuracy is, and whether two of them differ: pure statistics on right and wrong."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
#: Of a normal distribution, 95 % two-sided.
Z = 1.959964
DRAWS = 10_000


class Interval(NamedTuple):
    """A share and its 95 % interval."""

    value: float
    low: float
    high: float


class Pair(NamedTuple):
    """Two bundles on the same samples.

    Attributes:
        samples: how many.
        only_first, only_second: samples that one has right and the other wrong.
        difference: accuracy of the second less that of the first, with its interval.
        p: of McNemar's exact test: how often chance alone makes a difference as large.
    """

    samples: int
    only_first: int
    only_second: int
    difference: Interval
    p: float


def wilson(right: Bools) -> Interval:
    """The share of `right` (N,), with Wilson's interval; without samples 0 to 1.

    Source: Wilson, Probable inference, JASA 22 (1927).
    """
    n = right.size
    if not n:
        return Interval(0.0, 0.0, 1.0)
    share = float(right.mean())
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    reach = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    return Interval(
        share, max(0.0, min(share, middle - reach)), min(1.0, max(share, middle + reach))
    )


def compare(first: Bools, second: Bools, seed: int = 0) -> Pair:
    """Compare two answers to the same N samples, each (N,) bool: right or not.

    The interval is of a paired bootstrap. Samples are taken for independent: neighbours in time
    are not quite, so that true intervals are somewhat wider.

    Source: McNemar, Psychometrika 12 (1947), in its exact form: a two-sided binomial test.
    """
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"answers to the same samples are needed: {first.shape}, {second.shape}")
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    return Pair(
        first.size, only_first, only_second, _bootstrap(first, second, seed),
        mcnemar(only_first, only_second),
    )  # fmt: skip


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p of the exact test: 2 P(X <= smaller), X of Binomial(sum, 1/2), at most 1."""
    n, smaller = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(n, k) for k in range(smaller + 1))
    # By logarithms: of a thousand samples and more 2 ** n is no float.
    return min(1.0, math.exp((1 - n) * math.log(2) + math.log(tail)))


def _bootstrap(first: Bools, second: Bools, seed: int) -> Interval:
    n = first.size
    if not n:
        return Interval(0.0, -1.0, 1.0)
    difference = second.astype(np.int64) - first.astype(np.int64)
    share = [float((difference == value).mean()) for value in (-1, 0, 1)]
    counts = np.random.default_rng(seed).multinomial(n, share, size=DRAWS)
    draws = (counts[:, 2] - counts[:, 0]) / n
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(difference.mean()), float(low), float(high))
