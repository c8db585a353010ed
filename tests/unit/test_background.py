"""Loading a bundle holds up neither frames nor deadlines."""

import threading

from ddnn.background import Background
from tests.signing import signed
from tests.unit.test_refusals import Node, newer


def test_pieces_of_work_are_done_in_order_and_a_failure_ends_only_its_own(caplog):
    caplog.set_level("ERROR", "ddnn.background")
    done, finished = [], threading.Event()
    background = Background("test")
    background(lambda: done.append(1))
    background(lambda: done.append(1 / 0))
    background(lambda: done.append(2))
    background(finished.set)
    assert finished.wait(10)
    assert done == [1, 2]
    assert "ZeroDivisionError" in caplog.text


def test_bundle_is_staged_when_its_turn_has_come_and_loaded_once():
    node = Node()
    work = []
    node.feed._later = work.append
    fresh = signed(newer())
    node.broker.offer(fresh)
    node.broker.offer(fresh)  # a reconnect sends the manifest again
    assert node.feed.staged is None
    assert len(work) == 1
    work.pop()()
    assert node.feed.staged_id == fresh.bundle_id


def test_newer_offer_while_one_waits_to_be_loaded_wins():
    node = Node()
    work = []
    node.feed._later = work.append
    first, second = signed(newer(6)), signed(newer(7, b"y"))
    node.broker.offer(first)
    node.broker.offer(second)
    for piece in work:
        piece()
    assert node.feed.staged_id == second.bundle_id
    assert first.bundle_id not in node.runner.staged


def test_clock_is_looked_at_while_a_bundle_is_being_loaded():
    """`on_time` is in the way of every frame: it must not wait for the loading thread."""
    node = Node()
    loading, go_on, staged = threading.Event(), threading.Event(), threading.Event()
    right = node.runner.stage

    def slow(bundle):
        loading.set()
        assert go_on.wait(10)
        right(bundle)
        staged.set()

    node.runner.stage = slow
    node.feed._later = Background("test")
    node.broker.offer(signed(newer()))
    assert loading.wait(10)
    node.feed.on_time()
    assert not staged.is_set()
    go_on.set()
    assert staged.wait(10)
