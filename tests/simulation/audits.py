"""What audits promise: they come after their decision, are few and bounded, and tell the truth."""

from __future__ import annotations

from ddnn import topics
from ddnn.audit import decode, decode_estimate
from ddnn.decisions import decode as decode_decision
from ddnn.wire import Kind
from edge_gateway.audits import is_chosen
from tests.simulation.bundles import CLASSES, EXIT, label

#: Audits under way at once.
BOUND = 8


class AuditChecker:
    """Sees what one gateway after the other publishes."""

    def __init__(self, checker):
        self.checker = checker
        self.world = checker.world
        self.decided = {}
        self.audited = set()

    def publishes(self, host, message):
        topic, payload = message.topic, message.payload
        if topic == topics.decision("s"):
            decision = decode_decision(payload)
            self.decided[decision.slot] = decision
        elif topic == topics.audit("s"):
            self._result(decode(payload))
        elif topic == topics.audit_estimate("s"):
            self._estimate(host, decode_estimate(payload))
        elif topic == topics.escalation("s") or topic.startswith("s/q/"):
            self._asks(host, message)

    def _asks(self, host, message):
        """Of a slot that has ended nothing is asked but for an audit, after its decision."""
        payload, gateway = message.payload, host.gateway
        tag = int.from_bytes(payload[2:4], "little")
        slot = int.from_bytes(payload[6:10], "little")
        trial = gateway.trial
        if trial is not None and tag == trial.tier.sections.tag:
            return
        if slot not in gateway.audits:
            if slot in host.ended:
                self.checker.fail(f"slot {slot} has ended, and {message.topic} asks for it")
            return
        decision = self.decided.get(slot)
        if decision is None or slot not in host.ended:
            self.checker.fail(f"slot {slot} is audited and its decision is not out")
        share, key = self.world.options.audit_share, host.boot.to_bytes(2, "little")
        if not is_chosen(share, key, "s", slot):
            self.checker.fail(f"slot {slot} is audited and was not chosen")
        if tag != decision.bundle_tag:
            self.checker.fail(f"slot {slot} is audited by another bundle than it was decided by")
        if payload[0] & 15 == Kind.REQUEST and int(message.topic[4:]) in decision.absent:
            self.checker.fail(f"a camera that saw nothing in slot {slot} is asked for an audit")

    def _result(self, audit):
        slot, decision = audit.slot, self.decided.get(audit.slot)
        if slot in self.audited:
            self.checker.fail(f"slot {slot} was audited twice")
        self.audited.add(slot)
        self.world.counts["audits"] += 1
        if decision is None or decision.degraded or decision.exit not in ("local", "edge"):
            self.checker.fail(f"slot {slot} was audited, decided as {decision}")
        if (audit.label, audit.exit, audit.bundle_tag) != (
            decision.label, decision.exit, decision.bundle_tag,
        ):  # fmt: skip
            self.checker.fail(f"the audit of slot {slot} is about another decision: {audit}")
        for name, said in audit.exits.items():
            if said.label != CLASSES[label(slot, EXIT[name])]:
                self.checker.fail(f"{name} says {said.label} of slot {slot}: another slot's views")
        if audit.agrees != (audit.exits["cloud"].label == audit.label):
            self.checker.fail(f"the audit of slot {slot} contradicts itself")
        if audit.used != tuple(sorted(audit.used)) or set(audit.used) & set(audit.absent):
            self.checker.fail(f"the audit of slot {slot} names wrong cameras")

    def _estimate(self, host, estimate):
        ended = estimate.completed + sum(estimate.given_up.values())
        if estimate.begun != ended + len(host.gateway.audits):
            self.checker.fail(f"the audits' ledger does not balance: {estimate}")
        for one in estimate.exits:
            wrong = sum(each.disagreed for each in one.classes.values())
            if one.all.disagreed != wrong or not one.all.audited <= estimate.window:
                self.checker.fail(f"the estimate contradicts itself: {one}")

    def gateway(self, host):
        """After each call."""
        if len(host.gateway.audits) > BOUND:
            self.checker.fail(f"{len(host.gateway.audits)} audits are under way at once")

    def all_is_well(self, host):
        """At the end of a quiet phase: the share that was asked for, and no more."""
        share = self.world.options.audit_share
        early = sum(d.exit in ("local", "edge") for d in self.decided.values())
        deviation = (early * share * (1 - share)) ** 0.5
        if len(self.audited) > early * share + 5 * deviation + 1:
            self.checker.fail(f"{len(self.audited)} of {early} early decisions were audited")
