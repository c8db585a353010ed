"""Bundles of random weights, of shapes that between them use every kind of section."""

import msgspec
import numpy as np

from ddnn.bundle import (
    Bundle,
    ExitInfo,
    Image,
    Manifest,
    Topology,
    assemble,
    encode_manifest,
)
from training.describe import describe_section
from training.local_sections import local_section
from training.pictures import picture_section, whole_section
from training.sections import (
    Block,
    Head,
    device_section,
    pooled,
    upper_section,
)

CLASSES = ("car", "bus", "person")


def _blocks(rng, channels, filters, *, pixels=False, levels=1):
    """Thresholds about where the largest of nine sums of random inputs lies."""
    blocks = []
    for number, count in enumerate(filters):
        shape = (count, channels, 3, 3)
        signs = rng.choice([-1, 1], shape) if levels == 1 else rng.integers(-levels, levels, shape)
        signs = signs.astype(np.int8)
        mean, spread = (127.5, 74.0) if pixels and not number else (0.0, 1.0)
        spread *= signs.std() if levels > 1 else 1
        deviations = rng.uniform(0.7, 2.2, count) * spread * (9 * channels) ** 0.5
        threshold = np.round(mean * signs.sum(axis=(1, 2, 3)) + deviations).astype(np.int64)
        blocks.append(Block(signs, threshold, rng.random(count) < 0.3))
        channels = count
    return blocks


def _gain(features):
    return max(1, min(4000, 2**22 // features))


def _head(rng, features, *, shift=0, centre=0):
    gain = _gain(features)
    return Head(
        rng.choice([-1, 1], (features, 3)).astype(np.int8),
        rng.integers(gain // 2, gain + 1, 3),
        rng.integers(-gain, gain + 1, 3) + (centre << shift),
        shift,
    )


def _after(shape, filters):
    for count in filters:
        shape = (count, pooled(shape[1]), pooled(shape[2]))
    return shape


def random_bundle(
    seed,
    image,
    device,
    edges,
    edge,
    cloud,
    kind,
    *,
    local=True,
    gated="",
    levels=1,
    pictures=False,
) -> Bundle:
    """A whole bundle.

    Args:
        image: (H, W, C).
        device, edge, cloud: filters of their blocks; () for none.
        edges: cameras of each edge; () for devices and cloud.
        kind: MP, AP or CC, at every join.
        local: whether there is a local exit.
        gated: GA, GC or HC if the local exit is of these.
        levels: weights of edge and cloud blocks are within -levels..levels; 1: -1 or +1.
        pictures: whether pictures go to the cloud, which then runs the devices' blocks.
    """
    local = local and not pictures
    rng = np.random.default_rng(seed)
    cameras = max((camera for below in edges for camera in below), default=1) + 1
    shape = (image[2], *image[:2])
    features = _after(shape, device)
    size = int(np.prod(features))
    data, devices = {}, []
    for camera in range(cameras):
        shift = max(0, int(np.log2(_gain(size) * size**0.5 / 30)))  # scores of about 128 +- 30
        head = _head(rng, size, shift=shift, centre=128)
        devices.append(_blocks(rng, shape[0], device, pixels=True))
        data[f"device/{camera}"] = (
            picture_section(image) if pictures else device_section(image, devices[-1], head)
        )
    for number, below in enumerate(edges or (tuple(range(cameras)),)):
        if local:
            weights = Head(
                rng.integers(-90, 91, (len(below) * 3, 3)), np.ones(3, int), np.arange(3)
            )
            linear = weights if kind == "CC" else None
            if gated == "GC":
                gate = rng.integers(0, 256, (len(below) + 1, 256))
                file = local_section(len(below), 3, "GC", weights, gate=gate)
            elif gated == "HC":
                below_units, units = len(below) * 4, 16
                signs = rng.integers(-90, 91, (below_units, units))
                hidden = Head(signs, np.ones(1, int), rng.integers(-999, 999, units), 3)
                signs = rng.integers(-90, 91, (below_units + units, 3))
                output = Head(signs, np.ones(1, int), np.arange(3))
                file = local_section(len(below), 3, "HC", output, hidden=hidden)
            elif gated:
                factors, gate = np.arange(len(below) + 1), rng.integers(0, 64, 256)
                file = local_section(len(below), 3, "GA", table=factors, gate=gate)
            else:
                file = local_section(len(below), 3, kind, linear)
            data[f"local/{number}"] = file
        if edges:
            joined = features[0] * (len(below) if kind == "CC" else 1)
            head = _head(rng, int(np.prod(_after(features, edge))))
            blocks = _blocks(rng, joined, edge, levels=levels)
            data[f"edge/{number}"] = upper_section(
                len(below), features, kind, blocks, head, edge_features=True
            )
    if cloud:
        members = len(edges) or cameras
        up = _after(features, edge) if edges else features
        joined = up[0] * (members if kind == "CC" else 1)
        head = _head(rng, int(np.prod(_after(up, cloud))))
        blocks = _blocks(rng, joined, cloud, levels=levels)
        data["cloud"] = (
            whole_section(image, devices, kind, blocks, head)
            if pictures
            else upper_section(members, up, kind, blocks, head, edge_features=False)
        )
    scales = {}
    if len(edges) > 1:
        scales = {"edge": 1e-4, "local": 1e-3 if kind == "CC" else 2**-14}
        if not local:
            del scales["local"]
        data |= {f"join/{tier}": local_section(len(edges), 3, "AP") for tier in scales}
    tiers = [name for name in ("local", "edge", "cloud") if any(r.startswith(name) for r in data)]
    manifest = Manifest(
        name=f"random-{seed}",
        version=1,
        created="2026-01-01T00:00:00Z",
        classes=CLASSES,
        image=Image(height=image[0], width=image[1], channels=image[2]),
        topology=Topology(
            cameras=cameras, edges=edges, offload="images" if pictures else msgspec.UNSET
        ),
        edge_scales=scales or msgspec.UNSET,
        exits={
            # A join gives 4096 times the mean of scores in sixteenths of a nat.
            tier: ExitInfo(
                logit_scale=2**-16 if tier in scales else 1e-3,
                threshold=None if tier == tiers[-1] else 0.8,
            )
            for tier in tiers
        },
        sections=tuple(describe_section(role, file) for role, file in data.items()),
    )
    return assemble(encode_manifest(manifest), data)


def bundles() -> dict[str, Bundle]:
    """By name: the paper's shapes, odd sizes, several edges, no local exit, and a large one."""
    six, halves = ((0, 1, 2, 3, 4, 5),), ((0, 1, 2), (3, 4))
    return {
        "paper": random_bundle(1, (32, 32, 3), (4,), six, (16,), (32, 64), "CC"),
        "hidden": random_bundle(8, (16, 10, 1), (4,), six, (16,), (32,), "CC", gated="HC"),
        "mp": random_bundle(2, (32, 32, 3), (4,), six, (16,), (32,), "MP"),
        "ap": random_bundle(3, (17, 23, 1), (3, 5), halves, (7,), (9,), "AP"),
        "no-local-exit": random_bundle(
            4, (19, 13, 3), (5,), ((0, 1),), (6,), (), "CC", local=False
        ),
        "pictures": random_bundle(7, (20, 24, 3), (6, 4), (), (), (24,), "CC", pictures=True),
        "devices-cloud": random_bundle(5, (24, 20, 3), (16, 8), (), (), (24,), "CC", gated="GC"),
        "gated-bytes": random_bundle(
            7, (32, 32, 3), (4,), six, (16,), (32, 64), "CC", gated="GA", levels=63
        ),
        "large": random_bundle(6, (96, 96, 3), (32, 64, 128, 256), ((0, 1),), (64,), (32,), "CC"),
    }
