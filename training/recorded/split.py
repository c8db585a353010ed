"""Training, validation and test parts of a recording, by time. Pure.

Pictures taken one after the other show the same object in the same light. Drawn at random into the
parts, they would make every test a test of memory. So a recording is cut into blocks of time,
where it pauses if it does, whole blocks go to one part, and training samples that are too near to
a block of another part are left out.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Index = npt.NDArray[np.int64]
TEST_SHARE = 0.2
VALIDATION_SHARE = 0.15
#: Samples in a block, and the number of blocks, if there are enough samples for it.
BLOCK_SAMPLES = 8
BLOCKS = (6, 40)
#: A block has at least this share of the usual number of samples.
LEAST_BLOCK = 0.6
#: A pause is so many times as long as the median time between two samples.
PAUSE = 5.0
#: Between samples of different parts: so much, but no more than this share of a block.
GUARD_S = 30.0
GUARD_SHARE = 0.05
_TRIES = 200
_FIT, _VALIDATION, _TEST = range(3)


class Parts(NamedTuple):
    """Indices of samples, each sorted; some may be in no part.

    Attributes:
        guard_s: the least time between a fitting sample and one of the other parts.
        blocks: how many blocks of time there are.
    """

    fit: Index
    validation: Index
    test: Index
    guard_s: float
    blocks: int


def by_time(
    times_s: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], seed: int = 0
) -> Parts:
    """Split N samples.

    Args:
        times_s: (N,), in any order.
        labels: (N,): every class is spread over the parts as well as its blocks allow.
        seed: of the draws among which the best is taken.
    """
    order = np.argsort(times_s, kind="stable")
    times = times_s[order]
    block = np.empty(len(times), np.int64)
    block[order] = _blocks(times)
    count = int(block.max()) + 1 if len(block) else 0
    part_of_block = _assign(_counts(block, labels, count), seed)
    part = part_of_block[block] if count else block
    spans = [float(np.ptp(times_s[block == b])) for b in range(count)]
    guard_s = min(GUARD_S, GUARD_SHARE * float(np.median(spans))) if spans else 0.0
    fit = _away_from(times_s, np.flatnonzero(part == _FIT), part != _FIT, guard_s)
    validation = _away_from(times_s, np.flatnonzero(part == _VALIDATION), part == _TEST, guard_s)
    test = np.flatnonzero(part == _TEST)
    return Parts(fit, validation, test.astype(np.int64), guard_s, count)


def _blocks(times: npt.NDArray[np.float64]) -> Index:
    """Block number of each of N samples in time.

    First cut at every pause; long stretches are cut further, short ones joined with the next.
    """
    n = len(times)
    size = n / int(np.clip(n // BLOCK_SAMPLES, *BLOCKS))
    gaps = np.diff(times)
    pauses = np.flatnonzero(gaps > PAUSE * np.median(gaps)) + 1 if len(gaps) else gaps
    cuts = [0]
    for begin, end in pairwise([0, *pauses.astype(int), n]):
        pieces = max(1, round((end - begin) / size))
        for cut in np.linspace(begin, end, pieces + 1).round().astype(int)[1:]:
            if cut - cuts[-1] >= LEAST_BLOCK * size or cut == n:
                cuts.append(int(cut))
    return np.repeat(np.arange(len(cuts) - 1), np.diff(cuts)).astype(np.int64)


def _counts(block: Index, labels: npt.NDArray[np.int64], blocks: int) -> Index:
    """(blocks, classes): how many samples of each class each block has."""
    classes = int(labels.max()) + 1 if len(labels) else 0
    found = np.zeros((blocks, classes), np.int64)
    np.add.at(found, (block, labels), 1)
    return found


def _assign(counts: Index, seed: int) -> Index:
    """Part of each block: of many draws the one that spreads the classes best."""
    blocks = len(counts)
    random = np.random.default_rng(seed)
    total = np.maximum(counts.sum(axis=0), 1)
    samples = counts.sum()
    best, best_cost = np.zeros(blocks, np.int64), np.inf
    for _ in range(_TRIES):
        part = np.zeros(blocks, np.int64)
        taken = {_TEST: 0, _VALIDATION: 0}
        wanted = {_TEST: TEST_SHARE * samples, _VALIDATION: VALIDATION_SHARE * samples}
        for block in random.permutation(blocks):
            size = int(counts[block].sum())
            for which in (_TEST, _VALIDATION):
                if taken[which] + size / 2 <= wanted[which] or not taken[which]:
                    part[block], taken[which] = which, taken[which] + size
                    break
        shares = np.stack([counts[part == which].sum(axis=0) / total for which in range(3)])
        there = counts.sum(axis=0) > 0
        lacking = (shares[:, there] == 0).sum(axis=1)
        # A class that cannot be learnt is worse than one that cannot be tested.
        cost = 100 * lacking[_FIT] + 10 * lacking[_TEST] + 5 * lacking[_VALIDATION]
        cost += float(np.square(shares[_TEST][there] - TEST_SHARE).sum())
        cost += float(np.square(shares[_VALIDATION][there] - VALIDATION_SHARE).sum())
        if cost < best_cost:
            best, best_cost = part, cost
    return best


def _away_from(
    times: npt.NDArray[np.float64], index: Index, others: npt.NDArray[np.bool_], guard_s: float
) -> Index:
    """Those samples of `index` that no one of `others` (N,) is nearer to than `guard_s`."""
    there = np.sort(times[others])
    if not len(there) or not len(index):
        return index.astype(np.int64)
    own = times[index]
    after = np.searchsorted(there, own)
    left = own - there[np.maximum(after - 1, 0)]
    right = there[np.minimum(after, len(there) - 1)] - own
    left[after == 0] = np.inf
    right[after == len(there)] = np.inf
    return index[np.minimum(left, right) >= guard_s].astype(np.int64)
