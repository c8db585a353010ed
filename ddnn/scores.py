"""Score bytes of a SUMMARY: one unsigned byte per class, 128 meaning 0."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Of an edge's own scores: steps per natural logarithm unit of its exit's logits.
STEPS_PER_NAT = 16


def clearness(scores: bytes) -> int:
    """How far the best class is ahead of the second best, in score steps; 0 without a choice."""
    if len(scores) < 2:
        return 0
    first, second = sorted(scores)[-1:-3:-1]
    return first - second


def quantise(logits: npt.NDArray[np.int32], scale: float) -> npt.NDArray[np.uint8]:
    """Logits (..., K) int32 of an edge's exit -> scores (..., K) uint8 for the node above.

    Only differences matter in a softmax, so the best class is put at the top of the range and
    what is more than 255 steps (16 nats, a factor of nine million) behind it is cut off.
    """
    whole = logits.astype(np.int64)
    nats = (whole - whole.max(axis=-1, keepdims=True)) * scale
    steps = np.clip(np.round(nats * STEPS_PER_NAT), -255, 0) + 255
    scores: npt.NDArray[np.uint8] = steps.astype(np.uint8)
    return scores
