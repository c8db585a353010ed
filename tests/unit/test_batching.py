"""Which escalations share a batch, which are dropped, and that each is answered as if alone."""

import threading
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_service.answering import Answering, Asked
from cloud_service.batching import Batches, BatchRules
from cloud_service.worker import Request, Worker
from ddnn import wire
from ddnn.wire import Kind
from tests.bundles import random_bundle, with_version

BUNDLE = random_bundle(cameras=4)
FOREVER = float("inf")


def queue(**rules):
    return Batches(BatchRules(**rules), Counter())


def put(batches, group, request, now, expires_at=FOREVER, size_bytes=1):
    batches.put(group, request, size_bytes, now, expires_at)


def requests(batch):
    return [one.request for one in batch]


def test_quiet_worker_answers_at_once():
    batches = queue(size=8, delay_s=0.0)
    put(batches, "a", 1, now=5.0)
    assert batches.next_due() == 5.0
    assert requests(batches.take(5.0)) == [1]
    assert batches.next_due() is None


def test_what_came_meanwhile_is_one_batch():
    batches = queue(size=8)
    for number in range(5):
        put(batches, "a", number, now=0.0)
    assert requests(batches.take(0.0)) == [0, 1, 2, 3, 4]


def test_request_waits_for_others_no_longer_than_the_delay():
    batches = queue(size=8, delay_s=0.25)
    put(batches, "a", 1, now=1.0)
    assert batches.take(1.125) == []
    put(batches, "a", 2, now=1.125)
    assert batches.next_due() == 1.25
    assert requests(batches.take(1.25)) == [1, 2]


def test_full_batch_does_not_wait():
    batches = queue(size=2, delay_s=1.0)
    put(batches, "b", 0, now=0.0)
    put(batches, "a", 1, now=0.0)
    put(batches, "a", 2, now=0.0)
    assert batches.next_due() == 0.0
    assert requests(batches.take(0.0)) == [1, 2]
    assert batches.take(0.0) == []


def test_group_that_fills_batches_all_the_time_does_not_starve_another():
    batches = queue(size=2, delay_s=1.0)
    put(batches, "quiet", "mine", now=0.0)
    for number in range(8):
        put(batches, "busy", number, now=0.5)
    assert requests(batches.take(1.0)) == ["mine"]


def test_full_queue_drops_the_oldest_and_counts_it():
    batches = queue(size=8, waiting=3)
    for number in range(5):
        put(batches, number % 2, number, now=0.0)
    assert sorted(requests(batches.take(0.0)) + requests(batches.take(0.0))) == [2, 3, 4]
    assert batches._counts == {"dropped_full": 2}


def test_queue_of_large_requests_is_bounded_in_bytes():
    batches = queue(size=8, waiting_bytes=10)
    for number in range(5):
        put(batches, "a", number, now=0.0, size_bytes=4)
    assert (len(batches), batches.held_bytes) == (2, 8)
    assert requests(batches.take(0.0)) == [3, 4]


def test_request_whose_asker_has_given_up_is_not_answered():
    batches = queue(size=8)
    put(batches, "a", 1, now=0.0, expires_at=1.0)
    put(batches, "b", 2, now=0.0, expires_at=3.0)
    assert requests(batches.take(2.0)) == [2]
    assert batches._counts == {"dropped_expired": 1}


def test_at_the_end_all_that_waits_is_due():
    batches = queue(size=8, delay_s=1.0)
    put(batches, "a", 1, now=0.0)
    assert requests(batches.take(0.0, all_of_it=True)) == [1]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 3), st.integers(1, 5), st.floats(0.01, 3.0)),
        st.tuples(st.just("take"), st.floats(0.0, 1.0)),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 5), st.sampled_from([0.0, 0.3]), st.integers(1, 10))
def test_every_request_is_taken_once_or_counted_as_dropped(steps, size, delay_s, waiting):
    batches = queue(size=size, delay_s=delay_s, waiting=waiting, waiting_bytes=20)
    now, number, taken = 0.0, 0, []

    def check(batch):
        assert len(batch) <= size
        assert len({one.group for one in batch}) <= 1
        assert all(now < one.expires_at for one in batch)
        taken.extend(requests(batch))

    for step in steps:
        if step[0] == "put":
            _, group, size_bytes, wait_s = step
            number += 1
            put(batches, group, (group, number), now, now + wait_s, size_bytes)
        else:
            now += step[1]
            due = batches.next_due()
            batch = batches.take(now)
            assert not batch or due <= now
            check(batch)
        assert len(batches) <= waiting
        assert batches.held_bytes <= 20
    while batch := batches.take(now, all_of_it=True):
        check(batch)
    assert len(batches) == batches.held_bytes == 0
    assert len(taken) == len(set(taken)) == number - sum(batches._counts.values())
    for group in range(4):
        own = [n for g, n in taken if g == group]
        assert own == sorted(own)


# -- answers -----------------------------------------------------------------------------------


def escalation(features, slot, tag=BUNDLE.tag):
    body = wire.pack_escalation(1, [features.tobytes()])
    return wire.encode(Kind.ESCALATION, tag=tag, boot=9, slot=slot, body=body)


def random_features(seed):
    size = BUNDLE.manifest.section("cloud").inputs[0].shape[1]
    return np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)


@pytest.fixture(scope="module")
def worker():
    made = Worker()
    made.load("s1", BUNDLE)
    return made


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**32), min_size=1, max_size=70))
def test_answers_in_a_batch_are_those_of_one_by_one_bit_for_bit(worker, seeds):
    payloads = [escalation(random_features(seed), slot) for slot, seed in enumerate(seeds)]
    accepted = [worker.accept("s1", payload) for payload in payloads]
    assert worker.run(accepted) == [worker.answer("s1", payload) for payload in payloads]


def test_sites_with_the_same_section_share_it():
    made = Worker()
    same = with_version(BUNDLE, 2)  # another bundle, the same network
    made.load("s1", BUNDLE)
    made.load("s2", same)
    one = made.accept("s1", escalation(random_features(1), 1))
    two = made.accept("s2", escalation(random_features(2), 2, same.tag))
    assert one.section is two.section
    assert [wire.decode(answer).tag for answer in made.run([one, two])] == [BUNDLE.tag, same.tag]


class Held:
    """A worker that runs when it is told to."""

    def __init__(self, *, broken_from=100):
        self.counts = Counter()
        self.go = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)
        self.batches = []
        self.broken_from = broken_from

    def run(self, requests):
        self.entered.release()
        self.go.acquire()
        if len(requests) >= self.broken_from:
            raise MemoryError("too many")
        self.batches.append(len(requests))
        return [bytes([request.frame.slot]) for request in requests]


class Answers:
    def __init__(self):
        self.got = []

    def __call__(self, site, answer, correlation):
        self.got.append((site, answer, correlation))


def request(slot):
    return Request(None, wire.Frame(Kind.ESCALATION, 0, 1, 2, slot, bytes(8)))


def ask(answering, *slots):
    answering.put([Asked("s1", request(slot), bytes([slot]), 60.0) for slot in slots])


def test_network_thread_is_not_held_up_and_what_waits_is_answered_at_the_end():
    worker, answers = Held(), Answers()
    answering = Answering(worker, BatchRules(size=3), answers)
    answering.start()
    ask(answering, 1)
    worker.entered.acquire()  # it is busy with the first one
    ask(answering, 2, 3, 4, 5)
    assert answering.stats().waiting == 4
    for _ in range(3):
        worker.go.release()
    answering.stop()
    ask(answering, 6)  # too late: it is refused without a word
    assert worker.batches == [1, 3, 1]
    assert answers.got == [("s1", bytes([n]), bytes([n])) for n in range(1, 6)]
    stats = answering.stats()
    assert stats.waiting == 0
    assert dict(zip(stats.batch_size.bounds, stats.batch_size.counts, strict=False))[4] == 1
    assert (sum(stats.batch_size.counts), stats.batch_size.sum) == (3, 5.0)
    assert sum(stats.latency_s.counts) == 5


def test_batch_that_does_not_run_is_answered_one_by_one():
    worker, answers = Held(broken_from=2), Answers()
    answering = Answering(worker, BatchRules(size=8), answers)
    for _ in range(10):
        worker.go.release()
    ask(answering, 1, 2, 3)
    answering.start()
    answering.stop()
    assert [answer for _, answer, _ in answers.got] == [b"\1", b"\2", b"\3"]


def test_request_that_does_not_run_alone_is_counted_and_the_next_one_answered(caplog):
    worker, answers = Held(broken_from=1), Answers()
    answering = Answering(worker, BatchRules(size=1), answers)
    for _ in range(10):
        worker.go.release()
    ask(answering, 1)
    answering.start()
    answering.stop()
    assert worker.counts["failed"] == 1
    assert not answers.got
    assert "answering a request of site s1" in caplog.text
