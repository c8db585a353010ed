from collections import Counter

import pytest

from ddnn.denials import MAX_DENIED_TOPICS, Denials


@pytest.mark.parametrize("answer_is_first", [False, True])
def test_refusal_is_counted_however_fast_it_comes(answer_is_first):
    counts = Counter()
    denials = Denials(counts)
    steps = [lambda: denials.sent(7, "a"), lambda: denials.answered(7, "not authorized")]
    for step in reversed(steps) if answer_is_first else steps:
        step()
    assert denials.by_topic() == {"a": 1}
    assert counts["denied"] == 1


def test_message_that_was_taken_denies_nothing_to_the_next_of_its_number():
    denials = Denials(Counter())
    denials.sent(7, "a")
    denials.answered(7, None)
    denials.sent(7, "b")
    denials.answered(7, "quota")
    assert denials.by_topic() == {"b": 1}


def test_topics_that_hold_a_number_do_not_fill_the_memory():
    counts = Counter()
    denials = Denials(counts)
    for number in range(2 * MAX_DENIED_TOPICS):
        denials.sent(number, f"t/{number}")
        denials.answered(number, "not authorized")
    assert len(denials.by_topic()) == MAX_DENIED_TOPICS
    assert counts["denied"] == 2 * MAX_DENIED_TOPICS
