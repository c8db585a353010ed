"""Bundles of stand-in sections whose outputs say where they come from.

Every score, feature and logit carries the slot and the bundle version that it was made of, so that
a decision made of the wrong things is seen, wherever it went wrong:

- a device section puts version, camera and slot of the *view* into scores and features;
- the gateway's sections check that all their inputs are of one slot and of their own version, and
  answer the class `(slot + exit) % K`, which must be the label of that slot's decision;
- the same for the cloud section.

The scene of a slot says how deep it must go: `depth(slot)` is the exit that is sure of it.
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np

from ddnn.bundle import (
    Bundle,
    ExitInfo,
    Image,
    Manifest,
    SectionInfo,
    SelfTest,
    Tensor,
    Topology,
    assemble,
    encode_manifest,
)

CLASSES = ("a", "b", "c", "d", "e")
K = len(CLASSES)
FEATURE_BYTES = 6
EXIT = {"local": 0, "edge": 1, "cloud": 2}
SURE, UNSURE = 1000, 1


class Mixed(Exception):
    """A section was given what does not belong together."""


def depth(slot, shares):
    """0: the local exit is sure of this slot; 1: the edge; 2: nobody before the cloud."""
    draw = (slot * 2654435761 % 2**32) / 2**32
    return 0 if draw < shares[0] else 1 if draw < shares[0] + shares[1] else 2


def view(slot, deep):
    """What a camera sees in `slot`: an image (1, 2, 3) uint8 that says so."""
    return np.array([[[slot & 255, slot >> 8 & 255, slot >> 16 & 255], [deep, 0, 0]]], np.uint8)


class DeviceSection:
    """Image (1, 2, 3) -> scores (K,), features (6,), both with their origin inside."""

    def __init__(self, info, data):
        self.version = int(data.split(b"|")[1])
        self.camera = int(info.role.partition("/")[2])

    def run_one(self, image):
        low, middle, high = image[0, 0]
        deep = image[0, 1, 0]
        scores = np.array([self.version, self.camera, low, middle, deep], np.uint8)
        features = np.array([self.version, self.camera, low, middle, high, deep], np.uint8)
        return scores, features


class GatewaySections:
    """`ddnn.tier.NodeSections` that believe nothing."""

    def __init__(self, bundle, members):
        self.tag = bundle.tag
        self.version = bundle.manifest.version % 256
        self.members = members
        self.classes = self.score_bytes = K
        self.feature_bytes = FEATURE_BYTES
        self.thresholds = {"local": 0.5, "edge": 0.5}
        self.scales = {"local": 0.01, "edge": 0.01, "cloud": 0.01}
        self.has_local = self.has_edge = self.has_cloud = True

    def local(self, scores, mask):
        slot, deep = self._origin(scores, mask)
        return logits(slot, 0, deep <= 0)

    def edge(self, features, mask):
        slot, deep = self._origin(features, mask)
        origin = bytes([self.version, slot & 255, slot >> 8 & 255, deep])
        return logits(slot, 1, deep <= 1), {0: origin}

    def _origin(self, rows, mask):
        origins = set()
        size = len(rows) // len(mask)
        for member in np.flatnonzero(np.frombuffer(mask, np.uint8)):
            row = list(rows[member * size : (member + 1) * size])
            if row[0] != self.version:
                raise Mixed(f"version {row[0]} given to a section of version {self.version}")
            if row[1] != member:
                raise Mixed(f"what camera {row[1]} saw was given as camera {member}'s")
            origins.add((row[2] | row[3] << 8, row[-1]))
        if len(origins) != 1:
            raise Mixed(f"views of slots {sorted(o[0] for o in origins)} (low 16 bits) together")
        return origins.pop()


class CloudSection:
    """Edge features -> logits."""

    def __init__(self, info, data):
        self.info = info
        self.version = int(data.split(b"|")[1])

    def batch(self, size):
        return CloudBatch(self.version, self.info, size)


class CloudBatch:
    """What a `CloudSection` runs."""

    def __init__(self, version, info, size):
        self.version = version
        self.inputs = tuple(np.zeros((size, *t.shape), np.uint8) for t in info.inputs)
        self.outputs = (np.zeros((size, K), np.int32),)

    def run(self):
        for row, answer in zip(self.inputs[0], self.outputs[0], strict=True):
            version, low, high, _ = row[0].tolist()
            if version != self.version:
                raise Mixed(f"version {version} given to a cloud section of version {self.version}")
            answer[:] = logits(low | high << 8, 2, True)


def logits(slot, exit_number, sure):
    """Logits whose best class says slot (its low 16 bits) and exit."""
    values = np.zeros(K, np.int32)
    values[label(slot, exit_number)] = SURE if sure else UNSURE
    return values


def label(slot, exit_number):
    """The class that exit number `exit_number` must answer for `slot`."""
    return ((slot & 0xFFFF) + exit_number) % K


@functools.lru_cache(maxsize=64)
def bundle(version: int, cameras: int) -> Bundle:
    """A complete bundle of stand-in sections."""

    def u8(name, *shape):
        return Tensor(name=name, dtype="uint8", shape=shape)

    answer = Tensor(name="logits", dtype="int32", shape=(K,))
    tensors = {
        "device": ((u8("image", 1, 2, 3),), (u8("scores", K), u8("features", FEATURE_BYTES))),
        "local": ((u8("scores", cameras, K), u8("mask", cameras)), (answer,)),
        "edge": (
            (u8("features", cameras, FEATURE_BYTES), u8("mask", cameras)),
            (answer, u8("edge_features", 4)),
        ),
        "cloud": ((u8("features", 1, 4), u8("mask", 1)), (answer,)),
    }
    roles = [*(f"device/{camera}" for camera in range(cameras)), "local/0", "edge/0", "cloud"]
    datas = {role: f"{role}|{version % 256}|".encode() + bytes(50) for role in roles}
    manifest = Manifest(
        name="simulated",
        version=version,
        created="2026-01-01T00:00:00Z",
        classes=CLASSES,
        image=Image(height=1, width=2, channels=3),
        topology=Topology(cameras=cameras, edges=(tuple(range(cameras)),)),
        exits={
            "local": ExitInfo(logit_scale=0.01, threshold=0.5),
            "edge": ExitInfo(logit_scale=0.01, threshold=0.5),
            "cloud": ExitInfo(logit_scale=0.01),
        },
        sections=tuple(
            SectionInfo(
                role=role,
                sha256=hashlib.sha256(data).hexdigest(),
                size_bytes=len(data),
                opset=18,
                inputs=tensors[role.partition("/")[0]][0],
                outputs=tensors[role.partition("/")[0]][1],
                self_test=SelfTest(seed="s", batch=1, sha256="0" * 64),
            )
            for role, data in datas.items()
        ),
    )
    return assemble(encode_manifest(manifest), datas)
