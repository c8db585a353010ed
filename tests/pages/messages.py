"""A site's messages as its nodes send them, without the nodes: for states that are rare."""

from pathlib import Path
from typing import NamedTuple

import msgspec

from ddnn import activation, decisions, status, topics, wire
from ddnn.activation import Activation
from ddnn.bundle import Manifest, bundle_id, decode_manifest, encode_manifest, tag
from ddnn.decisions import PublishedDecision
from ddnn.health import Health
from ddnn.message import Message
from ddnn.status import Status
from ddnn.wire import Flag, Kind

REFERENCE = Path(__file__).resolve().parents[2] / "models" / "reference" / "manifest.json"
NOW = 1_800_000_000.0
PERIOD_S = 0.1


def manifest(version=7, **changes):
    """The reference bundle's, under another version."""
    known = decode_manifest(REFERENCE.read_bytes())
    return msgspec.structs.replace(known, version=version, **changes)


class Offer(NamedTuple):
    """A bundle as it is offered."""

    manifest: Manifest
    payload: bytes

    @classmethod
    def of(cls, version=7, **changes):
        made = manifest(version, **changes)
        return cls(made, encode_manifest(made))

    @property
    def id(self):
        return bundle_id(self.payload)

    @property
    def tag(self):
        return tag(self.payload)


class SiteMessages:
    """Makes the messages of one site that runs `offer`."""

    def __init__(self, site="s1", offer=None):
        self.site = site
        self.offer = offer or Offer.of()

    @property
    def cameras(self):
        return self.offer.manifest.topology.cameras

    def status(self, node, *, state="online", boot=1, **fields):
        online = {"bundle": self.offer.id, "version": self.offer.manifest.version}
        said = Status(node=node, state=state, boot=boot, **(online | fields))
        return Message(topics.status(self.site, node), status.encode(said), True)

    def worker(self, name="cloud-0", *, state="online", **fields):
        sites = {"sites": {self.site: self.offer.id}} if state == "online" else {}
        said = Status(node=name, state=state, boot=1, **(sites | fields))
        return Message(topics.worker_status(name), status.encode(said), True)

    def manifest(self, offer=None):
        return Message(topics.manifest(self.site), (offer or self.offer).payload, True)

    def active(self, offer=None, *, from_slot=0, **fields):
        offer = offer or self.offer
        record = Activation(
            bundle=offer.id,
            version=offer.manifest.version,
            from_slot=from_slot,
            manifest=offer.payload,
            **fields,
        )
        return Message(topics.active(self.site), activation.encode(record), True)

    def settings(self, payload=b""):
        return Message(topics.settings(self.site), payload, True)

    def ledger(self, **counts):
        return Message(topics.ledger(self.site), msgspec.json.encode(counts), True)

    def summary(self, camera, scores=(200, 128, 90), *, slot=0, offer=None):
        flags = 0 if scores else Flag.ABSENT
        payload = wire.encode(
            Kind.SUMMARY, tag=(offer or self.offer).tag, boot=1, slot=slot, flags=flags,
            body=bytes(scores),
        )  # fmt: skip
        return Message(topics.summary(self.site, camera), payload)

    def decision(self, slot, *, time_s=None, **fields):
        missing = fields.pop("missing", ())
        absent = fields.pop("absent", ())
        used = tuple(n for n in range(self.cameras) if n not in (*missing, *absent))
        known = {
            "site": self.site, "slot": slot,
            "time_s": slot * PERIOD_S if time_s is None else time_s,
            "label": "bus", "probability": 0.97, "entropy": 0.12, "threshold": 0.990406,
            "exit": "local", "members": "cameras", "used": used, "absent": absent,
            "missing": missing, "degraded": None, "stage_ms": {"summaries": 2.1},
            "payload_bytes": 78, "bundle_tag": self.offer.tag,
        }  # fmt: skip
        return PublishedDecision(**(known | fields))

    def decided(self, slot, **fields):
        return Message(topics.decision(self.site), decisions.encode(self.decision(slot, **fields)))

    def healthy(self, now_s=NOW):
        """Everything that a site which is well has retained."""
        health = Health(
            source="running", fps=10.0, temperature_c=51.0, clock_synchronised=True, disk_mb=9000
        )
        for camera in range(self.cameras):
            yield self.status(
                f"device-{camera}", since_s=now_s - 5000, at_s=now_s - 3, every_s=60.0,
                health=health,
            )  # fmt: skip
        yield self.status("gateway", since_s=now_s - 5000)
        yield self.worker()
        yield self.manifest()
        yield self.active()


def tell(overview, messages, now_s=NOW, *, retained=None):
    """Let an overview or picture hear messages."""
    for message in messages:
        is_retained = message.retain if retained is None else retained
        overview.hear(message.topic, message.payload, is_retained, now_s)
