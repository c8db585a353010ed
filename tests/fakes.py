"""Stand-ins for a gateway's sections: what they answer can be read off their inputs."""

import numpy as np

from ddnn import wire
from ddnn.wire import Kind
from edge_gateway.effects import Fault

TAG = 0x0BAD
SURE = 1000
UNSURE = 1


def rows(data, mask):
    """What a gateway's section gets, as arrays (M, size) and (M,)."""
    return np.frombuffer(data, np.uint8).reshape(len(mask), -1), np.frombuffer(mask, np.uint8)


def without_faults(effects):
    """A gateway's effects, if none of them is an error of its own.

    Raises:
        Exception: that error.
    """
    for effect in effects:
        if isinstance(effect, Fault):
            raise effect.error
    return effects


class FakeSections:
    """The first member's first score byte says what each exit answers.

    Bit 0: the local exit is sure. Of the features: bit 0 of byte 0: the edge exit is sure.
    """

    def __init__(self, members=3, classes=3, *, local=True, edge=True, cloud=True, tag=TAG):
        self.tag = tag
        self.members = members
        self.classes = classes
        self.score_bytes = classes if local else 0
        self.feature_bytes = 4
        self.thresholds = {"local": 0.5, "edge": 0.5}
        self.scales = {"local": 0.01, "edge": 0.01, "cloud": 0.01}
        self.has_local = local
        self.has_edge = edge
        self.has_cloud = cloud
        self.local_masks = []
        self.edge_masks = []

    def local(self, scores, mask):
        scores, mask = rows(scores, mask)
        assert not scores[mask == 0].any()
        self.local_masks.append(mask.copy())
        return self._logits(0, sure=bool(scores[mask == 1][0, 0] & 1))

    def edge(self, features, mask):
        features, mask = rows(features, mask)
        assert not features[mask == 0].any()
        self.edge_masks.append(mask.copy())
        return self._logits(1, sure=bool(features[mask == 1][0, 0] & 1)), {0: b"edge"}

    def _logits(self, label, *, sure):
        logits = np.zeros(self.classes, np.int32)
        logits[label] = SURE if sure else UNSURE
        return logits


#: In a summary or in features: with it no section can do anything.
BROKEN = 0xEE


class BrokenSections(FakeSections):
    """As the real ones where onnxruntime, or a bug, raises over some inputs."""

    def local(self, scores, mask):
        return self._refuse(scores, super().local, mask)

    def edge(self, features, mask):
        return self._refuse(features, super().edge, mask)

    def _refuse(self, data, section, mask):
        if BROKEN in data:
            raise RuntimeError("a section cannot be run")
        return section(data, mask)


def frame(kind, slot, body=b"", *, tag=TAG, boot=7, flags=0):
    """A decoded frame message."""
    return wire.decode(wire.encode(kind, tag=tag, boot=boot, slot=slot, flags=flags, body=body))


def summary(slot, *, sure=True, **fields):
    return frame(Kind.SUMMARY, slot, bytes([sure, 0, 0]), **fields)


def features(slot, *, sure=True, **fields):
    return frame(Kind.FEATURES, slot, bytes([sure, 0, 0, 0]), **fields)


def answer(slot, label=2, **fields):
    logits = np.zeros(3, np.int32)
    logits[label] = SURE
    return frame(Kind.ANSWER, slot, wire.pack_logits(logits), **fields)
