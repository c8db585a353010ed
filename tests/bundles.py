"""Bundles for tests: of arbitrary bytes where no section is run, of random weights where one is."""

import hashlib

import msgspec
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
from ddnn.evaluate import Evaluator
from ddnn.measurements import EXITS
from training.describe import describe_section
from training.local_sections import local_section
from training.sections import Block, Head, device_section, pooled, upper_section

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


def random_bundle(seed=0, *, cameras=3, size=16, version=1, local_threshold=0.88):
    """A bundle that runs, of random weights: every exit takes its share of random images."""
    rng = np.random.default_rng(seed)

    def block(inputs, outputs, spread):
        return Block(
            rng.choice([-1, 1], (outputs, inputs, 3, 3)).astype(np.int8),
            rng.integers(-spread, spread, outputs),
            rng.random(outputs) < 0.3,
        )

    def head(features, gain, shift=0, centre=0):
        signs = rng.choice([-1, 1], (features, 3)).astype(np.int8)
        return Head(signs, np.full(3, gain), rng.integers(-9, 9, 3) + (centre << shift), shift)

    half, quarter = pooled(size), pooled(pooled(size))
    datas = {
        f"device/{n}": device_section(
            (size, size, 3), [block(3, 4, 1500)], head(4 * half**2, 3, shift=2, centre=128)
        )
        for n in range(cameras)
    }
    datas["local/0"] = local_section(cameras, 3, "AP", None)
    datas["edge/0"] = upper_section(
        cameras, (4, half, half), "CC", [block(4 * cameras, 8, 20)], head(8 * quarter**2, 40),
        edge_features=True,
    )  # fmt: skip
    datas["cloud"] = upper_section(
        1, (8, quarter, quarter), "CC", [block(8, 8, 20)], head(8 * pooled(quarter) ** 2, 40),
        edge_features=False,
    )  # fmt: skip
    info = Manifest(
        name="random",
        version=version,
        created="2026-01-01T00:00:00Z",
        classes=CLASSES,
        image=Image(height=size, width=size, channels=3),
        topology=Topology(cameras=cameras, edges=(tuple(range(cameras)),)),
        exits={
            "local": ExitInfo(logit_scale=2e-5, threshold=local_threshold),
            "edge": ExitInfo(logit_scale=2e-3, threshold=0.88),
            "cloud": ExitInfo(logit_scale=2e-3),
        },
        sections=tuple(describe_section(role, data) for role, data in datas.items()),
    )
    return assemble(encode_manifest(info), datas)


def every_exit_used(bundle, images, present):
    """The same with scales and thresholds at which all exits take as many of these samples each."""
    left = present.any(axis=1)
    exits = dict(bundle.manifest.exits)
    for name, outcome in Evaluator(bundle).evaluate(images, present).exits.items():
        spread = float(np.ptp(outcome.logits[left], axis=1).mean())
        exits[name] = msgspec.structs.replace(exits[name], logit_scale=2.0 / max(1.0, spread))
    scaled = _with_exits(bundle, exits)
    outcomes = Evaluator(scaled).evaluate(images, present).exits
    *early, _ = (name for name in EXITS if name in exits)
    for number, name in enumerate(early):
        entropy = np.sort(outcomes[name].entropy[left])
        cut = len(entropy) // (len(exits) - number)
        threshold = float(entropy[cut - 1 : cut + 1].mean())
        stays = outcomes[name].entropy >= threshold
        assert (left & stays).any(), f"no sample is left for the exit after {name}"
        assert (left & ~stays).any(), f"the samples are all alike to the {name} exit"
        left &= stays
        exits[name] = msgspec.structs.replace(exits[name], threshold=threshold)
    return _with_exits(bundle, exits)


def _with_exits(bundle, exits):
    manifest = msgspec.structs.replace(bundle.manifest, exits=exits, calibration=None)
    return assemble(encode_manifest(manifest), bundle.sections)


def with_version(bundle, version):
    """The same network as another bundle."""
    manifest = msgspec.structs.replace(bundle.manifest, version=version)
    return assemble(encode_manifest(manifest), bundle.sections)
