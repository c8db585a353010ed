"""Torch parameters -> the whole numbers of a section: thresholds and class factors.

Batch norm and sign become one integer threshold for each channel, computed in float64. With v
the pooled whole-number sum and t = mean - beta * sqrt(var + eps) / gamma:

    gamma > 0:  +1 where v >= ceil(t)
    gamma < 0:  +1 where v <= floor(t), that is not (v >= floor(t) + 1)
    gamma = 0:  +1 everywhere if beta >= 0, else -1 everywhere

Batch norm of an exit becomes a whole multiplier and offset for each class, times 2**shift.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt
from torch import Tensor

from training.binary import FC, ConvP, MaskedBatchNorm
from training.local_sections import HIDDEN_STEPS
from training.network import (
    GATE_STEPS,
    GATED_STEPS,
    HIDDEN_TOP,
    HIDDEN_UNITS,
    SCORE_ZERO,
    LocalExit,
)
from training.sections import EXACT, EXACT_I32, Block, Head, largest_sum

MAX_SHIFT = 24
F64 = npt.NDArray[np.float64]


def threshold_of(
    gamma: F64, beta: F64, mean: F64, deviation: F64, bound: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Thresholds (O,) and flips (O,) of channels whose sums are within -bound..bound.

    A threshold outside what the sums can reach is moved to just there, which changes nothing and
    keeps it exact in float32.
    """
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        t = mean - beta * deviation / gamma
    # gamma = 0, or so small that t overflows: beta alone decides, for every v.
    constant = ~np.isfinite(t)
    t = np.clip(np.where(constant, 0.0, t), -bound - 1.0, bound + 1.0)
    flip = (gamma < 0) & ~constant
    threshold = np.where(flip, np.floor(t) + 1, np.ceil(t))
    threshold = np.where(constant, np.where(beta >= 0, -bound, bound + 1), threshold)
    return np.clip(threshold, -bound, bound + 1).astype(np.int64), flip


def fold_block(block: ConvP, group: slice, largest_input: int) -> Block:
    """One group of a ConvP block (`slice(None)`: all); inputs within -largest..largest."""
    signs = _numpy(block.conv.weights()[group]).astype(np.int8)
    norm = _norm(block.norm)
    bound = largest_input * largest_sum(signs)
    threshold, flip = threshold_of(*(part[group] for part in norm), bound)
    return Block(signs, threshold, flip)


def fold_scores(fc: FC, group: int, scale: float) -> Head:
    """A device's exit -> bytes: floor(score / scale + 128.5), clipped to 0..255 in the section."""
    signs, slope, intercept = _affine(fc, group)
    slope, intercept = slope / scale, intercept / scale + SCORE_ZERO + 0.5
    shift = _largest_shift(len(signs), slope, intercept)
    return _head(signs, slope, intercept, shift, divide=True)


def fold_exits(exits: Sequence[FC]) -> tuple[list[Head], float]:
    """Exits of one tier -> whole logits, and what one step of them is worth (logit scale)."""
    parts = [_affine(fc, 0) for fc in exits]
    shift = min(_largest_shift(len(signs), slope, rest) for signs, slope, rest in parts)
    return [_head(*part, shift, divide=False) for part in parts], 2.0**-shift


class LocalNumbers(TypedDict, total=False):
    """The whole numbers of a local exit, as `local_section` takes them."""

    head: Head
    table: npt.NDArray[np.int64]
    gate: npt.NDArray[np.int64]
    hidden: Head


def fold_local(exits: Sequence[LocalExit], score_scale: float) -> tuple[list[LocalNumbers], float]:
    """Local exits of all gateways -> their whole numbers, and the logit scale of them all."""
    kind = exits[0].aggregation
    if kind == "MP":
        # One scale in the manifest for all gateways: their factors become whole multipliers.
        factors = [float(e.log_factor.exp()) for e in exits]
        if len(exits) == 1:
            return [{"table": np.array([1])}], score_scale * factors[0]
        return [{"table": np.array([round(1024 * f)])} for f in factors], score_scale / 1024
    if kind == "CC":
        return _fold_linear(exits, score_scale)
    if kind == "GC":
        return _fold_gated_map(exits, score_scale)
    if kind == "HC":
        return _fold_hidden_map(exits, score_scale)
    rates = []
    for exit_ in exits:
        factor = _numpy(exit_.factors())
        rates.append(factor / np.maximum(np.arange(len(factor)), 1))
    steps = GATE_STEPS if kind == "GA" else 1
    most = SCORE_ZERO * steps
    largest = max(float((r * np.arange(len(r))).max()) for r in rates) * most
    shift = _shift_below(largest, sum(len(r) for r in rates) * most)
    numbers: list[LocalNumbers] = [
        {"table": np.round(r * 2.0**shift).astype(np.int64)} for r in rates
    ]
    if kind == "GA":
        for number, exit_ in zip(numbers, exits, strict=True):
            number["gate"] = _gate_table(exit_, score_scale)
    return numbers, score_scale * 2.0**-shift / steps


def _fold_linear(
    exits: Sequence[LocalExit], score_scale: float
) -> tuple[list[LocalNumbers], float]:
    heads, scale = _linear_heads([_numpy(e.weight).T for e in exits], exits, score_scale)
    return [{"head": head} for head in heads], scale


def _fold_gated_map(
    exits: Sequence[LocalExit], score_scale: float
) -> tuple[list[LocalNumbers], float]:
    steps = [float(_numpy(e.gated_steps())) for e in exits]
    weights = [_numpy(e.weight).T / own for e, own in zip(exits, steps, strict=True)]
    heads, scale = _linear_heads(weights, exits, score_scale, GATED_STEPS, EXACT_I32)
    numbers: list[LocalNumbers] = []
    for exit_, head, own in zip(exits, heads, steps, strict=True):
        gates = own * np.outer(_numpy(exit_.factors()), _gates(exit_, score_scale))
        numbers.append({"head": head, "gate": np.round(gates).astype(np.int64)})
    return numbers, scale


def _fold_hidden_map(
    exits: Sequence[LocalExit], score_scale: float
) -> tuple[list[LocalNumbers], float]:
    unit = HIDDEN_TOP / HIDDEN_STEPS
    layers, pairs = [], []
    for exit_ in exits:
        scores, members = exit_.members * exit_.classes, exit_.members
        # By input: what a step of it is worth, and how many steps it may have.
        worth = np.repeat([score_scale, 1.0, unit], [scores, members, HIDDEN_UNITS])[:, None]
        most = np.repeat([SCORE_ZERO, 1, HIDDEN_STEPS], [scores, members, HIDDEN_UNITS])[:, None]
        below = scores + members
        hidden = _numpy(exit_.hidden.weight).T * worth[:below] / unit
        # A half more, so that rounding down rounds to the nearest.
        offset = _numpy(exit_.hidden.bias) / unit + 0.5
        largest = float(((np.abs(hidden) * most[:below]).sum(0) + np.abs(offset)).max())
        shift = _shift_below(largest, float(most[:below].sum()))
        layers.append(_whole(hidden, offset, shift, shift))
        output = np.concatenate([_numpy(exit_.weight).T, _numpy(exit_.output.weight).T]) * worth
        pairs.append((output, _numpy(exit_.output.bias), most))
    largest = max(float(((np.abs(w) * most).sum(0) + np.abs(b)).max()) for w, b, most in pairs)
    rounding = max(float(most.sum()) for _, _, most in pairs)
    shift = _shift_below(largest, rounding, EXACT_I32)
    return [
        {"hidden": layer, "head": _whole(weights, offset, shift)}
        for layer, (weights, offset, _) in zip(layers, pairs, strict=True)
    ], 2.0**-shift


def _whole(weights: F64, offset: F64, shift: int, divide: int = 0) -> Head:
    """A linear map times 2**shift in whole numbers."""
    return Head(
        np.round(weights * 2.0**shift).astype(np.int64),
        np.ones(1, np.int64),
        np.round(offset * 2.0**shift).astype(np.int64),
        divide,
    )


def _linear_heads(
    weights: Sequence[F64],
    exits: Sequence[LocalExit],
    score_scale: float,
    largest_gate: int = 1,
    limit: int = EXACT,
) -> tuple[list[Head], float]:
    """Linear maps (M * K, K) and the exits' biases in whole numbers, and their logit scale."""
    offsets = [_numpy(e.bias) / score_scale for e in exits]
    pairs = list(zip(weights, offsets, strict=True))
    most = SCORE_ZERO * largest_gate
    largest = max(float((np.abs(w).sum(0) * most + np.abs(b)).max()) for w, b in pairs)
    shift = _shift_below(largest, max(len(w) for w in weights) * most, limit)
    return [_whole(w, b, shift) for w, b in pairs], score_scale * 2.0**-shift


def _gate_table(exit_: LocalExit, score_scale: float) -> npt.NDArray[np.int64]:
    """GA: (256,) whole gates."""
    return np.round(GATE_STEPS * _gates(exit_, score_scale)).astype(np.int64)


def _gates(exit_: LocalExit, score_scale: float) -> F64:
    """(256,) gates 0..1 by how many score steps lie between a member's largest and smallest."""
    slope, offset = _numpy(exit_.gate_slope), _numpy(exit_.gate_offset)
    return np.asarray(1 / (1 + np.exp(-(slope * np.arange(256) * score_scale + offset))))


def _shift_below(largest: float, rounding: float, limit: int = EXACT) -> int:
    """Largest shift at which `largest`, with rounding, stays below `limit`."""
    for shift in range(MAX_SHIFT, -1, -1):
        if largest * 2.0**shift + rounding + 1 < limit:
            return shift
    raise ValueError(f"exit parameters are too large to be exact: {largest:g} of {limit}")


def _largest_shift(inputs: int, slope: F64, intercept: F64) -> int:
    # Head.check_exact counts every product twice: the sum is made of +-2 weights.
    largest = 2 * inputs * float(np.abs(slope).max()) + float(np.abs(intercept).max())
    return _shift_below(largest, 2 * inputs)


def _head(
    signs: npt.NDArray[np.int8], slope: F64, intercept: F64, shift: int, *, divide: bool
) -> Head:
    head = Head(
        signs,
        np.round(slope * 2.0**shift).astype(np.int64),
        np.round(intercept * 2.0**shift).astype(np.int64),
        shift if divide else 0,
    )
    head.check_exact()
    return head


def _affine(fc: FC, group: int) -> tuple[npt.NDArray[np.int8], F64, F64]:
    """Signs (F, K) and the class-wise slope and intercept (K,) of one group of an exit."""
    signs = _signs(fc.linear.latent[group]).T
    classes = signs.shape[1]
    run = slice(group * classes, (group + 1) * classes)
    gamma, beta, mean, deviation = (part[run] for part in _norm(fc.norm))
    slope = gamma / deviation
    return signs, slope, beta - mean * slope


def _norm(norm: MaskedBatchNorm) -> tuple[F64, F64, F64, F64]:
    deviation = np.sqrt(_numpy(norm.running_var) + norm.eps)
    return _numpy(norm.gamma), _numpy(norm.beta), _numpy(norm.running_mean), deviation


def _signs(latent: Tensor) -> npt.NDArray[np.int8]:
    return np.where(_numpy(latent) >= 0, 1, -1).astype(np.int8)


def _numpy(tensor: Tensor) -> F64:
    return tensor.detach().cpu().double().numpy()
