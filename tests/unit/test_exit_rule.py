"""Normalised entropy: the paper's formula, and nothing unsafe ever exits."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn.exit_rule import entropies, exits, judge, normalised_entropy


def test_uniform_is_one_and_certain_is_zero():
    assert normalised_entropy([1 / 3] * 3) == pytest.approx(1.0)
    assert normalised_entropy([0.0, 1.0, 0.0]) == 0.0


def test_the_papers_formula_by_hand():
    p = [0.7, 0.2, 0.1]
    by_hand = -sum(x * math.log(x) for x in p) / math.log(3)
    assert normalised_entropy(p) == pytest.approx(by_hand, abs=1e-9)


@pytest.mark.parametrize(
    "p",
    [
        [math.nan, 0.5, 0.5],
        [math.inf, 0.0, 0.0],
        [-0.5, 1.0, 0.5],
        [0.2, 0.2, 0.2],
        [0.0, 0.0, 0.0],
        [1.0],
        [],
        [3.0, 4.0],
    ],
)
def test_what_is_no_distribution_never_exits(p):
    assert normalised_entropy(p) == 1.0
    assert not exits(float(normalised_entropy(p)), 1.0)


@pytest.mark.parametrize("entropy", [0.8, math.nan])
def test_threshold_is_strict_and_nan_stays(entropy):
    assert not exits(entropy, 0.8)


def test_nothing_exits_at_threshold_zero():
    assert not exits(float(normalised_entropy([1.0, 0.0])), 0.0)


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=2, max_size=10), st.floats(1e-9, 10))
def test_any_logits_give_a_verdict_in_range(logits, scale):
    verdict = judge(np.array(logits, np.int32), scale)
    assert 0.0 <= verdict.entropy <= 1.0
    assert 0.0 < verdict.probability <= 1.0
    assert logits[verdict.label] == max(logits)


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=6), st.integers(-1000, 1000))
def test_adding_a_constant_changes_nothing(logits, shift):
    a = judge(np.array(logits, np.int32), 0.01)
    b = judge(np.array(logits, np.int32) + shift, 0.01)
    assert (a.label, a.entropy) == (b.label, b.entropy)


def test_ties_go_to_the_lowest_class():
    assert judge(np.array([5, 9, 9], np.int32), 1.0).label == 1


@given(st.integers(1, 40), st.integers(2, 6))
def test_a_batch_gives_the_entropies_of_its_samples(samples, classes):
    rng = np.random.default_rng(samples * 7 + classes)
    logits = rng.integers(-500, 500, (samples, classes)).astype(np.int32)
    batch = entropies(logits, 0.01)
    assert batch.tolist() == [judge(row, 0.01).entropy for row in logits]
