import math

from hypothesis import given
from hypothesis import strategies as st

from ddnn.deadlines import Deadlines

STEPS = st.lists(
    st.tuples(st.sampled_from(["set", "drop", "over"]), st.integers(0, 7), st.integers(0, 20)),
    max_size=120,
)


@given(STEPS)
def test_it_says_what_a_search_through_all_slots_says(steps):
    deadlines, plain = Deadlines(), {}
    for step, slot, at in steps:
        if step == "set":
            deadlines.set(slot, at)
            plain[slot] = at
        elif step == "drop":
            deadlines.drop(slot)
            plain.pop(slot, None)
        else:
            over = deadlines.over(at)
            assert sorted(over) == sorted(slot for slot, due in plain.items() if due <= at)
            assert [plain[slot] for slot in over] == sorted(plain[slot] for slot in over)
        assert deadlines.next() == min(plain.values(), default=math.inf)
        assert all(deadlines.is_over(slot, 10) == (due <= 10) for slot, due in plain.items())


def test_slots_that_come_and_go_behind_a_long_wait_leave_nothing():
    deadlines = Deadlines()
    deadlines.set(0, 1.0)
    for slot in range(1, 10_000):
        deadlines.set(slot, 2.0)
        deadlines.drop(slot)
    assert len(deadlines._heap) < 100
    assert deadlines.next() == 1.0
