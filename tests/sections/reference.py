"""What sections compute, in int64 numpy with plain loops: nothing shared with their builder.

Values are -1, 0 and +1 here; a section's 127, 128 and 129, packed bytes and folded flips are its
own business.
"""

import numpy as np


def conv(x, signs):
    """(N, I, H, W), (O, I, 3, 3) -> (N, O, H, W), zero padding 1."""
    n, _, height, width = x.shape
    padded = np.pad(x.astype(np.int64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    sums = np.zeros((n, len(signs), height, width), np.int64)
    for dy in range(3):
        for dx in range(3):
            view = padded[:, :, dy : dy + height, dx : dx + width]
            sums += np.einsum("nihw,oi->nohw", view, signs[:, :, dy, dx].astype(np.int64))
    return sums


def pool(x):
    """Largest of each 3 x 3 window, stride 2, that is inside the picture in part."""
    n, channels, height, width = x.shape
    result = np.zeros((n, channels, (height + 1) // 2, (width + 1) // 2), np.int64)
    for i in range(result.shape[2]):
        for j in range(result.shape[3]):
            rows, columns = slice(max(0, 2 * i - 1), 2 * i + 2), slice(max(0, 2 * j - 1), 2 * j + 2)
            result[:, :, i, j] = x[:, :, rows, columns].max(axis=(2, 3))
    return result


def block(x, parameters):
    """Pooled sums against thresholds -> -1 and +1, then flipped where it says so."""
    above = pool(conv(x, parameters.signs)) >= parameters.threshold[:, None, None]
    above = above != parameters.flip[:, None, None]
    return np.where(above, 1, -1)


def head(x, parameters):
    """(N, C, H, W) -> (N, K): floor((signs . x * multiplier + offset) / 2**shift)."""
    sums = x.reshape(len(x), -1) @ parameters.signs.astype(np.int64)
    return (sums * parameters.multiplier + parameters.offset) // 2**parameters.shift


def pack(x):
    """-1 and +1, any shape (N, ...) -> (N, B) uint8, filled up with zero bits."""
    rows = []
    for sample in x.reshape(len(x), -1):
        bits = [int(value > 0) for value in sample]
        bits += [0] * (-len(bits) % 8)
        rows.append(
            [sum(bit << k for k, bit in enumerate(bits[i : i + 8])) for i in range(0, len(bits), 8)]
        )
    return np.array(rows, np.uint8)


def unpack(packed, shape):
    """(N, M, B) uint8 -> (N, M, *shape) of -1 and +1."""
    size = int(np.prod(shape))
    bits = np.stack([packed[..., i // 8] >> (i % 8) & 1 for i in range(size)], axis=-1)
    return np.where(bits, 1, -1).reshape(*packed.shape[:2], *shape)


def device(images, blocks, exit_):
    """(N, H, W, C) uint8 -> scores (N, K), features (N, B)."""
    x = images.transpose(0, 3, 1, 2).astype(np.int64)
    for parameters in blocks:
        x = block(x, parameters)
    return np.clip(head(x, exit_), 0, 255), pack(x)


def join(features, mask, shape, kind):
    """Members' packed features and mask -> the first block's input (N, C, H, W)."""
    x = unpack(features, shape)
    there = mask.astype(bool)[:, :, None, None, None]
    if kind == "MP":
        return np.where(there, x, -1).max(axis=1)
    x = np.where(there, x, 0)
    if kind == "AP":
        return x.sum(axis=1)
    return x.reshape(len(x), -1, *shape[1:])


def upper(features, mask, shape, kind, blocks, exit_):
    """Packed features (N, M, B), mask (N, M) -> logits (N, K), packed features (N, B')."""
    x = join(features, mask, shape, kind)
    for parameters in blocks:
        x = block(x, parameters)
    return head(x, exit_), pack(x)


def hidden_local(scores, mask, hidden, head):
    """The same for HC, by matrix products of whole numbers."""
    there = (mask != 0).astype(np.int64)
    rows = (scores.astype(np.int64) - 128) * there[:, :, None]
    inputs = np.concatenate([rows.reshape(len(rows), -1), there], 1)
    units = (inputs @ hidden.signs + hidden.offset) // 2**hidden.shift
    return np.concatenate([inputs, units.clip(0, 4095)], 1) @ head.signs + head.offset


def local(scores, mask, kind, *, weights=None, offset=None, table=None, gate=None):
    """Scores (N, M, K) uint8, mask (N, M) -> logits (N, K); one sample and class at a time."""
    n, members, classes = scores.shape
    logits = np.zeros((n, classes), np.int64)
    for s in range(n):
        present = [m for m in range(members) if mask[s, m]]
        for c in range(classes):
            values = [int(scores[s, m, c]) - 128 for m in present]
            if kind == "MP":
                factor = 1 if table is None else int(table[0])
                logits[s, c] = max(values, default=-128) * factor
            elif kind in ("AP", "GA"):
                if kind == "GA":
                    spread = [int(scores[s, m].max()) - int(scores[s, m].min()) for m in present]
                    values = [v * int(gate[d]) for v, d in zip(values, spread, strict=True)]
                factor = (
                    round(4096 / max(1, len(present))) if table is None else table[len(present)]
                )
                logits[s, c] = sum(values) * int(factor)
            else:
                weigh = dict.fromkeys(present, 1)
                if kind == "GC":
                    row = gate[len(present)]
                    spread = {m: int(scores[s, m].max()) - int(scores[s, m].min()) for m in present}
                    weigh = {m: int(row[spread[m]]) for m in present}
                logits[s, c] = int(offset[c]) + sum(
                    (int(scores[s, m, k]) - 128) * weigh[m] * int(weights[m * classes + k, c])
                    for m in present
                    for k in range(classes)
                )
    return logits
