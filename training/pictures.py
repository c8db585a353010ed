"""Section files where pictures go to the cloud: devices do nothing, the cloud does everything.

The paper's Figure 2 (a). The same network as with binary devices, cut before them instead of
after: what a device would have computed the cloud computes, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.graph import BOOL, FLOAT, U8, Graph
from training.sections import (
    MAX_MEMBERS,
    Aggregation,
    Block,
    Head,
    answer,
    check_blocks,
    pool,
    quantised,
)


def picture_section(image: tuple[int, int, int]) -> bytes:
    """The section of a camera: image u8 (N, H, W, C) -> features u8 (N, H * W * C), as they are."""
    g = Graph()
    size = int(np.prod(image))
    g.reshape("image", -1, size, out="features")
    return g.build([("image", image)], [("features", U8, (size,))])


def whole_section(
    image: tuple[int, int, int],
    devices: Sequence[Sequence[Block]],
    kind: Aggregation,
    blocks: Sequence[Block],
    head: Head,
) -> bytes:
    """The cloud with the devices' blocks: features u8 (N, M, H * W * C), mask u8 (N, M) -> logits.

    The devices are groups of one convolution. Logits are i32 (N, K), those of `upper_section` on
    what `device_section` gives.

    Args:
        image: (height, width, channels) of each member's picture, whose bytes are its features.
        devices: the blocks of each member, all of the same sizes.
        kind, blocks, head: of the cloud, as in `upper_section`.

    Raises:
        ValueError: parameters that do not fit together, or are too large to be exact.
    """
    members = len(devices)
    if not 1 <= members <= MAX_MEMBERS:
        raise ValueError(f"a section for {members} members: 1 to {MAX_MEMBERS} are possible")
    height, width, channels = image
    shapes = {check_blocks((channels, height, width), own) for own in devices}
    if len(shapes) > 1:
        raise ValueError("devices must have blocks of the same sizes")
    filters, *area = shapes.pop()
    first, *rest = [_side_by_side(layer) for layer in zip(*devices, strict=True)]
    first.check_exact(255)
    g = Graph()
    x = g.reshape("features", 0, members, height, width, channels)
    x = g.op("Transpose", x, perm=[0, 1, 4, 2, 3])
    x = g.op("Cast", g.reshape(x, 0, members * channels, height, width), to=FLOAT)
    bias = g.constant(129 - 2 * first.threshold, FLOAT)
    x = g.op("Conv", x, g.signs(first.signs), bias, pads=[1, 1, 1, 1], group=members)
    x = pool(g, g.op("Clip", x, g.constant(127, FLOAT), g.constant(129, FLOAT)))
    x = g.op("Cast", x, to=U8)
    if rest:
        x = quantised(g, x, rest, 1, first.flip, groups=members, bits=False)
    x = g.reshape(x, 0, members, filters * area[0] * area[1])
    flip = (rest[-1] if rest else first).flip.reshape(members, filters)
    if flip.any():
        # 127 and 129 are each other's complement but for the lowest bit.
        turn = np.repeat(np.where(flip, 254, 0), area[0] * area[1], axis=1)
        x = g.op("BitwiseXor", x, g.constant(turn, U8))
    there = g.op("Unsqueeze", g.op("Cast", "mask", to=BOOL), g.sizes(2))
    # For MP a member that is not there must lose against any that is.
    x = g.op("Where", there, x, g.constant(127 if kind == "MP" else 128, U8))
    if kind == "MP":
        x = g.op("ReduceMax", x, g.sizes(1), keepdims=0)
    elif kind == "AP":
        centred = g.op("Sub", g.op("Cast", x, to=FLOAT), g.constant(128, FLOAT))
        total = g.op("ReduceSum", centred, g.sizes(1), keepdims=0)
        x = g.op("Cast", g.op("Add", total, g.constant(128, FLOAT)), to=U8)
    joined = (filters * members if kind == "CC" else filters, area[0], area[1])
    x = g.reshape(x, 0, *joined)
    outputs = answer(g, x, joined, members, kind, blocks, head, edge_features=False)
    size = height * width * channels
    return g.build([("features", (members, size)), ("mask", (members,))], outputs)


def _side_by_side(layer: Sequence[Block]) -> Block:
    """One block of several devices as groups of channels."""
    return Block(
        np.concatenate([block.signs for block in layer]),
        np.concatenate([block.threshold for block in layer]),
        np.concatenate([block.flip for block in layer]),
    )
