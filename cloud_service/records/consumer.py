"""Decisions from the broker into the database: the shell around `intake` and `pursuit`.

A message is acknowledged after the commit that stores it and never before, so that one which was
accepted is in the database, whenever this process is killed; what it had not acknowledged comes
again, and is a repeat if the commit had been done. While the database is away, locked or full
nothing is acknowledged: the broker stops sending at the receive maximum and queues the rest, and
the batch is tried again with growing pauses.

The session at the broker survives this process for `SESSION_EXPIRY_S`. What the broker itself
loses (killed, or its queue overflown) is asked for at the gateways.

Decisions come at QoS 1. Ledgers and statuses are only of use while they are fresh, so they come
at QoS 0, which no broker queues for an absent client.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from cloud_service.records.intake import Intake, Waiting
from cloud_service.records.ledgers import decode as decode_ledger
from cloud_service.records.pursuit import Pursuit
from cloud_service.records.rows import check
from cloud_service.records.store import Records
from cloud_service.records.writer import Heard
from ddnn import decisions, status, topics
from ddnn.decisions import PublishedDecision
from ddnn.errors import DdnnError, RecordsError
from ddnn.message import Message, Publish
from ddnn.mqtt import Client, Session

log = logging.getLogger(__name__)

#: As long as this project's broker keeps sessions.
SESSION_EXPIRY_S = 86_400
#: So many messages are stored at once without waiting for more: this project's broker has no more
#: on their way to one client. Where there are more, one commit takes so many.
BATCH_SIZE = 100
MAX_BATCH = 1000
BATCH_DELAY_S = 0.2
RECEIVE_MAXIMUM = 200
#: A few megabytes. mosquitto 2.0.11 keeps to the receive maximum only until the first
#: acknowledgement; each one then brings more than one message (its issue 2301).
MAX_WAITING = 5000
#: With no room left nothing is read from the broker for so long, well below the keepalive.
HOLD_UP_S = 2.0
#: A decision has a few hundred bytes.
MAX_PAYLOAD_BYTES = 16_384
#: A gateway decides its slots within so long of each other.
ANCHOR_MARGIN_S = 30.0
_TICK_S = 0.5


def session() -> Session:
    """What the consumer's `Client` must be made with."""
    return Session(SESSION_EXPIRY_S, RECEIVE_MAXIMUM)


class Consumer:
    """Stores what its client receives, on a thread of its own.

    Args:
        records: migrated or not: until it answers, nothing is acknowledged.
        client: made with `session()`, for this consumer alone, and not started yet.
        on_stored: called with the decisions of each batch after its commit, repeats included, on
            this consumer's thread.

    Attributes:
        counts: malformed messages, batches, failures, recalls, reconnects.
    """

    def __init__(
        self,
        records: Records,
        client: Client,
        on_stored: Callable[[Sequence[PublishedDecision]], None] | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._records = records
        self._client = client
        self._on_stored = on_stored
        self._intake = Intake(BATCH_SIZE, MAX_BATCH, BATCH_DELAY_S, MAX_WAITING)
        self._pursuit = Pursuit()
        self._wake = threading.Condition()
        self._stopping = False
        self._migrated = False
        self._malformed: set[str] = set()
        self._seen_connects = 0
        self._ask_again = False
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        client.subscribe(topics.decision_filter(), self._on_decision, qos=1)
        client.subscribe(topics.ledger_filter(), self._on_ledger, qos=0, retained=False)
        client.subscribe(topics.status("+", "gateway"), self._on_status, qos=0)

    def start(self) -> None:
        """Begin to store; the client is started by its owner."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End after the batch in hand; what was not acknowledged the broker keeps."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        self._thread.join(timeout_s)

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Sites whose gateway was asked for past decisions and has not answered."""
        with self._wake:
            return tuple(sorted(self._pursuit.unanswered))

    # -- on the client's network thread ------------------------------------------------------

    def _on_decision(self, message: Message) -> None:
        content: PublishedDecision | None = None
        try:
            if len(message.payload) > MAX_PAYLOAD_BYTES:
                raise DdnnError(f"a decision of {len(message.payload)} bytes is too long")
            decision = decisions.decode(message.payload)
            check(decision)
            if topics.decision(decision.site) != message.topic:
                raise DdnnError(f"it says that it is of site {decision.site!r}")
            content = decision
        except DdnnError as error:
            self._count_malformed(message.topic, error)
        self._put(content, message)

    def _on_ledger(self, message: Message) -> None:
        site = topics.site_of(message.topic)
        if site is None or message.retain:
            return
        try:
            ledger = decode_ledger(message.payload)
        except DdnnError as error:
            self._count_malformed(message.topic, error)
            return
        self._put(Heard(site, ledger, time.time()), message)

    def _on_status(self, message: Message) -> None:
        report, site = status.decode(message.payload), topics.site_of(message.topic)
        if report is None or site is None:
            return
        with self._wake:
            self._note_connects()
            life = (report.boot, report.since_s)
            self._pursuit.gateway(site, life, online=report.state == "online")
            self._wake.notify_all()

    def _put(self, content: PublishedDecision | Heard | None, message: Message) -> None:
        with self._wake:
            self._note_connects()
            self._wake.wait_for(lambda: self._stopping or not self._intake.is_full, HOLD_UP_S)
            if not self._intake.put(Waiting(content, message, time.monotonic())):
                self._ask_again = True
            self._records.waiting = len(self._intake)
            self._wake.notify_all()

    def _note_connects(self) -> None:
        """Statuses come after each connect; what was heard before it is void."""
        if self._client.counts["connects"] != self._seen_connects:
            self._seen_connects = self._client.counts["connects"]
            self._pursuit.connected()

    def _count_malformed(self, topic: str, error: DdnnError) -> None:
        self.counts["malformed"] += 1
        if topic not in self._malformed and len(self._malformed) < 100:
            self._malformed.add(topic)
            log.warning("a message on %s is left out: %s", topic, error)

    # -- on the consumer's thread ------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._wake:
                if self._stopping:
                    return
                now = time.monotonic()
                deadline = self._intake.deadline()
                wait_s = _TICK_S if deadline is None else min(_TICK_S, deadline - now)
                if wait_s > 0:
                    self._wake.wait(wait_s)
                batch = self._intake.take(time.monotonic())
            try:
                if batch or not self._migrated or self._records.trouble:
                    self._store(batch)
                self._pursue()
            except RecordsError as error:
                self._failed(error)
            except Exception:
                # A bug must not end this thread without a word: nothing would be stored any more.
                log.exception("storing decisions")
                self._failed(RecordsError("storing decisions fails: see the log"))

    def _store(self, batch: Sequence[Waiting]) -> None:
        if not self._migrated:
            self._records.migrate()
            self._migrated = True
        contents = [each.content for each in batch if each.content is not None]
        if contents:
            self._records.write(contents)
        else:
            self._records.sites()  # only whether it answers
        for each in batch:
            self._client.acknowledge(each.message)
        stored = [each for each in contents if isinstance(each, PublishedDecision)]
        now = time.monotonic()
        with self._wake:
            if batch:
                self.counts["batches"] += 1
                self._intake.stored()
            self._records.waiting = len(self._intake)
            again = self._ask_again and not len(self._intake)
            self._ask_again = self._ask_again and not again
            self._wake.notify_all()
            if self._records.trouble:
                log.info("%s is there again", self._records.name)
            self._records.trouble = None
            for decision in stored:
                self._pursuit.stored(decision.site, decision.slot)
            for heard in contents:
                if isinstance(heard, Heard):
                    self._pursuit.lost(heard.site, self._records.lost(heard.site), now)
        if again:
            # What had no room was not acknowledged: on a new connection it comes again.
            self.counts["reconnects"] += 1
            self._client.drop_connection()
        if self._on_stored and stored:
            self._on_stored(stored)

    def _failed(self, error: RecordsError) -> None:
        with self._wake:
            self.counts["failures"] += 1
            if self._records.trouble is None:
                log.error("decisions wait at the broker: %s", error)
            self._records.trouble = f"decisions wait at the broker: {error}"
            pause_s = self._intake.failed(time.monotonic())
            # Nothing to do before the pause is over, whatever comes.
            if not self._stopping:
                self._wake.wait_for(lambda: self._stopping, pause_s)

    def _pursue(self) -> None:
        """Ask gateways for what may be missing here."""
        now = time.monotonic()
        with self._wake:
            asks = self._pursuit.on_time(now)
            wanted = self._pursuit.next_site()
        while wanted is not None:
            found = self._records.anchor(wanted, ANCHOR_MARGIN_S)
            anchor, newest = found or (None, None)
            with self._wake:
                asks.append(self._pursuit.begin(wanted, anchor, newest, now))
                wanted = self._pursuit.next_site()
        for ask in asks:
            self.counts["recalls"] += 1
            payload = msgspec.json.encode({"from_slot": ask.from_slot})
            self._client.send(Publish(topics.recall(ask.site), payload, qos=1))
