"""When a camera is opened again, in virtual time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.watchdog import State, Step, Watchdog, WatchRules

RULES = WatchRules(
    open_s=10.0,
    stale_s=2.0,
    frozen_s=5.0,
    pause_s=1.0,
    longest_pause_s=8.0,
    settled_s=20.0,
    max_failures=4,
)


def running(**rules):
    watchdog = Watchdog(RULES._replace(**rules))
    watchdog.opening(0.0)
    watchdog.frame(1.0, same=False)
    return watchdog


def run(watchdog, start, end, *, same, no_contrast=False, every=0.5):
    """Frames from `start` to `end`; the first step that is not NOTHING, and when."""
    now = start
    while now <= end:
        watchdog.frame(now, same=same, no_contrast=no_contrast)
        if (step := watchdog.look(now)) is not Step.NOTHING:
            return step, now
        now += every
    return Step.NOTHING, now


def test_camera_that_never_delivers_is_stopped():
    watchdog = Watchdog(RULES)
    watchdog.opening(0.0)
    assert watchdog.look(10.0) is Step.NOTHING
    assert watchdog.look(10.1) is Step.STOP
    assert "no picture within 10 s" in watchdog.problem


def test_camera_that_falls_silent_is_stopped_once():
    watchdog = running()
    assert watchdog.look(3.0) is Step.NOTHING
    assert watchdog.look(3.1) is Step.STOP
    assert watchdog.look(3.2) is Step.NOTHING
    assert "no new picture" in watchdog.problem


def test_camera_that_delivers_the_same_picture_is_stopped_although_it_is_punctual():
    watchdog = running()
    step, when = run(watchdog, 1.5, 30.0, same=True)
    assert (step, when) == (Step.STOP, 6.5)
    assert "bit for bit" in watchdog.problem


def test_same_picture_is_no_fault_where_pictures_may_stand_still():
    assert run(running(frozen_s=0.0), 1.5, 300.0, same=True)[0] is Step.NOTHING


def test_covered_lens_is_named_and_is_no_fault():
    watchdog = running()
    assert run(watchdog, 1.5, 60.0, same=True, no_contrast=True)[0] is Step.NOTHING
    assert watchdog.no_contrast
    watchdog.frame(61.0, same=False)
    assert not watchdog.no_contrast


def test_one_picture_that_differs_is_enough_to_be_alive():
    watchdog = running()
    for start in (1.5, 6.0, 10.5):
        assert run(watchdog, start, start + 4.0, same=True)[0] is Step.NOTHING
        watchdog.frame(start + 4.2, same=False)


def test_pauses_double_up_to_the_longest_and_then_it_is_hopeless():
    watchdog = Watchdog(RULES._replace(max_failures=5))
    now, pauses = 0.0, []
    while True:
        watchdog.opening(now)
        watchdog.failed(now, "gone")
        failed_at = now
        while (step := watchdog.look(now)) is Step.NOTHING:
            now += 0.25
        if step is Step.GIVE_UP:
            break
        assert step is Step.OPEN
        pauses.append(now - failed_at)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 8.0]
    assert watchdog.restarts == 5


def test_camera_that_freezes_after_every_start_is_given_up_in_the_end():
    watchdog = Watchdog(RULES)
    now, steps = 0.0, []
    watchdog.opening(now)
    while Step.GIVE_UP not in steps and now < 1000.0:
        now += 0.5
        if watchdog.state in (State.OPENING, State.RUNNING):
            watchdog.frame(now, same=watchdog.state is State.RUNNING)
        step = watchdog.look(now)
        steps.append(step)
        if step is Step.OPEN:
            watchdog.opening(now)
    assert steps.count(Step.STOP) == RULES.max_failures + 1
    assert steps[-1] is Step.GIVE_UP


def test_failures_are_forgotten_after_a_time_of_good_pictures():
    watchdog = running()
    watchdog.failed(2.0, "cable")
    watchdog.opening(3.0)
    run(watchdog, 3.5, 20.0, same=False)
    assert watchdog.failures == 1
    assert watchdog.problem is None
    run(watchdog, 20.5, 30.0, same=False)
    assert watchdog.failures == 0
    assert watchdog.restarts == 1


@given(
    st.lists(
        st.tuples(st.floats(0.0, 20.0), st.sampled_from(["frame", "same", "failed", "look"])),
        max_size=80,
    )
)
def test_whatever_happens_it_ends_open_or_given_up(events):
    watchdog = Watchdog(RULES)
    now, gave_up = 0.0, False
    watchdog.opening(now)
    for wait, event in events:
        now += wait
        if event == "failed" and watchdog.state in (State.OPENING, State.RUNNING):
            watchdog.failed(now, "error")
        elif event in ("frame", "same") and watchdog.state in (State.OPENING, State.RUNNING):
            watchdog.frame(now, same=event == "same")
        step = watchdog.look(now)
        if step is Step.OPEN:
            watchdog.opening(now)
        if step is Step.GIVE_UP:
            gave_up = True
            break
    assert watchdog.failures <= RULES.max_failures + 1
    assert gave_up == (watchdog.failures > RULES.max_failures and watchdog.state is State.CLOSED)
    if not gave_up:
        # Left alone for longer than any limit, an unfinished camera is always acted upon.
        assert any(watchdog.look(now + later) is not Step.NOTHING for later in (0.0, 100.0))


@pytest.mark.parametrize("failures", [0, 1, 60, 5000])
def test_pause_is_bounded_after_any_number_of_failures(failures):
    watchdog = Watchdog(RULES)
    watchdog.failures = failures
    assert 0.0 < watchdog.pause_s <= RULES.longest_pause_s
