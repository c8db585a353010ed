"""Names that could become wildcards or other topics are refused."""

import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn import topics
from ddnn.errors import ConfigError


@pytest.mark.parametrize("name", ["s1", "north-gate", "A_1", "7"])
def test_plain_names_are_fine(name):
    assert topics.check_name(name) == name
    assert topics.site_of(topics.summary(name, 3)) == name
    assert topics.site_of(topics.decision(name)) == name


@pytest.mark.parametrize("name", ["", "#", "+", "a/b", "$SYS", "_cloud", "é", "a" * 33, "a\n"])
def test_other_names_are_refused(name):
    with pytest.raises(ConfigError):
        topics.check_name(name)


@pytest.mark.parametrize("topic", ["ddnn/_cloud/status/x", "#/s/1", "", "/s/1"])
def test_topic_without_a_site_has_none(topic):
    assert topics.site_of(topic) is None


def test_member_number_of_a_topic():
    assert topics.member_of(topics.features("s1", 12)) == 12
    for odd in ("s1/f/x", "s1/f/-1", "s1/f/", "s1/f/\u0663", "s1/f/123456"):
        assert topics.member_of(odd) is None


def test_frame_topics_are_short():
    assert all(4 <= len(f("s1", 5)) <= 10 for f in (topics.summary, topics.features))


LEVEL = st.sampled_from(["a", "b", "s1", ""])
TOPIC = st.lists(LEVEL, min_size=1, max_size=4).map("/".join).filter(bool)
FILTER = st.tuples(
    st.lists(st.one_of(LEVEL, st.just("+")), min_size=1, max_size=4), st.booleans()
).map(lambda made: "/".join([*made[0], *(["#"] if made[1] else [])])).filter(bool)  # fmt: skip


@given(FILTER, TOPIC)
def test_filter_matches_what_mqtt_says_it_matches(topic_filter, topic):
    assert topics.matches(topic_filter, topic) == paho.topic_matches_sub(topic_filter, topic)


@given(FILTER, FILTER, TOPIC)
def test_filter_that_covers_another_matches_all_that_the_other_does(wide, narrow, topic):
    if topics.matches(wide, narrow) and topics.matches(narrow, topic):
        assert topics.matches(wide, topic)
