"""What sections must compute, said again in plain whole numbers: the slow and obvious way."""

import numpy as np


def conv(x, signs):
    """x (N, I, H, W) int64, signs (O, I, 3, 3) -> (N, O, H, W), zero padding 1."""
    n, _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.zeros((n, len(signs), height, width), np.int64)
    for row in range(3):
        for column in range(3):
            window = padded[:, :, row : row + height, column : column + width]
            out += np.einsum("nihw,oi->nohw", window, signs[:, :, row, column].astype(np.int64))
    return out


def pool(x):
    """Largest of each 3 x 3 window, stride 2, windows cut at the border."""
    n, channels, height, width = x.shape
    out = np.empty((n, channels, (height + 1) // 2, (width + 1) // 2), np.int64)
    for row in range(out.shape[2]):
        for column in range(out.shape[3]):
            rows = slice(max(0, 2 * row - 1), 2 * row + 2)
            columns = slice(max(0, 2 * column - 1), 2 * column + 2)
            out[:, :, row, column] = x[:, :, rows, columns].max(axis=(2, 3))
    return out


def binary_block(x, block):
    """(N, I, H, W) -> (N, O, h, w) of +1/-1."""
    above = pool(conv(x, block.signs)) >= block.threshold[:, None, None]
    return np.where(above != block.flip[:, None, None], 1, -1)


def pack(x):
    """(N, ...) of +1/-1 -> (N, B) uint8, lowest bit first."""
    bits = x.reshape(len(x), -1) > 0
    out = np.zeros((len(x), -(-bits.shape[1] // 8)), np.uint8)
    for position in range(bits.shape[1]):
        out[:, position // 8] += (bits[:, position] << (position % 8)).astype(np.uint8)
    return out


def unpack(packed, shape):
    """(..., B) uint8 -> (..., *shape) of +1/-1."""
    count = int(np.prod(shape))
    bits = [(packed[..., i // 8] >> (i % 8)) & 1 for i in range(count)]
    return (2 * np.stack(bits, axis=-1).astype(np.int64) - 1).reshape(*packed.shape[:-1], *shape)


def device(images, blocks, head):
    """(N, H, W, C) uint8 -> scores (N, K), features (N, B)."""
    x = images.astype(np.int64).transpose(0, 3, 1, 2)
    for block in blocks:
        x = binary_block(x, block)
    sums = x.reshape(len(x), -1) @ head.signs.astype(np.int64) * head.multiplier + head.offset
    return np.clip(sums // 2**head.shift, 0, 255).astype(np.uint8), pack(x)


def local(scores, mask, kind, head=None, table=None, gate=None):
    """scores (N, M, K), mask (N, M) -> logits (N, K); rows without a member are NaN."""
    out = np.zeros((len(scores), scores.shape[2]), np.int64)
    for sample, (rows, there) in enumerate(zip(scores.astype(np.int64) - 128, mask, strict=True)):
        rows = rows * (there[:, None] != 0)
        count = int((there != 0).sum())
        if kind == "GC":
            rows = rows * np.asarray(gate)[count][rows.max(1) - rows.min(1)][:, None]
        if kind in ("CC", "GC"):
            out[sample] = rows.reshape(-1) @ head.signs.astype(np.int64) + head.offset
        elif kind in ("AP", "GA"):
            if kind == "GA":
                rows = rows * np.asarray(gate)[rows.max(1) - rows.min(1)][:, None]
            factors = [0 if c == 0 else round(4096 / c) for c in range(len(mask[0]) + 1)]
            out[sample] = rows.sum(0) * (factors if table is None else table)[count]
        elif count:
            out[sample] = rows[there != 0].max(0) * (1 if table is None else table[0])
        else:
            out[sample] = -128 * (1 if table is None else table[0])
    return out


def upper(packed, mask, shape, kind, blocks, head):
    """packed (N, M, B), mask (N, M) -> logits (N, K), packed features (N, B')."""
    members = unpack(packed, shape)
    joined = []
    for rows, there in zip(members, mask, strict=True):
        if kind == "CC":
            kept = [row if t else np.zeros_like(row) for row, t in zip(rows, there, strict=True)]
            joined.append(np.concatenate(kept))
        elif kind == "AP":
            joined.append(rows[there != 0].sum(0))
        else:
            joined.append(rows[there != 0].max(0, initial=-1))
    x = np.stack(joined)
    for block in blocks:
        x = binary_block(x, block)
    sums = x.reshape(len(x), -1) @ head.signs.astype(np.int64)
    return sums * head.multiplier + head.offset, pack(x)
