"""Bundles whose sections are arbitrary bytes: for everything that never runs them."""

import hashlib

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

CLASSES = ("car", "bus", "person")


def u8(name, *shape):
    return Tensor(name=name, dtype="uint8", shape=shape)


LOGITS = Tensor(name="logits", dtype="int32", shape=(3,))
SIGNATURES = {
    "device": ((u8("image", 8, 8, 3),), (u8("scores", 3), u8("features", 16))),
    "local": ((u8("scores", 2, 3), u8("mask", 2)), (LOGITS,)),
    "edge": ((u8("features", 2, 16), u8("mask", 2)), (LOGITS, u8("edge_features", 8))),
    "cloud": ((u8("features", 1, 8), u8("mask", 1)), (LOGITS,)),
}


def section_info(role, data, **changes):
    inputs, outputs = SIGNATURES[role.partition("/")[0]]
    fields = {
        "role": role,
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
        "opset": 18,
        "inputs": inputs,
        "outputs": outputs,
        "self_test": SelfTest(seed="s", batch=2, sha256="0" * 64),
    }
    return SectionInfo(**(fields | changes))


def sections(marker=b""):
    roles = ("device/0", "device/1", "local/0", "edge/0", "cloud")
    return {role: role.encode() * 20 + marker for role in roles}


def manifest(datas, *, version=1, **changes):
    fields = {
        "name": "test",
        "version": version,
        "created": "2026-01-01T00:00:00Z",
        "classes": CLASSES,
        "image": Image(height=8, width=8, channels=3),
        "topology": Topology(cameras=2, edges=((0, 1),)),
        "exits": {
            "local": ExitInfo(logit_scale=0.01, threshold=0.8),
            "edge": ExitInfo(logit_scale=0.01, threshold=0.8),
            "cloud": ExitInfo(logit_scale=0.01),
        },
        "sections": tuple(section_info(role, data) for role, data in datas.items()),
    }
    return Manifest(**(fields | changes))


def bundle(version=1, marker=b"") -> Bundle:
    datas = sections(marker)
    return assemble(encode_manifest(manifest(datas, version=version)), datas)
