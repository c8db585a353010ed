"""The consumer of decisions and everything that breaks around it: nothing lost, nothing twice."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

import msgspec
import pytest

from broker.mosquitto import LocalBroker
from cloud_service.records import consumer as consumer_module
from cloud_service.records import engine as engine_module
from cloud_service.records import pursuit as pursuit_module
from cloud_service.records.consumer import Consumer, session
from cloud_service.records.store import Records
from ddnn import status, topics
from ddnn.decisions import encode
from ddnn.mqtt import Client
from tests.postgres import Postgres
from tests.records import decision

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]
ROOT = Path(__file__).resolve().parents[2]
SITE = "s1"


def wait_until(condition, timeout_s=40.0):
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


class Gateway:
    """Publishes decisions as a gateway does: until acknowledged, and the last 1024 once more."""

    def __init__(self, broker, *, boot=1):
        self.recent = deque(maxlen=1024)
        self.made = 0
        self._boot = boot
        self._last_recall = -1.0
        self._unsent = []
        self.client = Client(broker.host, broker.port, "gateway", on_up=self._report)
        self.client.subscribe(topics.recall(SITE), self._on_recall)
        self.client.start()
        self.client.wait_connected(10)

    def _report(self):
        said = status.Status(node="gateway", state="online", boot=self._boot)
        topic = topics.status(SITE, "gateway")
        self.client.publish(topic, status.encode(said), qos=1, retain=True)

    def decide(self, slots):
        for slot in slots:
            payload = encode(decision(slot))
            self.recent.append((slot, payload))
            self.made += 1
            if len(self._unsent) >= 5000:  # the client keeps so many and twice as many, not more
                self.wait_acknowledged()
            self._unsent.append(self.client.publish(topics.decision(SITE), payload, qos=1))

    def publish_ledger(self, more=0):
        counts = {"opened": self.made + more, "decided": self.made + more}
        self.client.publish(topics.ledger(SITE), msgspec.json.encode(counts), qos=1, retain=True)

    def wait_acknowledged(self):
        assert wait_until(lambda: all(receipt.is_published() for receipt in self._unsent))
        self._unsent.clear()

    def _on_recall(self, message):
        now = time.monotonic()
        if now - self._last_recall < 0.5:
            return
        self._last_recall = now
        since = msgspec.json.decode(message.payload)["from_slot"]
        for _, payload in sorted(each for each in list(self.recent) if each[0] >= since)[:256]:
            self.client.publish(topics.decision(SITE), payload, qos=1)

    def stop(self):
        self.client.stop()


@contextlib.contextmanager
def consuming(broker, records, on_stored=None):
    client = Client(broker.host, broker.port, "records", session=session())
    consumer = Consumer(records, client, on_stored)
    consumer.start()
    client.start()
    client.wait_connected(10)
    try:
        # It asks for past decisions once it hears the gateway: then it is subscribed.
        assert wait_until(lambda: consumer.counts["recalls"] or records.trouble)
        yield consumer
    finally:
        client.stop()
        consumer.stop()


@pytest.fixture
def broker():
    with LocalBroker() as running:
        yield running


@pytest.fixture
def gateway(broker):
    running = Gateway(broker)
    yield running
    running.stop()


@pytest.fixture
def records(tmp_path):
    opened = Records(f"{tmp_path}/decisions.db")
    yield opened
    opened.close()


def stored(records):
    return [each.slot for chunk in records.iterate(SITE) for each in chunk]


def counted(records):
    """By the counts that are kept along with the decisions: one added twice would show."""
    return records.total(SITE, 0, 10**6).decided


def test_burst_is_stored_whole_in_bounded_memory(broker, gateway, records):
    most = 0

    def look(_):
        nonlocal most
        most = max(most, records.waiting)

    with consuming(broker, records, look):
        gateway.decide(range(10_000))
        assert wait_until(lambda: records.counts["new"] == 10_000, 60), records.counts
    assert stored(records) == list(range(10_000))
    assert counted(records) == 10_000
    assert most <= consumer_module.MAX_WAITING


def test_messages_without_room_come_again(broker, gateway, records, monkeypatch):
    """A broker that does not keep to the receive maximum, and a database that is too slow."""
    monkeypatch.setattr(consumer_module, "MAX_WAITING", 150)
    monkeypatch.setattr(consumer_module, "MAX_BATCH", 100)
    monkeypatch.setattr(consumer_module, "HOLD_UP_S", 0.0)
    with consuming(broker, records):
        gateway.decide(range(1500))
        assert wait_until(lambda: len(records.sites()) and len(stored(records)) == 1500, 90)
    assert counted(records) == 1500


def test_what_comes_while_nobody_is_there_is_kept_by_the_broker(broker, gateway, records):
    with consuming(broker, records):
        gateway.decide(range(10))
        assert wait_until(lambda: records.counts["new"] == 10)
    # Beyond what the gateway could say again.
    gateway.decide(range(10, 2000))
    gateway.wait_acknowledged()
    with consuming(broker, records):
        assert wait_until(lambda: records.counts["new"] == 2000)
    assert stored(records) == list(range(2000))


def test_broker_killed_without_memory_loses_nothing_that_the_gateway_still_has(
    broker, gateway, records
):
    with consuming(broker, records):
        gateway.decide(range(300))
        assert wait_until(lambda: records.counts["new"] == 300)
        # Taken by the broker, and gone with it: the consumer's connection is cut before.
        records.trouble = None
        with hold(records):
            gateway.decide(range(300, 900))
            gateway.wait_acknowledged()
            broker.kill()
        broker.start()
        assert wait_until(lambda: len(stored(records)) == 900, 60)
        assert counted(records) == 900


@contextlib.contextmanager
def hold(records):
    """Another program holds the database's write lock."""
    connection = sqlite3.connect(records.url.database, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


# -- databases that are away -----------------------------------------------------------------


class Locked:
    """Another program holds SQLite's write lock."""

    def __init__(self, tmp_path, request):
        self.url = f"{tmp_path}/decisions.db"
        self._stack = contextlib.ExitStack()

    def begin(self, records):
        self._stack.enter_context(hold(records))

    def end(self, records):
        self._stack.close()


class Full:
    """A disk without room: a small file system."""

    def __init__(self, tmp_path, request):
        self._folder = tmp_path / "small"
        self._folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(self._folder)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("a small file system needs the right to mount one")
        request.addfinalizer(lambda: subprocess.run(["umount", "-l", self._folder], check=False))
        self.url = f"{self._folder}/decisions.db"

    def begin(self, records):
        room = os.statvfs(self._folder)
        with contextlib.suppress(OSError), (self._folder / "ballast").open("wb", 0) as ballast:
            for _ in range(room.f_bfree):
                ballast.write(bytes(room.f_bsize))

    def end(self, records):
        (self._folder / "ballast").unlink()


class Stopped:
    """A PostgreSQL that has crashed."""

    def __init__(self, tmp_path, request):
        self._server = Postgres()
        request.addfinalizer(self._server.close)
        self._server.start()
        self.url = self._server.url

    def begin(self, records):
        self._server.stop()

    def end(self, records):
        self._server.start()


@pytest.mark.parametrize("kind", [Locked, Full, Stopped])
def test_database_that_is_away_costs_no_decision(
    kind, broker, gateway, tmp_path, request, monkeypatch
):
    monkeypatch.setattr(engine_module, "LOCK_TIMEOUT_S", 0.2)
    fault = kind(tmp_path, request)
    records = Records(fault.url)
    with consuming(broker, records):
        gateway.decide(range(100))
        assert wait_until(lambda: records.counts["new"] == 100)
        assert records.health().ok
        fault.begin(records)
        gateway.decide(range(100, 2500))
        assert wait_until(lambda: "wait at the broker" in str(records.health().reason))
        gateway.wait_acknowledged()  # the site goes on
        assert records.waiting <= consumer_module.MAX_WAITING
        fault.end(records)
        assert wait_until(lambda: records.health().ok)
        assert wait_until(lambda: len(stored(records)) == 2500)
    assert stored(records) == list(range(2500))
    assert counted(records) == 2500
    records.close()


def test_service_starts_before_its_database_and_takes_all_that_has_come(broker, gateway, request):
    server = Postgres()
    request.addfinalizer(server.close)
    records = Records(server.url)
    with consuming(broker, records):
        gateway.decide(range(50))
        assert wait_until(lambda: not records.health().ok)
        server.start()
        assert wait_until(lambda: records.counts["new"] == 50)
    records.close()


# -- kill -9 ---------------------------------------------------------------------------------

CONSUMER = """
import sys, threading
from cloud_service.records.consumer import Consumer, session
from cloud_service.records.store import Records
from ddnn.mqtt import Client
client = Client("127.0.0.1", int(sys.argv[1]), "records", session=session())
consumer = Consumer(Records(sys.argv[2]), client)
consumer.start()
client.start()
threading.Event().wait()
"""


def test_consumer_killed_at_random_moments_loses_nothing_and_doubles_nothing(
    broker, gateway, records
):
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    total = 4000
    records.migrate()
    # The session exists before the first decision.
    with consuming(broker, records):
        pass

    def publish():
        for begin in range(0, total, 50):
            gateway.decide(range(begin, begin + 50))
            time.sleep(0.03)

    publisher = threading.Thread(target=publish)
    publisher.start()
    kills = 0
    while publisher.is_alive() or kills < 4:
        command = [sys.executable, "-c", CONSUMER, str(broker.port), str(records.url.database)]
        child = subprocess.Popen(command, cwd=ROOT)
        before = len(stored(records))
        wait_until(lambda before=before: len(stored(records)) > before, 10)
        time.sleep(rng.random() * 0.3)
        child.send_signal(signal.SIGKILL)
        child.wait()
        kills += 1
    publisher.join()
    gateway.wait_acknowledged()
    with consuming(broker, records):
        assert wait_until(lambda: len(stored(records)) == total)
    assert stored(records) == list(range(total))
    assert counted(records) == total
    assert records.counts["conflicts"] == 0


# -- gaps ------------------------------------------------------------------------------------


def test_gap_that_the_gateway_can_fill_is_filled_and_one_that_it_cannot_is_shown(
    broker, gateway, records, monkeypatch
):
    monkeypatch.setattr(pursuit_module, "LOST_AFTER_S", 0.5)
    with consuming(broker, records) as consumer:
        gateway.decide(range(100))
        gateway.publish_ledger()
        assert wait_until(lambda: records.counts["new"] == 100)
        gateway.publish_ledger()
        # Made, remembered, and never come: as with a broker that was killed after its PUBACK.
        for slot in range(100, 110):
            gateway.recent.append((slot, encode(decision(slot))))
        gateway.made += 10

        def ledgers_until(condition):
            deadline = time.monotonic() + 30
            while not condition() and time.monotonic() < deadline:
                gateway.publish_ledger(more=3)
                time.sleep(0.1)
            return condition()

        assert ledgers_until(lambda: records.counts["new"] == 110)
        assert ledgers_until(lambda: records.health().lost == {SITE: 3})
        recalls = consumer.counts["recalls"]
        assert ledgers_until(lambda: len(records.ledger_rows(SITE)) > 1)
        assert records.ledger_rows(SITE)[-1].lost == 3
        assert recalls <= 8
    assert stored(records) == list(range(110))


def test_malformed_messages_are_counted_and_stop_nothing(broker, gateway, records):
    with consuming(broker, records) as consumer:
        for payload in (b"", b"{}", b"\xff" * 10, b"x" * 20_000, encode(decision(1, site="s2"))):
            gateway.client.publish(topics.decision(SITE), payload, qos=1)
        gateway.client.publish(topics.ledger(SITE), b"[]", qos=1)
        gateway.decide([1])
        assert wait_until(lambda: records.counts["new"] == 1)
    assert consumer.counts["malformed"] == 6
