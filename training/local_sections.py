"""Sections of local exits: members' score bytes and a mask -> logits, in whole numbers.

As `training.sections`, numpy and `onnx.helper` without torch. Every step is exact in float32, or
in int32 where a gate's factor, a score and a weight multiply (GC).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.graph import BOOL, FLOAT, I32, U8, Graph
from training.options import LocalAggregation
from training.sections import EXACT_I32, Head, check_whole

#: A hidden unit of HC as a whole number is 0 to this.
HIDDEN_STEPS = 4095


def local_section(
    members: int,
    classes: int,
    kind: LocalAggregation,
    head: Head | None = None,
    table: npt.ArrayLike | None = None,
    gate: npt.ArrayLike | None = None,
    hidden: Head | None = None,
) -> bytes:
    """The local aggregator: scores u8 (N, M, K), mask u8 (N, M) -> logits i32 (N, K).

    A score of 128 stands for 0. Whatever a masked row holds has no influence. With nobody there
    MP, AP and GA give equal logits (entropy 1), CC, GC and HC what their offsets make of it.

    Args:
        head: CC, GC: a linear layer of any whole weights; `signs` (M * K, K) are the weights.
        table: whole factors. AP, GA: (M + 1,), what the sum over the members there is multiplied
            with, by their number; None: 4096 / number, so that the result is 4096 times their
            mean. MP: (1,), what the largest score is multiplied with; None: 1.
        gate: GA: (256,) whole weights >= 0 of a member's scores, by how far its largest is
            above its smallest. GC: (M + 1, 256), 0 to 255, by the number of members there first.
        hidden: HC: a linear layer of whole weights from M * K centred scores and then M bits that
            say who is there, `signs` (M * K + M, H), to H units: divided by 2**shift, rounded
            down and held within 0..HIDDEN_STEPS. `head` is then (M * K + M + H, K), of the same
            inputs and the units.

    Raises:
        ValueError: numbers so large that a step would not be exact in float32 (GC, HC: in int32).
    """
    g = Graph()
    # By way of bool: a mask byte other than 0 and 1 must not weigh a member.
    there = g.op("Cast", "mask", to=BOOL)
    rows = g.op("Unsqueeze", g.op("Cast", there, to=FLOAT), g.sizes(2))
    scores = g.op("Cast", "scores", to=FLOAT)
    centred = g.op("Mul", g.op("Sub", scores, g.constant(128, FLOAT)), rows)
    if kind == "AP":
        y = _mean(g, centred, there, members, table)
    elif kind == "GA":
        gates = np.asarray([] if gate is None else gate, np.int64)
        if gates.shape != (256,) or gates.min() < 0:
            raise ValueError("GA needs 256 gates, none below 0")
        weight = g.op("Gather", g.constant(gates, FLOAT), _spread(g, scores))
        weighed = g.op("Mul", centred, weight)
        y = _mean(g, weighed, there, members, table, 128 * int(gates.max()))
    elif kind == "MP":
        gone = g.op("Sub", rows, g.constant(1, FLOAT))
        low = g.op("Mul", gone, g.constant(128, FLOAT))
        y = g.op("ReduceMax", g.op("Add", centred, low), g.sizes(1), keepdims=0)
        factor = 1 if table is None else int(np.asarray(table).reshape(()))
        if factor != 1:
            check_whole("the local exit", 128 * abs(factor))
            y = g.op("Mul", y, g.constant(factor, FLOAT))
    elif kind == "HC":
        y = _hidden_map(g, centred, rows, members, classes, head, hidden)
    elif head is None or head.signs.shape != (members * classes, classes):
        raise ValueError(f"{kind} needs weights (members * classes, classes)")
    elif kind == "GC":
        y = _gated_map(g, scores, centred, there, members, head, gate)
    else:
        largest = np.abs(head.signs.astype(np.int64)).sum(0) * 128 + np.abs(head.offset)
        check_whole("the local exit", int(largest.max()))
        weights = g.constant(head.signs, FLOAT)
        y = g.op("Gemm", g.op("Flatten", centred), weights, g.constant(head.offset, FLOAT))
    g.op("Cast", y, to=I32, out="logits")
    return g.build(
        [("scores", (members, classes)), ("mask", (members,))], [("logits", I32, (classes,))]
    )


def _spread(g: Graph, scores: str) -> str:
    """Float (N, M, K) -> i32 (N, M, 1): how far the largest is above the smallest."""
    high, low = (g.op(kind, scores, g.sizes(2)) for kind in ("ReduceMax", "ReduceMin"))
    return g.op("Cast", g.op("Sub", high, low), to=I32)


def _gated_map(
    g: Graph,
    scores: str,
    centred: str,
    there: str,
    members: int,
    head: Head,
    gate: npt.ArrayLike | None,
) -> str:
    """Centred scores, each member's times its gate, through a linear map; in int32."""
    gates = np.asarray([] if gate is None else gate, np.int64)
    if gates.shape != (members + 1, 256) or gates.min() < 0 or gates.max() > 255:
        raise ValueError(f"GC of {members} members needs {members + 1} x 256 gates of 0 to 255")
    largest = np.abs(head.signs.astype(np.int64)).sum(0) * 128 * int(gates.max())
    check_whole("the local exit", int((largest + np.abs(head.offset)).max()), EXACT_I32)
    count = g.op("ReduceSum", g.op("Cast", there, to=I32), g.sizes(1), keepdims=1)
    row = g.op("Unsqueeze", g.op("Mul", count, g.constant(256, I32)), g.sizes(2))
    index = g.op("Add", _spread(g, scores), row)
    weight = g.op("Gather", g.constant(gates.reshape(-1), U8), index)
    weighed = g.op("Mul", g.op("Cast", centred, to=I32), g.op("Cast", weight, to=I32))
    y = g.op("MatMul", g.op("Flatten", weighed), g.constant(head.signs, I32))
    return g.op("Add", y, g.constant(head.offset, I32))


def _hidden_map(
    g: Graph,
    centred: str,
    rows: str,
    members: int,
    classes: int,
    head: Head | None,
    hidden: Head | None,
) -> str:
    """Centred scores and who is there, through hidden units and past them; i32 (N, K)."""
    split, inputs = members * classes, members * (classes + 1)
    units = 0 if hidden is None else hidden.signs.shape[1]
    if hidden is None or hidden.signs.shape[0] != inputs:
        raise ValueError("HC needs weights (members * classes + members, units)")
    if head is None or head.signs.shape != (inputs + units, classes):
        raise ValueError("HC needs weights (members * classes + members + units, classes)")
    most = np.concatenate([np.full(split, 128), np.ones(members), np.full(units, HIDDEN_STEPS)])
    most = most.astype(np.int64)[:, None]
    largest = (np.abs(hidden.signs.astype(np.int64)) * most[:inputs]).sum(0)
    check_whole("the hidden units", int((largest + np.abs(hidden.offset)).max()))
    largest = (np.abs(head.signs.astype(np.int64)) * most).sum(0)
    check_whole("the local exit", int((largest + np.abs(head.offset)).max()), EXACT_I32)

    scores, there = g.op("Flatten", centred), g.op("Flatten", rows)
    x = g.op("MatMul", scores, g.constant(hidden.signs[:split], FLOAT))
    x = g.op("Add", x, g.op("MatMul", there, g.constant(hidden.signs[split:], FLOAT)))
    x = g.op("Add", x, g.constant(hidden.offset, FLOAT))
    x = g.op("Floor", g.op("Mul", x, g.constant(2.0**-hidden.shift, FLOAT)))
    x = g.op("Clip", x, g.constant(0, FLOAT), g.constant(HIDDEN_STEPS, FLOAT))
    y = g.constant(head.offset, I32)
    parts = ((scores, head.signs[:split]), (there, head.signs[split:inputs]))
    for values, weights in (*parts, (x, head.signs[inputs:])):
        whole = g.op("Cast", values, to=I32)
        y = g.op("Add", g.op("MatMul", whole, g.constant(weights, I32)), y)
    return y


def _mean(
    g: Graph,
    centred: str,
    there: str,
    members: int,
    table: npt.ArrayLike | None,
    largest: int = 128,
) -> str:
    """Sum of float (N, M, K), each within -largest..largest, times a factor for those there."""
    counts = np.arange(members + 1)
    shares = np.round(4096 / np.maximum(counts, 1)) if table is None else np.asarray(table)
    if shares.shape != counts.shape:
        raise ValueError(f"a mean of {members} members needs {members + 1} factors")
    check_whole("the local exit", int((np.abs(shares) * counts).max()) * largest)
    count = g.op("ReduceSum", g.op("Cast", there, to=I32), g.sizes(1), keepdims=1)
    share = g.op("Gather", g.constant(shares, FLOAT), count)
    return g.op("Mul", g.op("ReduceSum", centred, g.sizes(1), keepdims=0), share)
