"""The engine of a node: one frame's way, and every way it can go wrong."""

import math

import pytest

from ddnn.breaker import Breaker
from ddnn.slots import ClosedSlots
from ddnn.tier import (
    Decision,
    Escalate,
    Expired,
    Failed,
    Feed,
    Passed,
    Report,
    Request,
    Tier,
    TierConfig,
)
from ddnn.wire import Flag, Kind
from tests.fakes import BROKEN, BrokenSections, FakeSections, answer, features, frame, summary


def tier(**options):
    """A node whose three members are all known to be up."""
    config = options.pop("config", None)
    node = Tier(FakeSections(**options), config)
    for member in range(node.sections.members):
        node.on_member(member, True, 0.0)
    return node


def report_all(node, slot, now=0.0, *, sure=True):
    actions = []
    for member in range(node.sections.members):
        actions += node.on_summary(member, slot, summary(slot, sure=sure), now)
    return actions


def balanced(node):
    counts = node.counts
    ended = counts["decided"] + counts["degraded"] + counts["expired"]
    return counts["opened"] == ended + node.open_slots


def test_sure_frame_is_decided_locally_as_soon_as_all_reported():
    node = tier()
    assert node.on_summary(0, 5, summary(5), 0.0) == []
    assert node.on_summary(1, 5, summary(5), 0.1) == []
    (decision,) = node.on_summary(2, 5, summary(5), 0.2)
    assert isinstance(decision, Decision)
    assert (decision.slot, decision.exit, decision.label) == (5, "local", 0)
    assert decision.used == (0, 1, 2)
    assert decision.missing == decision.absent == ()
    assert decision.degraded is None
    assert decision.payload_bytes == 3 * 13
    assert decision.stage_s["summaries"] == pytest.approx(0.2)
    assert node.open_slots == 0


def test_unsure_frame_goes_on_to_the_edge():
    node = tier()
    actions = report_all(node, 5, sure=False)
    assert actions == [Request(0, 5), Request(1, 5), Request(2, 5)]
    assert node.on_features(0, 5, features(5), 0.1) == []
    assert node.on_features(1, 5, features(5), 0.1) == []
    (decision,) = node.on_features(2, 5, features(5), 0.2)
    assert (decision.exit, decision.label, decision.degraded) == ("edge", 1, None)


def test_unsure_edge_goes_on_to_the_cloud():
    node = tier()
    report_all(node, 5, sure=False)
    actions = []
    for member in range(3):
        actions += node.on_features(member, 5, features(5, sure=False), 0.1)
    assert actions == [Escalate(5, b"\x01\0\0\0edge")]
    (decision,) = node.on_answer(5, answer(5), 0.2)
    assert (decision.exit, decision.label, decision.degraded) == ("cloud", 2, None)
    assert set(decision.stage_s) == {"summaries", "features", "answer"}


def test_without_an_edge_section_the_members_features_go_to_the_cloud():
    node = tier(edge=False)
    node.on_summary(0, 5, summary(5, sure=False), 0.0)
    node.on_summary(1, 5, frame(Kind.SUMMARY, 5, flags=Flag.ABSENT), 0.0)
    assert node.on_summary(2, 5, summary(5, sure=False), 0.0) == [Request(0, 5), Request(2, 5)]
    node.on_features(2, 5, frame(Kind.FEATURES, 5, b"cccc"), 0.1)
    (action,) = node.on_features(0, 5, frame(Kind.FEATURES, 5, b"aaaa"), 0.1)
    assert action == Escalate(5, b"\x05\0\0\0aaaacccc")


def test_the_last_exit_always_answers():
    node = tier(edge=False, cloud=False)
    (decision,) = report_all(node, 5, sure=False)
    assert (decision.exit, decision.degraded) == ("local", None)
    node = tier(cloud=False)
    report_all(node, 5, sure=False)
    decisions = [a for m in range(3) for a in node.on_features(m, 5, features(5, sure=False), 0.1)]
    assert [d.exit for d in decisions] == ["edge"]


def test_absent_cameras_are_not_asked_and_not_used():
    node = tier()
    node.on_summary(0, 5, frame(Kind.SUMMARY, 5, flags=Flag.ABSENT), 0.0)
    node.on_summary(1, 5, summary(5, sure=False), 0.0)
    assert node.on_summary(2, 5, summary(5, sure=False), 0.0) == [Request(1, 5), Request(2, 5)]
    node.on_features(1, 5, features(5), 0.0)
    (decision,) = node.on_features(2, 5, features(5), 0.0)
    assert (decision.used, decision.absent, decision.missing) == ((1, 2), (0,), ())


def test_when_nobody_sees_anything_the_decision_says_so():
    node = tier()
    actions = []
    for member in range(3):
        actions += node.on_summary(member, 5, frame(Kind.SUMMARY, 5, flags=Flag.ABSENT), 0.0)
    (decision,) = actions
    assert (decision.label, decision.exit, decision.degraded) == (None, None, None)
    assert decision.absent == (0, 1, 2)


def test_missing_camera_is_waited_for_until_the_deadline_only():
    node = tier(config=TierConfig(summary_wait_s=0.5))
    node.on_summary(0, 5, summary(5), 10.0)
    node.on_summary(2, 5, summary(5), 10.1)
    assert node.next_deadline() == 10.5
    assert node.on_time(10.49) == []
    (decision,) = node.on_time(10.5)
    assert (decision.used, decision.missing, decision.degraded) == ((0, 2), (1,), None)
    assert node.sections.local_masks[0].tolist() == [1, 0, 1]


def test_camera_whose_will_came_is_not_waited_for():
    node = tier()
    node.on_summary(0, 5, summary(5), 0.0)
    node.on_summary(2, 5, summary(5), 0.0)
    (decision,) = node.on_member(1, False, 0.1)
    assert decision.missing == (1,)
    node.on_summary(0, 6, summary(6), 1.0)
    assert [a.slot for a in node.on_summary(2, 6, summary(6), 1.0)] == [6]


def test_hung_camera_costs_a_few_deadlines_then_none_until_it_reports():
    node = tier(config=TierConfig(summary_wait_s=0.5, silent_after_slots=2))
    for slot in (1, 2):
        node.on_summary(0, slot, summary(slot), slot)
        assert node.on_summary(2, slot, summary(slot), slot) == []
        assert len(node.on_time(slot + 0.5)) == 1
    node.on_summary(0, 3, summary(3), 3.0)
    assert len(node.on_summary(2, 3, summary(3), 3.0)) == 1
    assert node.on_summary(1, 3, summary(3), 3.1) == []  # late, but back
    node.on_summary(0, 4, summary(4), 4.0)
    assert node.on_summary(2, 4, summary(4), 4.0) == []
    assert len(node.on_summary(1, 4, summary(4), 4.0)) == 1


def test_features_that_do_not_come_degrade_to_the_local_answer():
    node = tier(config=TierConfig(features_wait_s=1.0))
    report_all(node, 5, 0.0, sure=False)
    (decision,) = node.on_time(1.0)
    assert (decision.exit, decision.label) == ("local", 0)
    assert decision.degraded == "features_missing"


def test_some_features_missing_go_on_with_the_rest_and_say_so():
    node = tier()
    report_all(node, 5, 0.0, sure=False)
    node.on_features(1, 5, features(5), 0.1)
    (decision,) = node.on_time(1.0)
    assert (decision.exit, decision.used) == ("edge", (1,))
    assert decision.degraded == "features_missing"
    assert node.sections.edge_masks[0].tolist() == [0, 1, 0]


def test_member_whose_ring_has_moved_on_is_not_waited_for():
    node = tier()
    report_all(node, 5, sure=False)
    node.on_features(0, 5, features(5), 0.1)
    node.on_features(1, 5, features(5), 0.1)
    (decision,) = node.on_features(2, 5, frame(Kind.FEATURES, 5, flags=Flag.ABSENT), 0.1)
    assert (decision.used, decision.degraded) == ((0, 1), "features_missing")


def test_member_that_dies_while_asked_is_not_waited_for():
    node = tier()
    report_all(node, 5, sure=False)
    node.on_features(0, 5, features(5), 0.1)
    node.on_features(1, 5, features(5), 0.1)
    (decision,) = node.on_member(2, False, 0.2)
    assert (decision.exit, decision.degraded) == ("edge", "features_missing")


def escalated(node, slot=5):
    report_all(node, slot, 0.0, sure=False)
    for member in range(3):
        node.on_features(member, slot, features(slot, sure=False), 0.1)


def test_dead_cloud_degrades_to_the_edge_answer():
    node = tier(config=TierConfig(answer_wait_s=2.0))
    escalated(node)
    assert node.next_deadline() == pytest.approx(2.1)
    (decision,) = node.on_time(2.2)
    assert (decision.exit, decision.degraded) == ("edge", "cloud_timeout")


def test_cloud_without_the_bundle_degrades_at_once():
    node = tier()
    escalated(node)
    (decision,) = node.on_answer(5, frame(Kind.ANSWER, 5, flags=Flag.UNSERVED), 0.2)
    assert (decision.exit, decision.degraded) == ("edge", "cloud_lacks_bundle")


def test_malformed_answer_changes_nothing_but_a_counter():
    node = tier()
    escalated(node)
    assert node.on_answer(5, frame(Kind.ANSWER, 5, b"12345"), 0.2) == []
    assert node.counts["malformed"] == 1
    assert len(node.on_answer(5, answer(5), 0.3)) == 1


@pytest.mark.parametrize("local", [True, False])
def test_slot_without_any_answer_expires_and_is_counted(local):
    node = tier(local=local, edge=False)
    if local:
        report_all(node, 5, 0.0, sure=False)
    else:
        for member in range(3):
            node.on_summary(member, 5, frame(Kind.SUMMARY, 5), 0.0)
    (action,) = node.on_time(9.0)
    assert isinstance(action, Decision if local else Expired)
    assert node.counts["expired"] == int(not local)
    assert balanced(node)


def test_duplicate_summary_is_counted_and_first_wins():
    node = tier()
    node.on_summary(0, 5, summary(5, sure=False), 0.0)
    node.on_summary(0, 5, summary(5, sure=True), 0.0)
    assert node.counts["duplicate"] == 1
    node.on_summary(1, 5, summary(5), 0.0)
    assert node.on_summary(2, 5, summary(5), 0.0) == [Request(m, 5) for m in range(3)]


def test_late_summary_opens_no_second_slot():
    node = tier()
    report_all(node, 5)
    assert node.on_summary(1, 5, summary(5), 9.0) == []
    assert node.counts["late"] == 1
    assert node.counts["opened"] == 1


def test_late_summary_while_features_are_awaited_is_counted():
    node = tier(config=TierConfig(summary_wait_s=0.5))
    node.on_summary(0, 5, summary(5, sure=False), 0.0)
    assert node.on_time(0.5) == [Request(0, 5)]
    assert node.on_summary(1, 5, summary(5), 0.6) == []
    assert node.counts["late"] == 1


def test_features_of_another_boot_than_the_summary_are_refused():
    node = tier()
    report_all(node, 5, sure=False)
    assert node.on_features(0, 5, features(5, boot=8), 0.1) == []
    assert node.counts["unasked"] == 1


def test_unasked_features_are_counted():
    node = tier()
    assert node.on_features(0, 5, features(5), 0.0) == []
    assert node.counts["unasked"] == 1


@pytest.mark.parametrize("tag", [0, 0x0BAE, 0xFFFF])
def test_frame_of_another_bundle_is_never_mixed_in(tag):
    node = tier()
    assert node.on_summary(0, 5, summary(5, tag=tag), 0.0) == []
    assert node.counts == {"wrong_tag": 1}
    escalated(node, 6)
    assert node.on_features(0, 6, features(6, tag=tag), 0.1) == []
    assert node.on_answer(6, answer(6, tag=tag), 0.1) == []
    assert node.counts["wrong_tag"] == 3


@pytest.mark.parametrize("member", [-1, 3, 9999])
def test_unknown_member_is_counted(member):
    node = tier()
    assert node.on_summary(member, 5, summary(5), 0.0) == []
    assert node.on_features(member, 5, features(5), 0.0) == []
    assert node.on_member(member, True, 0.0) == []
    assert node.counts == {"unknown_member": 3}


@pytest.mark.parametrize("body", [b"", b"ab", b"abcd"])
def test_summary_of_wrong_length_is_malformed(body):
    node = tier()
    assert node.on_summary(0, 5, frame(Kind.SUMMARY, 5, body), 0.0) == []
    assert node.counts == {"malformed": 1}


def test_kind_that_does_not_fit_its_topic_is_malformed():
    node = tier()
    assert node.on_summary(0, 5, features(5), 0.0) == []
    assert node.on_features(0, 5, summary(5), 0.0) == []
    assert node.on_answer(5, summary(5), 0.0) == []
    assert node.counts == {"malformed": 3}


def test_open_slots_are_bounded_and_the_oldest_is_decided_degraded():
    node = tier(config=TierConfig(max_open_slots=4, silent_after_slots=100))
    actions = []
    for slot in range(10):
        actions += node.on_summary(0, slot, summary(slot), 0.0)
    assert node.open_slots == 4
    assert [(a.slot, a.degraded, a.exit) for a in actions] == [
        (slot, "overload", "local") for slot in range(6)
    ]
    assert balanced(node)


def test_memory_of_closed_slots_is_bounded():
    node = tier(config=TierConfig(remembered_slots=10))
    for slot in range(100):
        report_all(node, slot)
    assert len(node._closed) == 10


def test_close_ends_every_slot_in_whatever_stage():
    node = tier()
    escalated(node, 1)
    report_all(node, 2, sure=False)
    node.on_summary(0, 3, summary(3), 0.0)
    node.on_summary(0, 4, frame(Kind.SUMMARY, 4, flags=Flag.ABSENT), 0.0)
    decisions = node.close("shutdown", 1.0)
    assert [(d.slot, d.exit, d.degraded) for d in decisions] == [
        (1, "edge", "shutdown"),
        (2, "local", "shutdown"),
        (3, "local", "shutdown"),
        (4, None, "shutdown"),
    ]
    assert node.open_slots == 0
    assert balanced(node)


# -- asking a few at a time --------------------------------------------------------------------


def clear(slot, lead, **fields):
    """A summary whose best class leads by `lead` steps; the local exit is unsure of it."""
    return frame(Kind.SUMMARY, slot, bytes([0, lead, 0]), **fields)


def stepped(at_once=1):
    node = tier(config=TierConfig(ask_at_once=at_once, features_wait_s=3.0))
    node.on_summary(0, 5, clear(5, 10), 0.0)
    node.on_summary(1, 5, clear(5, 200), 0.0)
    return node, node.on_summary(2, 5, clear(5, 90), 0.0)


def test_clearest_camera_is_asked_first_and_no_other_when_it_is_enough():
    node, actions = stepped()
    assert actions == [Request(1, 5)]
    (decision,) = node.on_features(1, 5, features(5), 0.1)
    assert (decision.exit, decision.used, decision.degraded) == ("edge", (1,), None)


def test_next_clearest_is_asked_while_the_edge_is_unsure():
    node, _ = stepped()
    assert node.on_features(1, 5, features(5, sure=False), 0.1) == [Request(2, 5)]
    assert node.on_features(2, 5, features(5, sure=False), 0.2) == [Request(0, 5)]
    assert isinstance(node.on_features(0, 5, features(5, sure=False), 0.3)[0], Escalate)


def test_silent_camera_costs_its_step_only():
    node, _ = stepped()
    assert node.next_deadline() == pytest.approx(1.0)
    assert node.on_time(1.0) == [Request(2, 5)]
    (decision,) = node.on_features(2, 5, features(5, sure=True), 1.1)
    assert (decision.used, decision.degraded) == ((2,), "features_missing")


def test_steps_together_take_no_longer_than_the_stage_may():
    node, _ = stepped()
    for _ in range(3):
        actions = node.on_time(node.next_deadline())
    assert [a.degraded for a in actions] == ["features_missing"]
    assert sum(actions[0].stage_s.values()) == pytest.approx(3.0)


# -- breaker -----------------------------------------------------------------------------------


def broken(**options):
    breaker = Breaker()
    breaker.trip(0.0)
    node = Tier(FakeSections(**options), breaker=breaker)
    return node, breaker


def test_known_dead_cloud_is_not_waited_for():
    node, breaker = broken()
    report_all(node, 5, sure=False)
    decisions = [a for m in range(3) for a in node.on_features(m, 5, features(5, sure=False), 0.1)]
    assert [(d.exit, d.degraded) for d in decisions] == [("edge", "cloud_down")]
    assert balanced(node)
    breaker.probe_now(0.2)
    report_all(node, 6, 0.2, sure=False)
    for member in range(3):
        node.on_features(member, 6, features(6, sure=False), 0.2)
    (decision,) = node.on_answer(6, answer(6), 0.3)
    assert decision.degraded is None
    assert breaker.state == "closed"


def test_features_are_not_asked_for_when_they_have_nowhere_to_go():
    node, _ = broken(edge=False)
    (decision,) = report_all(node, 5, sure=False)
    assert (decision.exit, decision.degraded) == ("local", "cloud_down")


def test_unanswered_escalations_open_the_breaker():
    breaker = Breaker(failures=3)
    node = Tier(FakeSections(), TierConfig(answer_wait_s=2.0), breaker=breaker)
    for slot in range(3):
        escalated(node, slot)
    assert len(node.on_time(3.0)) == 3
    assert breaker.state == "open"


def test_escalations_are_asked_again_when_a_worker_has_died():
    node = tier()
    escalated(node, 5)
    assert node.escalate_again() == [Escalate(5, b"\x01\0\0\0edge")]
    assert len(node.on_answer(5, answer(5), 0.2)) == 1
    assert node.on_answer(5, answer(5), 0.3) == []
    assert node.escalate_again() == []


# -- backlog and bounds ------------------------------------------------------------------------


def test_backlog_slot_waits_longer_and_says_nothing_of_who_is_alive():
    node = tier(config=TierConfig(backlog_wait_s=3.0, silent_after_slots=1))
    node.on_summary(0, 5, summary(5, flags=Flag.BACKLOG), 0.0)
    assert node.on_time(2.9) == []
    (decision,) = node.on_time(3.0)
    assert decision.missing == (1, 2)
    assert node.alive() == {0, 1, 2}


def test_backlog_of_a_decided_slot_is_counted():
    node = tier()
    report_all(node, 5)
    assert node.on_summary(0, 5, summary(5, flags=Flag.BACKLOG), 1.0) == []
    assert node.counts["late_backlog"] == 1


def test_backlog_never_takes_a_fresh_slots_place():
    node = tier(config=TierConfig(max_open_slots=2))
    node.on_summary(0, 8, summary(8), 0.0)
    node.on_summary(0, 9, summary(9), 0.0)
    assert node.on_summary(0, 1, summary(1, flags=Flag.BACKLOG), 0.0) == []
    assert node.counts["backlog_refused"] == 1
    assert balanced(node)


def test_fresh_slot_takes_the_place_of_backlog_first():
    node = tier(config=TierConfig(max_open_slots=2))
    node.on_summary(0, 9, summary(9), 0.0)
    node.on_summary(0, 1, summary(1, flags=Flag.BACKLOG), 0.0)
    (decision,) = node.on_summary(0, 10, summary(10), 0.0)
    assert (decision.slot, decision.degraded) == (1, "overload")


def test_bytes_held_are_bounded():
    node = tier(config=TierConfig(max_open_bytes=40, silent_after_slots=1000))
    for slot in range(20):
        report_all(node, slot, sure=False)
        assert node.held_bytes <= 40
    assert node.counts["degraded.overload"] > 10
    assert balanced(node)


def test_slot_that_was_closed_before_is_never_opened_again():
    closed = ClosedSlots()
    closed.add(5)
    node = Tier(FakeSections(), closed=closed)
    assert node.on_summary(0, 5, summary(5), 0.0) == []
    assert node.counts == {"late": 1}


def test_camera_heard_of_after_its_will_is_alive():
    node = tier()
    node.on_member(1, False, 0.0)
    node.on_summary(1, 5, summary(5), 0.1)
    assert 1 in node.alive()


def test_threshold_changed_while_running_counts_for_the_next_frame():
    node = tier()
    node.thresholds["local"] = 0.0
    assert report_all(node, 5) == [Request(m, 5) for m in range(3)]
    node.thresholds["local"] = 1.0
    (decision,) = report_all(node, 6, sure=False)
    assert (decision.exit, decision.threshold) == ("local", 1.0)


# -- nodes below nodes -------------------------------------------------------------------------


def child(**options):
    return Tier(FakeSections(cloud=False), TierConfig(**options), has_parent=True)


def scores_of_edge(*, sure):
    """The fake edge exit's logits, as score bytes: class 1 is ahead by 10 nats or by 0.01."""
    behind = 255 - (160 if sure else 0)
    return bytes([behind, 255, behind])


def passed_on(node):
    return node.counts["opened"] == node.counts["passed"] + node.open_slots


def test_node_with_a_parent_reports_its_scores_and_decides_nothing():
    node = child()
    (report,) = report_all(node, 5, sure=True)
    assert isinstance(report, Report)
    assert len(report.scores) == 3
    assert report.scores[0] == max(report.scores)
    assert node.on_time(3.0) == [Passed(5)]
    assert passed_on(node)
    assert node.open_slots == 0


def test_parents_request_brings_the_members_features_up():
    node = child()
    report_all(node, 5, sure=False)
    assert node.on_parent_request(5, 0.1) == [Request(m, 5) for m in range(3)]
    assert node.on_parent_request(5, 0.1) == []
    actions = [a for m in range(3) for a in node.on_features(m, 5, features(5, sure=False), 0.2)]
    assert actions == [Feed(5, scores_of_edge(sure=False) + b"edge"), Passed(5)]
    assert passed_on(node)


def test_features_that_a_member_did_not_send_make_what_goes_up_partial():
    node = child(features_wait_s=1.0)
    report_all(node, 5, sure=False)
    node.on_parent_request(5, 0.0)
    node.on_features(0, 5, features(5), 0.1)
    feed, passed = node.on_time(1.0)
    assert feed == Feed(5, scores_of_edge(sure=True) + b"edge", partial=True)
    assert passed == Passed(5)


def test_decision_on_a_members_partial_features_says_so():
    parent = Tier(FakeSections(members=2, cloud=False), TierConfig())
    for member in range(2):
        parent.on_summary(member, 5, summary(5, sure=False), 0.0)
    parent.on_features(0, 5, features(5), 0.1)
    (decision,) = parent.on_features(1, 5, features(5, flags=Flag.PARTIAL), 0.1)
    assert (decision.exit, decision.used, decision.degraded) == ("edge", (0, 1), "features_missing")


def test_node_that_must_end_a_slot_early_reports_what_it_has():
    node = child()
    node.on_summary(0, 5, summary(5), 0.0)
    report, passed = node.close("shutdown", 0.1)
    assert (report.slot, report.scores is None, passed) == (5, False, Passed(5))


def test_report_of_a_slot_from_before_an_outage_says_so():
    node = child()
    for member in range(3):
        actions = node.on_summary(member, 5, summary(5, flags=Flag.BACKLOG), 0.0)
    (report,) = actions
    assert report.late


def test_waits_leave_room_for_those_of_the_nodes_below():
    config = TierConfig(summary_wait_s=0.7, features_wait_s=1.1)
    above, below = config.above_nodes(), config.below_a_parent()
    assert above.summary_wait_s > below.summary_wait_s
    assert above.features_wait_s > below.features_wait_s
    assert below.parent_wait_s > above.summary_wait_s


def test_parent_that_asks_too_late_is_told_so():
    node = child(parent_wait_s=1.0)
    report_all(node, 5, sure=False)
    node.on_time(1.0)
    assert node.on_parent_request(5, 1.1) == [Feed(5, None)]
    assert node.on_parent_request(99, 1.1) == []


def test_node_whose_members_see_nothing_reports_that():
    node = child()
    actions = []
    for member in range(3):
        actions += node.on_summary(member, 5, frame(Kind.SUMMARY, 5, flags=Flag.ABSENT), 0.0)
    assert actions == [Report(5, None), Passed(5)]
    assert passed_on(node)


def test_members_that_do_not_answer_the_node_leave_the_parent_without_features():
    node = child(features_wait_s=1.0)
    report_all(node, 5, sure=False)
    node.on_parent_request(5, 0.0)
    assert node.on_time(1.0) == [Feed(5, None), Passed(5)]
    assert passed_on(node)


def test_two_nodes_below_a_third_make_one_decision():
    """The paper's shape with several edges: the same engine three times."""
    parent = Tier(FakeSections(members=2, cloud=False), TierConfig())
    nodes = [child(), child()]
    decisions = []

    def carry_up(number, actions, now):
        for action in actions:
            match action:
                case Report(slot=slot, scores=scores):
                    up = frame(Kind.SUMMARY, slot, b"\0" + scores[1:], boot=number)
                    carry_down(parent.on_summary(number, slot, up, now), now)
                case Feed(slot=slot, features=data):
                    up = frame(Kind.FEATURES, slot, b"\1" + data[-3:], boot=number)
                    carry_down(parent.on_features(number, slot, up, now), now)
                case Request(member=member, slot=slot):
                    carry_up(
                        number, nodes[number].on_features(member, slot, features(slot), now), now
                    )

    def carry_down(actions, now):
        for action in actions:
            if isinstance(action, Request):
                carry_up(
                    action.member, nodes[action.member].on_parent_request(action.slot, now), now
                )
            elif isinstance(action, Decision):
                decisions.append(action)

    for member in range(3):
        for number, node in enumerate(nodes):
            carry_up(number, node.on_summary(member, 7, summary(7, sure=False), 0.0), 0.0)
    (decision,) = decisions
    assert (decision.slot, decision.exit, decision.used) == (7, "edge", (0, 1))
    assert all(passed_on(node) for node in nodes)


# -- sections that raise -----------------------------------------------------------------------


def raising(**options):
    node = Tier(BrokenSections(), TierConfig(**options))
    for member in range(3):
        node.on_member(member, True, 0.0)
    return node


def test_slot_whose_first_section_raises_expires_at_once():
    node = raising()
    node.on_summary(0, 5, summary(5), 0.0)
    node.on_summary(1, 5, summary(5), 0.0)
    failed, expired = node.on_summary(2, 5, frame(Kind.SUMMARY, 5, bytes([1, BROKEN, 0])), 0.0)
    assert (failed.slot, str(failed.error)) == (5, "a section cannot be run")
    assert expired == Expired(5, "error")
    assert balanced(node)
    assert node.next_deadline() == math.inf


def test_slot_whose_edge_section_raises_is_decided_by_what_the_local_exit_has_said():
    node = raising()
    report_all(node, 5, sure=False)
    node.on_features(0, 5, features(5), 0.1)
    node.on_features(1, 5, features(5), 0.1)
    failed, decision = node.on_features(
        2, 5, frame(Kind.FEATURES, 5, bytes([1, BROKEN, 0, 0])), 0.1
    )
    assert isinstance(failed, Failed)
    assert (decision.exit, decision.degraded) == ("local", "error")
    assert balanced(node)


@pytest.mark.parametrize("end", ["on_time", "close"])
def test_slot_that_raises_takes_no_other_with_it(end):
    node = raising()
    for slot in (4, 5, 6):
        body = bytes([1, BROKEN if slot == 5 else 0, 0])
        node.on_summary(0, slot, frame(Kind.SUMMARY, slot, body), 0.0)
    actions = node.on_time(10.0) if end == "on_time" else node.close("shutdown", 10.0)
    assert [(type(action), action.slot) for action in actions] == [
        (Decision, 4), (Failed, 5), (Expired, 5), (Decision, 6),
    ]  # fmt: skip
    assert balanced(node)


def test_slot_that_raises_when_it_must_make_room_lets_the_next_one_in():
    node = raising(max_open_slots=1)
    node.on_summary(0, 5, frame(Kind.SUMMARY, 5, bytes([1, BROKEN, 0])), 0.0)
    failed, expired = node.on_summary(0, 6, summary(6), 0.0)
    assert isinstance(failed, Failed)
    assert expired == Expired(5, "error")
    assert node.open_slots == 1


@pytest.mark.parametrize("asked", [False, True])
def test_node_below_a_parent_passes_on_a_slot_that_raises(asked):
    node = Tier(BrokenSections(), has_parent=True)
    for member in range(3):
        node.on_member(member, True, 0.0)
    actions = []
    for member in range(3):
        body = bytes([0, 0 if asked else BROKEN, 0])
        actions = node.on_summary(member, 5, frame(Kind.SUMMARY, 5, body), 0.0)
    if asked:
        node.on_parent_request(5, 0.0)
        for member in range(3):
            body = bytes([0, BROKEN, 0, 0])
            actions = node.on_features(member, 5, frame(Kind.FEATURES, 5, body), 0.0)
    failed, *rest = actions
    assert isinstance(failed, Failed)
    assert rest == ([Feed(5, None)] if asked else []) + [Passed(5)]
    assert node.counts["opened"] == node.counts["passed"] == 1
