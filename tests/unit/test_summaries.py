"""Summaries of several slots in one message: bytes, cameras that hold, gateways that wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn import decisions, summaries, wire
from ddnn.errors import WireError
from ddnn.wire import Flag, Kind
from tests.fakes import TAG
from tests.unit.test_camera import WALL, camera, show
from tests.unit.test_gateway import SLOT, gateway, take

#: Slots 3, 4 and 6 of a camera: scores, absent, nothing of slot 5, scores (docs/protocol.md).
GOLDEN = "1600efbe34120300000004868000ff010203"


def summary(slot, body=b"\1\0\0", *, tag=TAG, boot=1, flags=0):
    body = b"" if flags & Flag.ABSENT else body
    return wire.encode(Kind.SUMMARY, tag=tag, boot=boot, slot=slot, flags=flags, body=body)


def three(**fields):
    return [
        summary(3, b"\x80\0\xff", tag=0xBEEF, boot=0x1234, **fields),
        summary(4, tag=0xBEEF, boot=0x1234, flags=Flag.ABSENT),
        summary(6, b"\1\2\3", tag=0xBEEF, boot=0x1234),
    ]


# -- bytes -------------------------------------------------------------------------------------


def test_golden_bytes():
    message = summaries.join(three())
    assert message.hex() == GOLDEN
    assert summaries.split(wire.decode(message)) == [wire.decode(each) for each in three()]
    assert summaries.reports_in(message) == 4


def test_single_summary_stays_as_it_is():
    assert summaries.join([summary(3)]) == summary(3)
    assert summaries.reports_in(summary(3)) == 1


REPORTS = st.dictionaries(
    st.integers(0, summaries.MAX_SLOTS - 1), st.none() | st.binary(min_size=3, max_size=3),
    min_size=2,
)  # fmt: skip


@given(REPORTS, st.integers(0, 2**33))
def test_what_is_joined_is_split(reports, first):
    alone = [
        summary(first + n, reports[n] or b"", flags=Flag.ABSENT if reports[n] is None else 0)
        for n in sorted(reports)
    ]
    frames = summaries.split(wire.decode(summaries.join(alone)))
    assert frames == [wire.decode(each) for each in alone]


@given(REPORTS)
def test_joined_message_is_shorter_than_its_parts(reports):
    span = max(reports) - min(reports) + 1
    alone = [
        summary(n, reports[n] or b"", flags=Flag.ABSENT if reports[n] is None else 0)
        for n in sorted(reports)
    ]
    expected = sum(map(len, alone)) - 10 * (len(alone) - 1) + 1 + -(-span // 4)
    assert len(summaries.join(alone)) == expected


def test_scores_of_no_bytes_are_reports_too():
    alone = [summary(n, b"") for n in (1, 2)]
    frames = summaries.split(wire.decode(summaries.join(alone)))
    assert [(frame.slot, frame.flags, frame.body) for frame in frames] == [(1, 0, b""), (2, 0, b"")]


@pytest.mark.parametrize(
    "bad",
    [
        [summary(1), summary(1)],
        [summary(2), summary(1)],
        [summary(1), summary(1 + summaries.MAX_SLOTS)],
        [summary(1), summary(2, boot=2)],
        [summary(1), summary(2, tag=2)],
        [summary(1), summary(2, flags=Flag.BACKLOG)],
        [summary(1), summary(2, b"four")],
        [summary(1), wire.encode(Kind.FEATURES, tag=TAG, boot=1, slot=2, body=b"\1\2\3")],
    ],
)
def test_summaries_that_do_not_fit_together_are_not_joined(bad):
    with pytest.raises(WireError):
        summaries.join(bad)


BODY = bytes.fromhex(GOLDEN)[10:]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        b"\0\0",
        b"\4",
        b"\4\x06" + BODY[2:],  # the last slot has no report
        b"\4\x84" + BODY[2:],  # the first one has none
        b"\4\x87" + BODY[2:],  # a state that means nothing
        b"\3\x86" + BODY[2:],  # bits beyond the last slot
        b"\1\1x",  # scores of nobody
        BODY + b"x",
        BODY[:-1],
    ],
)
def test_malformed_body_is_refused(body):
    message = wire.encode(Kind.SUMMARIES, tag=1, boot=2, slot=3, body=body)
    with pytest.raises(WireError):
        summaries.split(wire.decode(message))


def test_flags_and_other_kinds_are_refused():
    with pytest.raises(WireError):
        summaries.split(wire.decode(summary(1)))
    late = wire.encode(Kind.SUMMARIES, tag=1, boot=2, slot=3, flags=Flag.BACKLOG, body=BODY)
    with pytest.raises(WireError):
        summaries.split(wire.decode(late))


@given(st.binary(max_size=120))
def test_any_body_is_split_or_refused(body):
    frame = wire.decode(wire.encode(Kind.SUMMARIES, tag=1, boot=2, slot=3, body=body))
    try:
        frames = summaries.split(frame)
    except WireError:
        return
    alone = [summary(f.slot, f.body, tag=1, boot=2, flags=f.flags) for f in frames]
    if len(alone) > 1:
        assert summaries.join(alone) == wire.encode(
            Kind.SUMMARIES, tag=1, boot=2, slot=3, body=body
        )


# -- cameras -----------------------------------------------------------------------------------


def slots_of(messages):
    frames = [wire.decode(message.payload) for message in messages]
    return [
        [each.slot for each in summaries.split(frame)]
        if frame.kind is Kind.SUMMARIES
        else [frame.slot]
        for frame in frames
    ]


def test_camera_sends_a_groups_summaries_when_its_last_slot_was_shown():
    made = camera(delay_s=4.0)
    sent = [show(made, float(n)) for n in range(8)]
    assert int(WALL) % 4 == 0
    first = int(WALL)
    assert [slots_of(messages) for _, messages in sent] == [
        [], [], [], [list(range(first, first + 4))],
        [], [], [], [list(range(first + 4, first + 8))],
    ]  # fmt: skip
    (message,) = sent[3][1]
    assert (message.topic, message.qos, message.keep) == ("s/s/1", 0, False)
    assert made.agent.counts["summaries_sent"] == 8
    assert made.agent.counts["payload_bytes"] == 2 * len(message.payload)


def test_all_cameras_of_a_site_send_at_the_same_time_whenever_they_started():
    early, late = camera(delay_s=4.0), camera(delay_s=4.0)
    ends = []
    for made, start in ((early, 0), (late, 2)):
        ends.append([n for n in range(start, 8) if show(made, float(n))[1]])
    assert ends == [[3, 7], [3, 7]]


def test_group_whose_last_slot_had_no_view_leaves_when_its_time_is_over():
    made = camera(delay_s=4.0)
    for n in range(3):
        show(made, float(n))
    assert made.on_time(3.9) == []
    assert slots_of(made.on_time(4.02)) == [[int(WALL) + n for n in range(3)]]


def test_what_is_held_when_the_connection_is_lost_becomes_backlog():
    made = camera(delay_s=4.0, backlog_per_s=100.0)
    slots = [show(made, float(n))[0] for n in range(2)]
    made.on_disconnected(2.0)
    made.on_connected()
    made.on_time(2.5)
    frames = [wire.decode(m.payload) for m in made.on_time(3.5)]
    assert made.agent.counts["put_aside"] == 2
    assert {f.slot for f in frames} <= set(slots)
    assert all(f.flags & Flag.BACKLOG for f in frames)


def test_summaries_in_a_message_that_a_dead_connection_swallowed_are_sent_again_one_by_one():
    made = camera(delay_s=2.0, unsure_s=10.0, backlog_per_s=100.0)
    slots = [show(made, float(n))[0] for n in range(4)]
    made.on_disconnected(3.5)
    made.on_connected()
    assert slots_of(made.on_time(4.5)) == [[slot] for slot in slots]


def test_what_is_held_across_a_clock_step_is_dropped_and_counted():
    made = camera(delay_s=4.0)
    show(made, 0.0)
    show(made, 1.0, offset=100.0)
    assert made.agent.counts["dropped_clock_step"] == 1
    assert slots_of(made.on_time(9.0)) == [[int(WALL) + 101]]


def test_summaries_of_two_boots_do_not_share_a_message():
    made = camera(delay_s=4.0)
    show(made, 0.0)
    made.agent.restart()
    _, messages = show(made, 1.0)
    assert slots_of(messages) == [[int(WALL)]]


def test_what_is_held_at_the_end_is_sent():
    made = camera(delay_s=4.0)
    slot, _ = show(made, 0.0)
    assert slots_of(made.close(0.5)) == [[slot]]
    assert made.close(0.6) == []


# -- gateways ----------------------------------------------------------------------------------


def several(count=4, slot=SLOT, **fields):
    return summaries.join([summary(slot + n, **fields) for n in range(count)])


def decided(messages):
    return [decisions.decode(m.payload) for m in messages if m.topic == "ddnn/s/decision"]


def test_gateway_decides_every_slot_of_a_message_and_counts_its_bytes_once():
    made = gateway(summary_delay_s=4.0)
    messages = [m for n in range(3) for m in take(made, f"s/s/{n}", several())]
    got = decided(messages)
    assert [d.slot for d in got] == [SLOT + n for n in range(4)]
    assert all(d.used == (0, 1, 2) and d.exit == "local" for d in got)
    assert sum(d.payload_bytes for d in got) == 3 * len(several())
    assert made.ledger()["opened"] == made.ledger()["decided"] == 4


def test_one_message_and_summaries_alone_complete_the_same_slots():
    made = gateway(summary_delay_s=4.0)
    for n in range(4):
        take(made, "s/s/0", summary(SLOT + n))
    take(made, "s/s/1", several())
    got = decided(take(made, "s/s/2", several()))
    assert [d.slot for d in got] == [SLOT + n for n in range(4)]
    assert [d.payload_bytes for d in got] == [13 + 2 * 15, 13 + 6, 13 + 6, 13 + 6]


def test_slot_waits_as_long_as_cameras_may_hold_its_reports_back():
    """The first camera reports at once; the others may wait for four seconds."""
    made = gateway(summary_delay_s=4.0)
    wall = SLOT + 0.25
    take(made, "s/s/0", summary(SLOT), now=0.0, wall=wall)
    assert made.next_deadline() == pytest.approx(3.75 + 0.5)
    take(made, "s/s/1", several(), now=3.75, wall=wall + 3.75)
    (one, *_) = decided(take(made, "s/s/2", several(), now=3.75, wall=wall + 3.75))
    assert (one.slot, one.missing) == (SLOT, ())


def test_a_message_that_was_lost_does_not_make_its_camera_a_silent_one():
    made = gateway(summary_delay_s=4.0)
    for member in (0, 1):
        take(made, f"s/s/{member}", several(), now=4.0, wall=SLOT + 4.0)
    made.on_time(8.0, SLOT + 8.0)
    assert made.ledger()["decided"] == 4
    later = several(slot=SLOT + 4)
    for member in (0, 1):
        assert decided(take(made, f"s/s/{member}", later, now=8.0, wall=SLOT + 8.0)) == []
    got = decided(take(made, "s/s/2", later, now=8.0, wall=SLOT + 8.0))
    assert [d.missing for d in got] == [()] * 4


@pytest.mark.parametrize("length", range(len(several())))
def test_message_cut_at_any_byte_changes_nothing_but_a_counter(length):
    made = gateway(summary_delay_s=4.0)
    before = len(made.journal)
    assert take(made, "s/s/0", several()[:length]) == []
    assert len(made.journal) == before
    counts = {name: count for name, count in made.ledger().items() if count}
    assert set(counts) == {"malformed"}


@given(st.dictionaries(st.integers(0, len(several()) - 1), st.integers(0, 255), max_size=3))
def test_message_with_any_bytes_changed_raises_nothing_and_the_ledger_balances(changes):
    made = gateway(summary_delay_s=4.0)
    payload = bytes(changes.get(n, byte) for n, byte in enumerate(several()))
    take(made, "s/s/0", payload)
    for n in (1, 2):
        take(made, f"s/s/{n}", several())
    ledger = made.ledger()
    ended = sum(ledger.get(name, 0) for name in ("decided", "degraded", "expired"))
    assert ledger["opened"] == ended + ledger["open"]


def test_slots_outside_of_the_window_are_not_opened():
    made = gateway(summary_delay_s=4.0, window_s=2.0)
    take(made, "s/s/0", several(8), wall=SLOT + 0.5)
    assert made.ledger()["opened"] == 3
    assert made.ledger()["out_of_window"] == 5


def test_restarted_gateway_goes_on_with_what_a_message_brought():
    before = gateway(summary_delay_s=4.0)
    take(before, "s/s/0", several())
    after = gateway(bytes(before.journal), boot=10, summary_delay_s=4.0)
    assert after.ledger()["open"] == 4
    messages = [m for n in (1, 2) for m in take(after, f"s/s/{n}", several())]
    assert [d.used for d in decided(messages)] == [(0, 1, 2)] * 4
