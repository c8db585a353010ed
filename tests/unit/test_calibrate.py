"""Thresholds are what the goal asks for, on outcomes made up so that the answer is known."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddnn.errors import ConfigError
from ddnn.evaluate import ExitOutcome, decide
from training.calibrate import calibrate, candidates, cases_of, with_missing
from training.goal import Goal, GoalError
from training.traffic import Sizes, camera_bytes

SIZES = Sizes(
    classes=3, score_bytes=3, feature_bytes=128, edge_feature_bytes=(64,), edges=((0, 1),)
)


def outcome(labels, entropies):
    labels = np.array(labels)
    zeros = np.zeros((len(labels), 3), np.int32)
    return ExitOutcome(zeros, labels, labels.astype(float), np.array(entropies, float))


def everyone(samples, cameras=2):
    return np.ones((samples, cameras), bool)


#: Local is wrong only on the least sure sample, which the cloud gets right and the edge wrong.
TRUTH = np.array([0, 0, 1, 1])
OUTCOMES = {
    "local": outcome([0, 0, 1, 0], [0.1, 0.2, 0.3, 0.9]),
    "edge": outcome([1, 1, 0, 0], [0.5, 0.5, 0.5, 0.5]),
    "cloud": outcome([1, 0, 1, 1], [0.5, 0.5, 0.5, 0.5]),
}


def chosen(goal, outcomes=OUTCOMES, truth=TRUTH, **options):
    present = everyone(len(truth))
    choice = calibrate(cases_of(outcomes, truth, present, SIZES), Goal.parse(goal), **options)
    return choice, decide(outcomes, choice.thresholds, present, None, None).exit.tolist()


def test_highest_accuracy_then_most_early_exits():
    choice, exits = chosen("accuracy")
    assert exits == ["local", "local", "local", "cloud"]
    assert choice.accuracy == 1.0
    assert choice.thresholds["local"] == pytest.approx(0.6)
    assert choice.camera_bytes == pytest.approx(13 + 138 / 4)


def test_byte_goal_is_kept_even_where_it_costs_accuracy():
    choice, exits = chosen("bytes=13")
    assert exits == ["local"] * 4
    assert (choice.accuracy, choice.camera_bytes) == (0.75, 13.0)
    assert chosen("bytes=47.5")[0].accuracy == 1.0
    assert chosen("bytes=47.4")[0].accuracy == 0.75


def test_accuracy_goal_takes_the_least_traffic_that_reaches_it():
    assert chosen("accuracy>=0.75")[0].camera_bytes == 13.0
    assert chosen("accuracy>=0.76")[1] == ["local", "local", "local", "cloud"]


@pytest.mark.parametrize(
    ("goal", "reason"),
    [
        ("bytes=12.9", r"a camera sends 13\.00 bytes"),
        ("accuracy>=0.9", r"highest accuracy .* is 0\.7500"),
    ],
)
def test_impossible_goal_says_what_is_possible(goal, reason):
    outcomes = OUTCOMES | {"cloud": OUTCOMES["edge"]}
    with pytest.raises(GoalError, match=reason):
        chosen(goal, outcomes)


@pytest.mark.parametrize(
    "text", ["", "speed", "bytes", "bytes=", "bytes=-1", "accuracy>=98", "b=1"]
)
def test_goal_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="goal"):
        Goal.parse(text)


@pytest.mark.parametrize("text", ["accuracy", "bytes=18", "bytes=18.5", "accuracy>=0.98"])
def test_goal_reads_as_it_was_written(text):
    assert str(Goal.parse(text)) == text


def test_among_equals_the_local_exit_comes_before_the_edge():
    same = outcome([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4])
    outcomes = {"local": same, "edge": same, "cloud": same}
    assert chosen("accuracy", outcomes, np.array([0, 1, 0, 1]))[1] == ["local"] * 4


def test_edge_answers_what_the_local_exit_may_not():
    right, wrong = [0, 0, 1, 1], [1, 1, 0, 0]
    outcomes = {
        "local": outcome(wrong, [0.1] * 4),
        "edge": outcome(right, [0.1] * 4),
        "cloud": outcome(right, [0.1] * 4),
    }
    assert chosen("accuracy", outcomes)[1] == ["edge"] * 4


def test_edge_that_is_rarely_asked_is_set_as_if_it_always_were():
    truth = np.zeros(10, int)
    edge = outcome([0] * 5 + [1] * 5, np.linspace(0.1, 0.9, 10))
    outcomes = {
        "local": outcome(truth, [0.2] * 10),
        "edge": edge,
        "cloud": outcome(truth, [1] * 10),
    }
    choice, exits = chosen("accuracy", outcomes, truth)
    assert exits == ["local"] * 10
    assert 0.45 < choice.thresholds["edge"] < 0.55


def test_less_than_half_a_sample_is_no_reason_for_traffic():
    truth = np.zeros(100, int)
    local = np.zeros(100, int)
    local[0] = 1
    outcomes = {
        "local": outcome(local, np.linspace(0.9, 0.1, 100)),
        "cloud": outcome(truth, [0.5] * 100),
    }
    full = cases_of(outcomes, truth, everyone(100), SIZES)
    assert calibrate(full).camera_bytes > 13
    # Where ten cases stand for one sample, one of them is a tenth of a sample.
    cases = full._replace(weight=full.weight / 10, traffic_weight=full.traffic_weight / 10)
    assert calibrate(cases).camera_bytes == pytest.approx(13)


def test_missing_cameras_count_as_much_as_all_samples_and_cost_no_traffic():
    full = cases_of(OUTCOMES, TRUTH, everyone(4), SIZES)
    present = everyone(4)
    present[:, 0] = False
    present[3, 1] = False
    lost = cases_of(OUTCOMES, TRUTH, present, SIZES)
    assert len(lost.weight) == 3, "a sample that nobody sees decides nothing"
    both = with_missing(full, [lost, lost])
    assert both.weight.sum() == pytest.approx(8)
    assert both.weight[4:].sum() == pytest.approx(4)
    assert both.traffic_weight.tolist() == [1] * 4 + [0] * 6
    assert with_missing(full, []) is full


def test_threshold_that_fails_without_a_camera_is_not_chosen():
    truth = np.zeros(10, int)
    cloud = outcome(truth, [0.5] * 10)
    local = outcome(truth, np.linspace(0.1, 0.9, 10))
    half_wrong = outcome([0] * 5 + [1] * 5, np.linspace(0.1, 0.9, 10))
    full = cases_of({"local": local, "cloud": cloud}, truth, everyone(10), SIZES)
    lost = cases_of({"local": half_wrong, "cloud": cloud}, truth, everyone(10), SIZES)
    assert calibrate(full).thresholds["local"] == 1.0 or calibrate(full).camera_bytes == 13
    assert 0.5 < calibrate(with_missing(full, [lost])).thresholds["local"] < 0.6


def test_only_exit_has_no_threshold():
    choice, exits = chosen("accuracy", {"local": OUTCOMES["local"]})
    assert (choice.thresholds, choice.camera_bytes) == ({}, 13.0)
    assert set(exits) == {"local"}


def test_without_a_local_exit_features_are_always_sent():
    outcomes = {"edge": OUTCOMES["edge"], "cloud": OUTCOMES["cloud"]}
    choice, _ = chosen("accuracy", outcomes)
    assert choice.camera_bytes == 13 + 138
    assert set(choice.thresholds) == {"edge"}


def test_nobody_there_lets_nothing_exit():
    cases = cases_of(OUTCOMES, TRUTH, ~everyone(4), SIZES)
    assert calibrate(cases).thresholds == {"local": 0.0, "edge": 0.0}


def brute_force(cases, allowed):
    """Best (accuracy, -bytes) over all pairs of candidate thresholds."""
    found = []
    steps = [candidates(e) for e in cases.entropy[:2]]
    for pair in itertools.product(*steps):
        first = cases.entropy[0] < pair[0]
        second = ~first & (cases.entropy[1] < pair[1])
        right = np.where(first, cases.right[0], np.where(second, cases.right[1], cases.right[2]))
        cost = np.where(first, cases.answered_bytes, cases.asked_bytes).mean()
        if allowed(right.mean(), cost):
            found.append((right.mean(), -cost))
    return max(found)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.sampled_from([1, 20, 1000]))
def test_choice_is_the_best_of_all_pairs(seed, samples, steps):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, samples)
    present = rng.random((samples, 2)) < 0.8
    present[:, 0] |= ~present.any(axis=1)
    outcomes = {
        name: outcome(
            np.where(rng.random(samples) < 0.6, truth, rng.integers(0, 3, samples)),
            # Entropy 1 never exits, whatever the threshold.
            0.999 * np.round(rng.random(samples) * steps) / steps,
        )
        for name in ("local", "edge", "cloud")
    }
    cases = cases_of(outcomes, truth, present, SIZES)
    best = calibrate(cases, tolerance=0.0)
    wanted = brute_force(cases, lambda accuracy, cost: True)
    assert (best.accuracy, -best.camera_bytes) == pytest.approx(wanted)
    limit = float(rng.uniform(13, 150))
    bound = calibrate(cases, Goal("bytes", limit), tolerance=0.0)
    wanted = brute_force(cases, lambda accuracy, cost: cost <= limit)
    assert (bound.accuracy, -bound.camera_bytes) == pytest.approx(wanted)
    # And the decision rule gives what the grid says.
    decided = decide(outcomes, bound.thresholds, present, None, None)
    assert (decided.label == truth).mean() == pytest.approx(bound.accuracy)
    cost = camera_bytes(SIZES, present, decided.exit != "local").mean()
    assert cost == pytest.approx(bound.camera_bytes)


def test_thresholds_part_every_two_entropies():
    values = np.array([0.2, 0.4, 0.4, 1.0])
    parts = {tuple(values < t) for t in candidates(values)}
    assert len(parts) == 3  # none, the first, the first three; strictly below 1 is not all
    assert len(candidates(np.random.default_rng(0).random(5000))) <= 202
