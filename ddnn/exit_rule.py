"""When a node may answer: normalised entropy against a threshold.

Source: DDNN paper, section III-D. For class probabilities p over |C| classes

    entropy = -sum(p * log p) / log |C|         in [0, 1]

and a sample exits where entropy < T, strictly. T = 0 lets nothing exit; a one-class or invalid
distribution has entropy 1 here and never exits early.

Sections emit whole-number logits (int32) with one scale in the manifest. The same integers give
the same entropy to about 1e-15 on every machine; rounding to `ENTROPY_DECIMALS` before the
comparison removes that last-bit difference, so that all machines take the same exit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

ENTROPY_DECIMALS = 9


class Verdict(NamedTuple):
    """What one exit says of one sample.

    Attributes:
        label: class index; the lowest one on a tie.
        probability: of `label`, 0..1.
        entropy: normalised, 0..1.
    """

    label: int
    probability: float
    entropy: float


def probabilities(logits: npt.ArrayLike, scale: float) -> npt.NDArray[np.float64]:
    """Softmax of `logits` (..., K) times `scale`, in float64."""
    scaled = np.asarray(logits, np.float64) * scale
    scaled = scaled - scaled.max(axis=-1, keepdims=True)
    np.exp(scaled, out=scaled)
    result: npt.NDArray[np.float64] = scaled / scaled.sum(axis=-1, keepdims=True)
    return result


def normalised_entropy(p: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Entropy over log|C| of probabilities (..., K), rounded; shape (...).

    Anything that is not a distribution over at least two classes (NaN, infinite, negative, not
    summing to 1 within 1e-6, one class) gives 1.0: never sure.
    """
    p = np.asarray(p, np.float64)
    classes = p.shape[-1] if p.ndim else 0
    if classes < 2:
        return np.ones(p.shape[:-1])
    valid = np.isfinite(p).all(axis=-1) & (p >= 0).all(axis=-1)
    safe: npt.NDArray[Any] = np.where(valid[..., None], p, 1.0 / classes)
    valid &= np.abs(safe.sum(axis=-1) - 1.0) < 1e-6
    log_p = np.log(safe, out=np.zeros_like(safe), where=safe > 0)
    entropy = -(safe * log_p).sum(axis=-1) / np.log(classes)
    entropy = np.where(valid, entropy, 1.0)
    return np.round(np.clip(entropy, 0.0, 1.0), ENTROPY_DECIMALS)


def judge(logits: npt.NDArray[np.int32], scale: float) -> Verdict:
    """The verdict of one exit on one sample's logits (K,) int32."""
    p = probabilities(logits, scale)
    label = int(np.argmax(logits))
    return Verdict(label, float(p[label]), float(normalised_entropy(p)))


def exits(entropy: float, threshold: float) -> bool:
    """Whether a sample of this entropy may exit: strictly below the threshold (NaN never is)."""
    return entropy < threshold
