"""Every shape in this process, without a broker: real sections in the engine against `evaluate`."""

import numpy as np
import pytest

from cloud_service.worker import Worker
from ddnn import wire
from ddnn.evaluate import Evaluator
from ddnn.node import GatewaySections
from ddnn.place import Place, edge_gateways
from ddnn.tier import Decision, Escalate, Feed, Report, Request, Tier
from ddnn.wire import Flag, Kind
from device_agent.agent import Agent
from tests.arm64.bundles import random_bundle
from tests.bundles import every_exit_used

HALVES = ((0, 2), (1, 3, 4))
#: device, edges, edge, cloud, join, then further arguments of `random_bundle`.
SHAPES = {
    "cloud only": ((4,), (), (), (8,), "CC", {"pictures": True}),
    "devices, cloud": ((4,), (), (), (8,), "CC", {}),
    "devices, cloud, no local exit": ((4,), (), (), (8,), "AP", {"local": False}),
    "device, edge, cloud": ((4,), ((0,),), (6,), (8,), "CC", {}),
    "devices, edge, no local exit": ((4,), ((0, 1, 2),), (6,), (8,), "CC", {"local": False}),
    "several edges": ((4,), HALVES, (6,), (8,), "CC", {}),
    "several edges, joined by AP": ((4,), HALVES, (6,), (8,), "AP", {}),
    "several edges, no local exit": ((4,), HALVES, (6,), (8,), "CC", {"local": False}),
}


class Site:
    """Agents, engines and a worker that call each other."""

    def __init__(self, bundle):
        topology = bundle.manifest.topology
        self.agents = [Agent(c, c, 4, send_images=True) for c in range(topology.cameras)]
        for agent in self.agents:
            agent.load(bundle)
        self.worker = Worker()
        self.worker.load("s", bundle)
        self.tiers, self.places = {}, {}
        for edge in (None, *edge_gateways(topology)):
            place = self.places[edge] = Place.of(topology, edge)
            sections = GatewaySections(bundle, place)
            self.tiers[edge] = Tier(sections, has_parent=place.has_parent)
        self.tag = bundle.tag
        self.decided = {}

    def show(self, slot, images, present):
        for camera, agent in enumerate(self.agents):
            frame = wire.decode(agent.view(slot, images[camera] if present[camera] else None))
            for edge, place in self.places.items():
                member = place.member(camera)
                if place.kind == "cameras" and member is not None:
                    actions = self.tiers[edge].on_summary(member, slot, frame, 0.0)
                    self.do(edge, actions)

    def do(self, edge, actions):
        place, tier = self.places[edge], self.tiers[edge]
        for action in actions:
            match action:
                case Decision(slot=slot):
                    self.decided[slot] = action
                case Request(member, slot) if place.kind == "edges":
                    self.do(member, self.tiers[member].on_parent_request(slot, 0.0))
                case Request(member, slot):
                    asked = wire.encode(Kind.REQUEST, tag=self.tag, boot=0, slot=slot)
                    agent = self.agents[place.numbers[member]]
                    answer = wire.decode(agent.features(wire.decode(asked), slot))
                    self.do(edge, tier.on_features(member, slot, answer, 0.0))
                case Escalate(slot, body):
                    asked = wire.encode(Kind.ESCALATION, tag=self.tag, boot=0, slot=slot, body=body)
                    answer = wire.decode(self.worker.answer("s", asked))
                    self.do(edge, tier.on_answer(slot, answer, 0.0))
                case Report(slot, body):
                    flags = Flag.ABSENT if body is None else 0
                    frame = self.frame(Kind.SUMMARY, edge, slot, body or b"", flags)
                    self.do(None, self.tiers[None].on_summary(edge, slot, frame, 0.0))
                case Feed(slot, body):
                    frame = self.frame(Kind.FEATURES, edge, slot, body)
                    self.do(None, self.tiers[None].on_features(edge, slot, frame, 0.0))

    def frame(self, kind, edge, slot, body, flags=0):
        payload = wire.encode(kind, tag=self.tag, boot=edge, slot=slot, body=body, flags=flags)
        return wire.decode(payload)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_decision_is_that_of_the_evaluation(shape):
    device, edges, edge, cloud, kind, more = SHAPES[shape]
    made = random_bundle(4, (14, 18, 3), device, edges, edge, cloud, kind, **more)
    cameras = made.manifest.topology.cameras
    rng = np.random.default_rng(1)
    images = rng.integers(0, 70, (60, cameras, 14, 18, 3))
    images = (images + rng.integers(0, 186, (60, cameras, 1, 1, 3))).astype(np.uint8)
    present = rng.random((60, cameras)) < 0.7
    bundle = every_exit_used(made, images, present)
    expected = Evaluator(bundle).evaluate(images, present)
    site = Site(bundle)
    for slot in range(60):
        site.show(slot, images[slot], present[slot])
        decision = site.decided[slot]
        if expected.label[slot] < 0:
            assert decision.label is None
            continue
        assert (decision.label, decision.exit) == (expected.label[slot], expected.exit[slot])
        assert decision.entropy == expected.entropy[slot]
        assert decision.degraded is None
    ledger = site.tiers[None].counts
    assert ledger["opened"] == ledger["decided"] == 60
    assert ledger["malformed"] == 0
