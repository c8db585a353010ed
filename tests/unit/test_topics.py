"""Names that could become wildcards or other topics are refused."""

import pytest

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
