"""How well audits estimate the real disagreement: replays through the gateway's rules, in process.

Samples of a data set are drawn at random, with cameras missing now and then, and shown slot by slot
to agents, gateway and worker with the real sections, and without a network. The gateway audits its
share of the early decisions. What it then says of the early exits is held against the truth: what
the deepest exit says of every one of these samples (`ddnn.evaluate`).

    python -m benchmarks.audits --slots 2000 --runs 10
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from cloud_service.worker import Worker
from ddnn import audit, decisions, topics, wire
from ddnn.audit import Audit
from ddnn.bundle import Bundle
from ddnn.drift import wilson
from ddnn.errors import ConfigError
from ddnn.evaluate import Evaluation, Evaluator
from ddnn.message import Message, Publish
from ddnn.node import GatewaySections
from ddnn.place import Place
from ddnn.store import read_folder
from ddnn.tier import ExitName
from device_agent.agent import Agent
from edge_gateway.audits import AuditRules
from edge_gateway.effects import Effect, Fault
from edge_gateway.gateway import Gateway, GatewayRules
from training.datasets.base import MultiCameraSet
from training.datasets.load import load

SITE, EPOCH_S = "s", 1_800_000_000
EARLY = ("local", "edge")


class Replayed(NamedTuple):
    """What one run has given.

    Attributes:
        decisions: by slot.
        audits: in their order.
        payload_bytes: that audits have cost, and that everything else has.
    """

    decisions: dict[int, decisions.PublishedDecision]
    audits: list[Audit]
    payload_bytes: tuple[int, int]


class Replay:
    """One site in this process: a message that is sent is there at once."""

    def __init__(
        self, bundle: Bundle, share: float, key: bytes, thresholds: dict[ExitName, float]
    ) -> None:
        self._agents = [
            Agent(camera, camera, 4) for camera in range(bundle.manifest.topology.cameras)
        ]
        for agent in self._agents:
            agent.load(bundle)
        self._worker = Worker()
        self._worker.load(SITE, bundle)
        place = Place.of(bundle.manifest.topology)
        rules = GatewayRules(site=SITE, period_s=1.0, audits=AuditRules(share=share, key=key))
        self._gateway = Gateway(rules, 1)
        sections = GatewaySections(bundle, place)
        self._decided: dict[int, decisions.PublishedDecision] = {}
        self._audits: list[Audit] = []
        self._bytes: Counter[bool] = Counter()
        classes = bundle.manifest.classes
        self._do(self._gateway.activate(sections, classes, 0.0, EPOCH_S, place=place), 0)
        self._do(self._gateway.on_connected(0.0), 0)
        settings = {f"{name}_threshold": value for name, value in thresholds.items()}
        self._take(Message(topics.settings(SITE), msgspec.json.encode(settings)), EPOCH_S)
        if refused := self._gateway.settings_refused:
            raise ConfigError(refused)

    def show(
        self, index: npt.NDArray[np.int64], data: MultiCameraSet, present: npt.NDArray[np.bool_]
    ) -> Replayed:
        """Slot n shows sample index[n] to the cameras present[n]."""
        for n, sample in enumerate(index):
            slot = EPOCH_S + n
            for camera, agent in enumerate(self._agents):
                image = data.images[sample, camera] if present[n, camera] else None
                payload = agent.view(slot, image)
                assert payload is not None
                self._take(Message(topics.summary(SITE, camera), payload), slot)
        costs = (self._bytes[True], self._bytes[False])
        return Replayed(self._decided, self._audits, costs)

    def _take(self, message: Message, slot: int) -> None:
        if message.topic.startswith((f"{SITE}/s/", f"{SITE}/f/")):
            self._bytes[slot in self._gateway.audits] += len(message.payload)
        now, wall = float(slot - EPOCH_S), float(slot)
        self._do(self._gateway.on_message(message, now, wall), slot)
        self._do(self._gateway.on_time(now, wall), slot)

    def _do(self, effects: list[Effect], slot: int) -> None:
        for effect in effects:
            if isinstance(effect, Fault):
                raise effect.error
            if not isinstance(effect, Publish):
                continue
            if effect.topic == topics.decision(SITE):
                self._decided[slot] = decisions.decode(effect.payload)
                assert effect.receipt is not None
                self._do(self._gateway.sent(effect.receipt, float(slot - EPOCH_S)), slot)
            elif effect.topic == topics.audit(SITE):
                self._audits.append(audit.decode(effect.payload))
            elif effect.topic.startswith(f"{SITE}/"):
                self._bytes[slot in self._gateway.audits] += len(effect.payload)
                self._ask(effect, slot)

    def _ask(self, effect: Publish, slot: int) -> None:
        if effect.topic == topics.escalation(SITE):
            answer = self._worker.answer(SITE, effect.payload)
            assert answer is not None
            message = Message(topics.answer(SITE), answer, correlation=effect.correlation)
            self._take(message, slot)
            return
        camera = topics.member_of(effect.topic)
        assert camera is not None
        features = self._agents[camera].features(wire.decode(effect.payload), slot)
        assert features is not None
        self._take(Message(topics.features(SITE, camera), features), slot)


class Compared(NamedTuple):
    """One exit in one run: the estimate's audits and disagreements, and the truth's."""

    audited: int
    disagreed: int
    answered: int
    really: int


def compare(
    replayed: Replayed, truth: Evaluation, index: npt.NDArray[np.int64], deepest: str
) -> dict[str, Compared]:
    """Estimate and truth by early exit; every decision must be the evaluation's."""
    last = truth.exits[deepest].label  # type: ignore[index]
    found = {name: [0, 0, 0, 0] for name in EARLY if name in truth.exits and name != deepest}
    for n in range(len(index)):
        decided = replayed.decisions[EPOCH_S + n]
        if decided.exit is None:
            continue
        if decided.exit != truth.exit[n]:
            raise AssertionError(f"slot {n} left at {decided.exit}, not at {truth.exit[n]}")
        if decided.exit in found:
            found[decided.exit][2] += 1
            found[decided.exit][3] += bool(truth.label[n] != last[n])
    for one in replayed.audits:
        found[one.exit][0] += 1
        found[one.exit][1] += not one.agrees
    return {name: Compared(*counts) for name, counts in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=Path("models/reference"))
    parser.add_argument("--data", default="generated")
    parser.add_argument("--slots", type=int, default=2000, help="slots in each run")
    parser.add_argument("--runs", type=int, default=10, help="runs for each share")
    parser.add_argument("--missing", type=float, default=0.1, help="how often a view is missing")
    parser.add_argument("--local-threshold", type=float, help="instead of the bundle's own")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.05])
    options = parser.parse_args()
    bundle, data = read_folder(options.bundle), load(options.data)
    pool = data.test if len(data.test) else data.train
    rng = np.random.default_rng(0)
    index = rng.choice(pool, options.slots)
    present = data.present[index] & (rng.random((options.slots, data.cameras)) >= options.missing)
    tuned: dict[ExitName, float] = {}
    if options.local_threshold is not None:
        tuned["local"] = options.local_threshold
    truth = Evaluator(bundle).evaluate(data.images[index], present, tuned)
    deepest = list(truth.exits)[-1]
    print(
        f"{bundle.manifest.name}: {options.slots} slots of {len(pool)} samples, {options.runs} runs"
    )
    print("share  exit   real     audits  mean of estimates  95 % interval holds  payload")
    for share in options.shares:
        runs = []
        more = []
        for number in range(options.runs):
            replay = Replay(bundle, share, number.to_bytes(2, "little"), tuned)
            replayed = replay.show(index, data, present)
            runs.append(compare(replayed, truth, index, deepest))
            more.append(replayed.payload_bytes[0] / replayed.payload_bytes[1])
        for name in runs[0]:
            each = [run[name] for run in runs if run[name].audited]
            if not each:
                print(f"{share:<6g} {name:<6} no audits")
                continue
            real = each[0].really / each[0].answered
            estimates = [one.disagreed / one.audited for one in each]
            intervals = [wilson(one.disagreed, one.audited) for one in each]
            holds = sum(low <= real <= high for low, high in intervals)
            print(
                f"{share:<6g} {name:<6} {real:.4f}  {np.mean([o.audited for o in each]):7.1f}  "
                f"{np.mean(estimates):.4f} +- {np.std(estimates):.4f}   "
                f"{holds:3d} of {len(each):<3d}           +{100 * np.mean(more):.2f} %"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
