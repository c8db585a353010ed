"""When a node may answer: normalised entropy against a threshold.

Source: DDNN paper, section III-D. For class probabilities p over |C| classes

    entropy = -sum(p * log p) / log |C|         in [0, 1]

and a sample exits where entropy < T, strictly. T = 0 lets nothing exit; a one-class or invalid
distribution has entropy 1 here and never exits early.

Sections emit whole-number logits (int32) with one scale in the manifest, the same on every
machine. Softmax and logarithm are not: their last bits depend on processor and library. So the
entropy is rounded to whole billionths before it is compared. Rounding alone would only move the
place where a last bit decides, from the threshold to the middle between two billionths. Within
`DOUBT` of such a middle the entropy is computed again in decimal arithmetic, whose exp and ln are
correctly rounded by definition; elsewhere float64 is good enough to round the right way. So every
machine gets the same billionths, and with them takes the same exit. The probability is only
shown, and may differ in its last bit.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

BILLIONTHS = 10**9
DOUBT = 0.001  #: billionths: 1e-12, where float64 is wrong by less than 1e-13 (256 classes)
DIGITS = 50


class Verdict(NamedTuple):
    """What one exit says of one sample.

    Attributes:
        label: class index; the lowest one on a tie.
        probability: of `label`, 0..1.
        entropy: normalised, 0..1, in whole billionths.
    """

    label: int
    probability: float
    entropy: float


def probabilities(logits: npt.ArrayLike, scale: float) -> npt.NDArray[np.float64]:
    """Softmax of whole-number `logits` (..., K) times `scale`, in float64."""
    whole = np.asarray(logits, np.int64)
    # Subtracting whole numbers first loses nothing; below -800 exp is 0 anyway.
    scaled = np.maximum((whole - whole.max(axis=-1, keepdims=True)) * scale, -800.0)
    np.exp(scaled, out=scaled)
    result: npt.NDArray[np.float64] = scaled / scaled.sum(axis=-1, keepdims=True)
    return result


def normalised_entropy(p: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Entropy over log|C| of any probabilities (..., K), in float64; shape (...).

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
    return np.where(valid, _entropy(safe), 1.0)


def _entropy(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The same of what is known to be a distribution over at least two classes."""
    log_p = np.log(p, out=np.zeros_like(p), where=p > 0)
    entropy = -(p * log_p).sum(axis=-1) / math.log(p.shape[-1])
    result: npt.NDArray[np.float64] = np.minimum(np.maximum(entropy, 0.0), 1.0)
    return result


def entropies(
    logits: npt.ArrayLike, scale: float, p: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.float64]:
    """Normalised entropy of whole-number logits (..., K): whole billionths, shape (...).

    Bit for bit the same on every machine.

    Args:
        p: `probabilities(logits, scale)` where the caller has them.
    """
    logits = np.asarray(logits)
    if logits.shape[-1] < 2:
        return np.ones(logits.shape[:-1])
    steps = np.asarray(_entropy(probabilities(logits, scale) if p is None else p) * BILLIONTHS)
    whole = np.asarray(np.rint(steps))
    in_doubt = np.abs(np.abs(steps - whole) - 0.5) < DOUBT
    if in_doubt.any():
        for index in map(tuple, np.argwhere(in_doubt)):
            whole[index] = _exact_billionths([int(logit) for logit in logits[index]], scale)
    return whole / BILLIONTHS


def _exact_billionths(logits: list[int], scale: float) -> int:
    """The same for one sample in decimal arithmetic, which is the same everywhere.

    With z = scaled logit - largest and Z = sum(e^z): entropy = (ln Z - sum(z e^z) / Z) / ln K.
    """
    context = Context(prec=DIGITS)
    largest = max(logits)
    z = [context.multiply(Decimal(logit - largest), Decimal(scale)) for logit in logits]
    powers = [context.exp(each) for each in z]
    total, weighted = Decimal(0), Decimal(0)
    for each, power in zip(z, powers, strict=True):
        total = context.add(total, power)
        weighted = context.fma(each, power, weighted)
    nats = context.subtract(context.ln(total), context.divide(weighted, total))
    share = context.divide(nats, context.ln(Decimal(len(logits))))
    return int(context.to_integral_value(context.multiply(share, Decimal(BILLIONTHS))))


def judge(logits: npt.NDArray[np.int32], scale: float) -> Verdict:
    """The verdict of one exit on one sample's logits (K,) int32.

    The same billionths as `entropies`, in plain Python: for one sample of a few classes numpy's
    calls take ten times as long as the sums in them, and a gateway does this for every frame.
    """
    whole = logits.tolist()
    largest = max(whole)
    label = whole.index(largest)
    z = [max((logit - largest) * scale, -800.0) for logit in whole]
    powers = [math.exp(each) for each in z]
    total = sum(powers)
    if len(whole) < 2:
        return Verdict(label, 1.0, 1.0)
    # As in `_exact_billionths`.
    nats = (
        math.log(total) - sum(each * power for each, power in zip(z, powers, strict=True)) / total
    )
    steps = min(max(nats / math.log(len(whole)), 0.0), 1.0) * BILLIONTHS
    billionths = round(steps)
    if abs(abs(steps - billionths) - 0.5) < DOUBT:
        billionths = _exact_billionths(whole, scale)
    return Verdict(label, 1.0 / total, billionths / BILLIONTHS)


def exits(entropy: float, threshold: float) -> bool:
    """Whether a sample of this entropy may exit: strictly below the threshold (NaN never is)."""
    return entropy < threshold
