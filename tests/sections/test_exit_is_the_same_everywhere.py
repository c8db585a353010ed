"""An exit must not hang on the last bit of exp or log, which machines do not agree on."""

import math
from decimal import Context, Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddnn import exit_rule
from ddnn.exit_rule import BILLIONTHS, entropies, judge, normalised_entropy, probabilities


def exact(logits, scale):
    """Entropy in billionths to 60 digits, by the paper's formula with p and ln p."""
    context = Context(prec=70)
    powers = [context.exp(Decimal(v - max(logits)) * Decimal(scale)) for v in logits]
    p = [context.divide(power, sum(powers)) for power in powers]
    nats = -sum(context.multiply(q, context.ln(q)) for q in p)
    return context.divide(nats, context.ln(Decimal(len(p)))) * BILLIONTHS


some_logits = st.lists(st.integers(-3000, 3000), min_size=2, max_size=10)


@settings(deadline=None)
@given(some_logits, st.floats(1e-5, 0.05))
def test_entropy_is_the_exact_one_rounded_to_billionths(logits, scale):
    value = float(entropies(np.array(logits, np.int32), scale))
    assert value * BILLIONTHS == pytest.approx(float(round(exact(logits, scale))), abs=1e-6)
    assert judge(np.array(logits, np.int32), scale).entropy == value


@settings(deadline=None)
@given(some_logits, st.floats(1e-5, 0.05))
def test_float64_is_good_enough_where_it_is_believed(logits, scale):
    rough = float(normalised_entropy(probabilities(np.array(logits), scale))) * BILLIONTHS
    assert abs(Decimal(rough) - exact(logits, scale)) < exit_rule.DOUBT / 2


@pytest.mark.parametrize("classes", [2, 256])
def test_float64_is_good_enough_for_any_number_of_classes(classes):
    rng = np.random.default_rng(classes)
    for spread in (3, 300, 100_000):
        logits = [int(v) for v in rng.integers(-spread, spread, classes)]
        rough = float(normalised_entropy(probabilities(np.array(logits), 0.01))) * BILLIONTHS
        assert abs(Decimal(rough) - exact(logits, 0.01)) < exit_rule.DOUBT / 2
        alone = judge(np.array(logits, np.int32), 0.01)
        assert alone.entropy == float(entropies(np.array(logits, np.int32), 0.01))


def other_machine(monkeypatch, bits):
    """exp and log that are off by up to so many of the last bits, differently for each value."""

    def shaken(function):
        def call(x, *, out=None, where=True):
            result = function(x, where=where, out=np.zeros(np.shape(x)))
            noise = np.random.default_rng(bits).integers(-bits, bits + 1, np.shape(x))
            result = result * (1 + noise * np.finfo(float).eps)
            if out is not None:
                out[...] = result
            return result

        return call

    class Other:
        def __getattr__(self, name):
            return shaken(getattr(np, name)) if name in ("exp", "log") else getattr(np, name)

    monkeypatch.setattr(exit_rule, "np", Other())


@pytest.mark.parametrize("bits", [1, 64])
def test_other_last_bits_of_exp_and_log_give_the_same_entropies(monkeypatch, bits):
    rng = np.random.default_rng(0)
    logits = rng.integers(-600, 600, (20_000, 3)).astype(np.int32)
    here = entropies(logits, 0.004)
    other_machine(monkeypatch, bits)
    there = normalised_entropy(probabilities(logits, 0.004))
    assert not np.array_equal(np.round(there, 16), np.round(here, 16)), "the noise does nothing"
    np.testing.assert_array_equal(entropies(logits, 0.004), here)


def test_sample_in_the_middle_between_two_billionths_is_decided_alike(monkeypatch):
    """Found by search: rounding alone takes this sample either way, by the last bit of exp."""
    rng = np.random.default_rng(1)
    logits = rng.integers(-3000, 3000, (400_000, 3)).astype(np.int32)
    steps = normalised_entropy(probabilities(logits, 1e-3)) * BILLIONTHS
    nearest = np.argsort(np.abs(steps - np.floor(steps) - 0.5))[:20]
    here = entropies(logits[nearest], 1e-3)
    expected = [round(exact([int(v) for v in logits[n]], 1e-3)) for n in nearest]
    assert np.rint(here * BILLIONTHS).astype(int).tolist() == expected
    assert [judge(row, 1e-3).entropy for row in logits[nearest]] == here.tolist()
    rough_here = np.rint(steps[nearest])
    flips = 0
    for bits in (16, 64):
        with monkeypatch.context() as patch:
            other_machine(patch, bits)
            np.testing.assert_array_equal(entropies(logits[nearest], 1e-3), here)
            rough = normalised_entropy(probabilities(logits[nearest], 1e-3)) * BILLIONTHS
            flips += int((np.rint(rough) != rough_here).sum())
    assert flips, "rounding alone would have done; look for a harder sample"


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=2, max_size=5), st.floats(1e-9, 1e9))
def test_extreme_logits_and_scales_stay_in_range(logits, scale):
    verdict = judge(np.array(logits, np.int32), scale)
    assert 0.0 <= verdict.entropy <= 1.0
    assert not math.isnan(verdict.probability)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_equal_logits_are_exactly_one_and_a_lone_class_is_one(classes):
    assert judge(np.zeros(classes, np.int32), 0.1).entropy == 1.0
    assert judge(np.zeros(1, np.int32), 0.1).entropy == 1.0
