"""A whole site of two edges in memory: whatever is lost, repeated or killed, one end per slot.

Three gateways as `edge_gateway.gateway` has them, cameras and cloud as a few lines here, and a
network that Hypothesis drives: it delivers, drops and repeats messages in any order, kills gateways
(each comes back with its journal), and lets time pass.
"""

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddnn import decisions, status, topics, wire
from ddnn.message import Message, Publish
from ddnn.place import Place
from ddnn.tier import TierConfig
from ddnn.wire import Flag, Kind
from edge_gateway.audits import AuditRules
from edge_gateway.effects import Keep
from edge_gateway.gateway import Gateway, GatewayRules
from tests import fakes
from tests.fakes import TAG, FakeSections, answer, without_faults

CLASSES = ("car", "bus", "person")
BELOW = ((0, 1), (2, 3))
FIRST = 1_800_000_000
SLOTS = 4


class SiteSections(FakeSections):
    """The joins: sure where every edge there is, by how far its best class is ahead."""

    def __init__(self):
        super().__init__(members=2)
        self.feature_bytes = 3 + len(b"edge")

    def local(self, scores, mask):
        scores, mask = fakes.rows(scores, mask)
        return self._logits(0, sure=bool((scores[mask == 1].min(axis=1) < 200).all()))

    def edge(self, features, mask):
        features, mask = fakes.rows(features, mask)
        rows = features[mask == 1]
        assert {bytes(row[3:]) for row in rows} == {b"edge"}
        upward = {k: features[k, 3:].tobytes() for k in range(2) if mask[k]}
        return self._logits(1, sure=bool((rows[:, :3].min(axis=1) < 200).all())), upward


class Node:
    """One gateway, its journal, and what it has ever published as decisions."""

    def __init__(self, site, edge):
        self.site, self.edge, self.boot = site, edge, 0
        self.place = Place(edge, "cameras", BELOW[edge]) if edge is not None else None
        self.place = self.place or Place(None, "edges", (0, 1))
        self.journal = b""
        self.start()

    def start(self):
        self.boot += 1
        config = TierConfig(summary_wait_s=0.5, features_wait_s=1.0, max_open_slots=3)
        rules = GatewayRules(
            site="s", period_s=1.0, window_s=1000.0, tier=config, audits=AuditRules(share=1.0)
        )
        self.gateway = Gateway(rules, self.boot, self.journal, self.site.now)
        sections = FakeSections(members=2) if self.edge is not None else SiteSections()
        wall = self.site.wall
        self.do(self.gateway.activate(sections, CLASSES, self.site.now, wall, place=self.place))
        self.do(self.gateway.on_connected(self.site.now))

    def do(self, effects):
        for effect in without_faults(effects):
            if isinstance(effect, Keep):
                self.journal += effect.data
            elif effect.receipt is not None:
                self.site.decided(effect)
                self.do(self.gateway.sent(effect.receipt, self.site.now))
            else:
                self.site.in_flight.append(effect)

    def hears(self, topic):
        if topic.startswith("ddnn/"):
            return True
        own = [topic for pair in self.place.hears("s").values() for topic in pair]
        own += [topics.edge_request("s", self.edge)] if self.edge is not None else ["s/a"]
        return topic in own

    def take(self, message):
        self.do(self.gateway.on_message(message, self.site.now, self.site.wall))
        self.do(self.gateway.on_time(self.site.now, self.site.wall))


class Site:
    def __init__(self):
        self.now = 0.0
        self.in_flight = []
        self.published = {}
        self.reported = set()
        self.views = {}
        self.nodes = [Node(self, edge) for edge in (None, 0, 1)]

    @property
    def wall(self):
        return FIRST + self.now

    def decided(self, publish):
        decision = decisions.decode(publish.payload)
        assert self.published.setdefault(decision.slot, publish.payload) == publish.payload
        assert decision.members == "edges"
        assert set(decision.used) <= {0, 1}

    def camera(self, camera, slot, sure, edge_sure):
        """A camera takes a view; one that it has taken already is sent again."""
        self.views.setdefault((camera, slot), (sure, edge_sure))
        body = bytes([self.views[camera, slot][0], 0, 0])
        payload = wire.encode(Kind.SUMMARY, tag=TAG, boot=1, slot=FIRST + slot, body=body)
        self.in_flight.append(Publish(topics.summary("s", camera), payload))

    def deliver(self, publish):
        topic, payload = publish.topic, publish.payload
        if topic.startswith("s/q/"):
            self._ask(int(topic[4:]), wire.decode(payload))
        elif topic == "s/x":
            frame = wire.decode(payload)
            sent = wire.encode(
                Kind.ANSWER, tag=frame.tag, boot=frame.boot, slot=frame.slot, body=answer(0).body
            )
            self.in_flight.append(Publish("s/a", sent, correlation=publish.correlation))
        else:
            message = Message(topic, payload, correlation=publish.correlation)
            for node in self.nodes:
                if node.hears(topic):
                    node.take(message)

    def _ask(self, camera, frame):
        sure = self.views[camera, frame.slot - FIRST][1]
        payload = wire.encode(
            Kind.FEATURES, tag=TAG, boot=1, slot=frame.slot, body=bytes([sure, 0, 0, 0])
        )
        self.in_flight.append(Publish(topics.features("s", camera), payload))

    def kill(self, number):
        node = self.nodes[number]
        if node.edge is not None:
            self.say(node, "offline")
        node.start()
        if node.edge is not None:
            self.say(node, "online")

    def say(self, node, state):
        name = f"gateway-{node.edge}"
        report = status.Status(node=name, state=state, boot=node.boot, bundle="b")
        self.in_flight.append(Publish(topics.status("s", name), status.encode(report)))

    def pass_time(self, seconds):
        self.now += seconds
        for node in self.nodes:
            node.do(node.gateway.on_time(self.now, self.wall))

    def check(self):
        for node in self.nodes:
            ledger = Counter(node.gateway.ledger())
            ended = sum(ledger[n] for n in ("decided", "degraded", "expired", "passed"))
            assert ledger["opened"] == ended + ledger["open"]
            assert bool(ledger["passed"]) <= (node.edge is not None)
            assert not ledger["audit.begun"] or node.edge is None
        above = Counter(self.nodes[0].gateway.ledger())
        assert above["decided"] + above["degraded"] == len(self.published)


REPORT = st.tuples(
    st.just("report"), st.sets(st.integers(0, 3), min_size=1), st.integers(0, SLOTS - 1),
    st.booleans(), st.booleans(),
)  # fmt: skip
DELIVER = st.tuples(st.just("deliver"), st.integers(1, 20))
FAULT = st.one_of(
    st.tuples(st.sampled_from(["drop", "repeat", "overtake"]), st.integers(0, 30)),
    st.tuples(st.just("time"), st.sampled_from([0.1, 0.6, 1.1, 3.0])),
    st.tuples(st.just("kill"), st.integers(0, 2)),
)
#: Reports, and between two of them some of what they cause, and something that goes wrong.
EVENTS = st.lists(st.tuples(REPORT, DELIVER, FAULT, DELIVER), min_size=3, max_size=12)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EVENTS)
def test_every_slot_ends_once_whatever_the_network_does(events):
    site = Site()
    for what, *values in [event for part in events for event in part]:
        if what == "report":
            cameras, *view = values
            for camera in sorted(cameras):
                site.camera(camera, *view)
        elif what == "time":
            site.pass_time(*values)
        elif what == "kill":
            site.kill(*values)
        elif what == "deliver":
            for _ in range(min(values[0], len(site.in_flight))):
                site.deliver(site.in_flight.pop(0))
        elif site.in_flight:
            publish = site.in_flight.pop(values[0] % len(site.in_flight))
            if what != "drop":
                site.deliver(publish)  # before what was sent earlier
            if what == "repeat":
                site.in_flight.append(publish)
        site.check()
    for _ in range(10):
        site.in_flight.clear()
        site.pass_time(10.0)
        site.check()
    for node in site.nodes:
        assert node.gateway.ledger()["open"] == 0
        assert not node.gateway.memory.open


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=SLOTS, max_size=SLOTS)
)
def test_without_faults_every_slot_is_decided_where_it_should_be(scenes):
    site = Site()
    wanted = []
    for slot, (sure, edge_sure, seen_by_second) in enumerate(scenes):
        cameras = range(4 if seen_by_second else 2)
        for camera in range(4):
            if camera in cameras:
                site.camera(camera, slot, sure, edge_sure)
            else:
                payload = wire.encode(
                    Kind.SUMMARY, tag=TAG, boot=1, slot=FIRST + slot, flags=Flag.ABSENT
                )
                site.in_flight.append(Publish(topics.summary("s", camera), payload))
        while site.in_flight:
            site.deliver(site.in_flight.pop(0))
        exit_ = "local" if sure else "edge" if edge_sure else "cloud"
        wanted.append((exit_, (0, 1) if seen_by_second else (0,), None))
    found = [decisions.decode(site.published[FIRST + slot]) for slot in range(SLOTS)]
    assert [(d.exit, d.used, d.degraded) for d in found] == wanted
    early = sum(exit_ != "cloud" for exit_, _, _ in wanted)
    assert site.nodes[0].gateway.ledger().get("audit.completed", 0) == early
