import logging
from collections import Counter

from ddnn.denials import MAX_DENIED_TOPICS, Denials


def test_refusals_are_counted_by_topic_and_logged_once_for_each(caplog):
    caplog.set_level(logging.ERROR, logger="ddnn.denials")  # the simulation silences all of `ddnn`
    counts = Counter()
    denials = Denials(counts)
    for topic in ("a", "b", "a"):
        denials.refused(topic, "not authorized")
    assert denials.by_topic() == {"a": 2, "b": 1}
    assert counts["denied"] == 3
    assert [record.args for record in caplog.records] == [
        ("a", "not authorized"), ("b", "not authorized"),
    ]  # fmt: skip


def test_topics_that_hold_a_number_do_not_fill_the_memory():
    counts = Counter()
    denials = Denials(counts)
    for number in range(2 * MAX_DENIED_TOPICS):
        denials.refused(f"t/{number}", "not authorized")
    assert len(denials.by_topic()) == MAX_DENIED_TOPICS
    assert counts["denied"] == 2 * MAX_DENIED_TOPICS
