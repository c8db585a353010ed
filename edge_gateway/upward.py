"""What an edge gateway says to the site's gateway, as messages: what a camera says to its own."""

from __future__ import annotations

from ddnn import topics, wire
from ddnn.message import Publish
from ddnn.tier import Feed, Report
from ddnn.wire import Flag, Kind


def upward(action: Report | Feed, site: str, edge: int, tag: int, boot: int) -> Publish:
    """The SUMMARY or FEATURES message of edge gateway number `edge`.

    A report is kept by nobody while the broker is away, unless it is late already.
    """
    flags = Flag.NONE
    match action:
        case Report(slot, body, late):
            kind, topic, qos = Kind.SUMMARY, topics.edge_summary(site, edge), int(late)
            flags |= Flag.BACKLOG if late else Flag.NONE
        case Feed(slot, body, partial):
            kind, topic, qos = Kind.FEATURES, topics.edge_features(site, edge), 1
            flags |= Flag.PARTIAL if partial else Flag.NONE
    if body is None:
        flags |= Flag.ABSENT
    payload = wire.encode(kind, tag=tag, boot=boot, slot=slot, flags=flags, body=body or b"")
    return Publish(topic, payload, qos=qos)
