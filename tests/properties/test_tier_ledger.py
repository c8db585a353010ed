"""Whatever arrives in whatever order: one decision per slot, and the ledger balances."""

import math
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from ddnn.tier import Decision, Failed, Feed, Passed, Report, Tier, TierConfig
from ddnn.wire import Flag, Frame, Kind
from tests.fakes import TAG, FakeSections

SLOTS = st.integers(0, 7)
MEMBERS = st.integers(-1, 3)
TAGS = st.sampled_from([TAG, TAG, TAG, TAG + 1])
BODIES = st.sampled_from([b"", b"\x01ab", b"\x00ab", b"\x01abc", b"\x00abc", bytes(12), bytes(5)])
FRAMES = st.builds(
    Frame,
    kind=st.sampled_from(Kind),
    flags=st.sampled_from([0, 0, 0, int(Flag.ABSENT), int(Flag.UNSERVED)]),
    tag=TAGS,
    boot=st.integers(0, 1),
    slot=SLOTS,
    body=BODIES,
)
EVENTS = st.one_of(
    st.tuples(st.just("summary"), MEMBERS, FRAMES),
    st.tuples(st.just("features"), MEMBERS, FRAMES),
    st.tuples(st.just("answer"), MEMBERS, FRAMES),
    st.tuples(st.just("member"), MEMBERS, st.booleans()),
    st.tuples(st.just("time"), st.floats(0, 1), st.none()),
)


@settings(max_examples=300, deadline=None)
@given(
    events=st.lists(EVENTS, max_size=120),
    local=st.booleans(),
    edge=st.booleans(),
    cloud=st.booleans(),
)
def test_ledger_balances_after_every_event(events, local, edge, cloud):
    if not (local or edge or cloud):
        cloud = True
    node = Tier(FakeSections(local=local, edge=edge, cloud=cloud), TierConfig(max_open_slots=5))
    decided = Counter()
    now = 0.0

    def check(actions):
        for action in actions:
            assert not isinstance(action, Failed)
            if isinstance(action, Decision):
                decided[action.slot] += 1
                seen = set(action.used) | set(action.absent) | set(action.missing)
                assert seen <= set(range(3))
                assert not set(action.used) & set(action.missing)
        assert all(count == 1 for count in decided.values())
        assert node.open_slots <= 5
        ended = node.counts["decided"] + node.counts["degraded"] + node.counts["expired"]
        assert node.counts["opened"] == ended + node.open_slots
        assert node.counts["decided"] + node.counts["degraded"] == decided.total()

    for what, first, second in events:
        if what == "summary":
            check(node.on_summary(first, second.slot, second, now))
        elif what == "features":
            check(node.on_features(first, second.slot, second, now))
        elif what == "answer":
            check(node.on_answer(second.slot, second, now))
        elif what == "member":
            check(node.on_member(first, second, now))
        else:
            now += first
            check(node.on_time(now))
    for _ in range(4):  # three stages and nothing more to come: every slot must end
        now += 10.0
        check(node.on_time(now))
    assert node.open_slots == 0
    assert node.next_deadline() == math.inf


REQUESTS = st.tuples(
    st.just("request"),
    MEMBERS,
    st.builds(
        Frame,
        kind=st.just(Kind.REQUEST),
        flags=st.just(0),
        tag=TAGS,
        boot=st.just(0),
        slot=SLOTS,
        body=st.just(b""),
    ),
)


@settings(max_examples=300, deadline=None)
@given(events=st.lists(st.one_of(EVENTS, REQUESTS, REQUESTS), max_size=120), local=st.booleans())
def test_node_with_a_parent_reports_and_passes_each_slot_once(events, local):
    node = Tier(FakeSections(local=local), TierConfig(max_open_slots=5), has_parent=True)
    reported, fed, passed = Counter(), Counter(), Counter()
    now = 0.0

    def check(actions):
        for action in actions:
            assert not isinstance(action, Decision | Failed)
            if isinstance(action, Report):
                assert action.slot not in passed
                reported[action.slot] += 1
                assert len(action.scores or b"") in (0, 3)
            elif isinstance(action, Feed):
                # A parent that asks again after the end is told each time that it is too late.
                fed[action.slot] += action.features is not None
                assert action.features is None or len(action.features) == 3 + len(b"edge")
            elif isinstance(action, Passed):
                passed[action.slot] += 1
        assert all(count == 1 for count in reported.values())
        assert all(count <= 1 for count in fed.values())
        assert all(count == 1 for count in passed.values())
        assert node.counts["opened"] == passed.total() + node.open_slots
        assert node.counts["passed"] == passed.total()
        assert node.open_slots <= 5

    for what, first, second in events:
        if what == "summary":
            check(node.on_summary(first, second.slot, second, now))
        elif what == "features":
            check(node.on_features(first, second.slot, second, now))
        elif what == "answer":
            check(node.on_answer(second.slot, second, now))
        elif what == "member":
            check(node.on_member(first, second, now))
        elif what == "request":
            check(node.on_parent_request(second.slot, now))
        else:
            now += first
            check(node.on_time(now))
    for _ in range(4):
        now += 10.0
        check(node.on_time(now))
    assert node.open_slots == 0
    assert passed.keys() == reported.keys()
