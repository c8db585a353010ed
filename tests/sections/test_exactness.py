"""Sections against whole-number arithmetic: the same bytes, however onnxruntime runs them."""

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sections import reference
from training.local_sections import local_section
from training.sections import (
    Block,
    Head,
    device_section,
    packed_bytes,
    pooled,
    upper_section,
)

LEVEL = ort.GraphOptimizationLevel
LEVELS = (
    LEVEL.ORT_DISABLE_ALL,
    LEVEL.ORT_ENABLE_BASIC,
    LEVEL.ORT_ENABLE_EXTENDED,
    LEVEL.ORT_ENABLE_ALL,
)
KINDS = ("MP", "AP", "CC")
LOCAL_KINDS = (*KINDS, "GA", "GC", "HC")
few = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def run_every_way(data, inputs):
    """Outputs by name; every level and thread count gave the same, and the batch its samples."""
    first = None
    for level in LEVELS:
        for threads in (1, 2):
            options = ort.SessionOptions()
            options.graph_optimization_level = level
            options.intra_op_num_threads = threads
            options.log_severity_level = 4
            session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            names = [output.name for output in session.get_outputs()]
            got = dict(zip(names, session.run(names, inputs), strict=True))
            alone = session.run(names, {name: rows[-1:] for name, rows in inputs.items()})
            first = first or got
            for name, row in zip(names, alone, strict=True):
                np.testing.assert_array_equal(got[name], first[name], f"{level}, {threads}")
                np.testing.assert_array_equal(got[name][-1:], row, f"{level}, alone")
    return first


def after(shape, blocks):
    """(channels, height, width) after so many blocks' filters."""
    for filters in blocks:
        shape = (filters, pooled(shape[1]), pooled(shape[2]))
    return shape


def make_blocks(rng, channels, filters, reach):
    """Thresholds where the sums are, beyond what they can reach, and flips, all mixed."""
    blocks = []
    for number, count in enumerate(filters):
        bound = (1 if number else reach) * 9 * channels
        threshold = rng.integers(-bound // 3, bound // 3 + 1, count)
        beyond = rng.random(count)
        threshold = np.where(beyond < 0.1, -bound, np.where(beyond > 0.9, bound + 1, threshold))
        signs = rng.choice([-1, 1], (count, channels, 3, 3)).astype(np.int8)
        blocks.append(Block(signs, threshold.astype(np.int64), rng.random(count) < 0.4))
        channels = count
    return blocks


def make_head(rng, features, classes, *, shift, centre):
    return Head(
        rng.choice([-1, 1], (features, classes)).astype(np.int8),
        rng.integers(-30, 31, classes) << shift,
        (rng.integers(-50, 51, classes) << shift) + rng.integers(0, 1 << shift) + (centre << shift),
        shift,
    )


def pictures(rng, count, image):
    """Random ones; also black, white, one grey, and two values only."""
    images = rng.integers(0, 256, (count, *image), np.uint8)
    for number, level in enumerate((0, 255, 77)[: count - 1]):
        images[number] = level
    if count > 4:
        images[3] = rng.choice([0, 255], image)
    return images


device_shapes = st.tuples(
    st.tuples(st.integers(1, 21), st.integers(1, 21), st.integers(1, 4)),
    st.lists(st.integers(1, 20), min_size=1, max_size=3),
    st.integers(1, 5),
)


@few
@given(device_shapes, st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 3]))
def test_device_section_of_any_shape_equals_whole_number_arithmetic(shapes, seed, shift):
    image, filters, classes = shapes
    rng = np.random.default_rng(seed)
    blocks = make_blocks(rng, image[2], filters, 255)
    features = int(np.prod(after((image[2], *image[:2]), filters)))
    head = make_head(rng, features, classes, shift=shift, centre=128)
    images = pictures(rng, 6, image)
    got = run_every_way(device_section(image, blocks, head), {"image": images})
    scores, packed = reference.device(images, blocks, head)
    np.testing.assert_array_equal(got["features"], packed)
    np.testing.assert_array_equal(got["scores"], scores)


upper_shapes = st.tuples(
    st.integers(1, 7),
    st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9)),
    st.lists(st.integers(1, 20), min_size=1, max_size=3),
)


def features_and_mask(rng, count, members, shape):
    """Random, all ones, all zeros; everyone, nobody and some there."""
    packed = rng.integers(0, 256, (count, members, packed_bytes(int(np.prod(shape)))), np.uint8)
    mask = rng.integers(0, 2, (count, members), np.uint8)
    packed[0], packed[1] = 255, 0
    mask[0], mask[1], mask[2] = 1, 1, 0
    return packed, mask


@few
@given(upper_shapes, st.sampled_from(KINDS), st.booleans(), st.integers(0, 2**32 - 1))
def test_upper_section_of_any_shape_equals_whole_number_arithmetic(shapes, kind, edge, seed):
    members, shape, filters = shapes
    rng = np.random.default_rng(seed)
    joined = shape[0] * (members if kind == "CC" else 1)
    blocks = make_blocks(rng, joined, filters, members if kind == "AP" else 1)
    size = int(np.prod(after(shape, filters)))
    head = make_head(rng, size, 3, shift=0, centre=0)
    packed, mask = features_and_mask(rng, 6, members, shape)
    data = upper_section(members, shape, kind, blocks, head, edge_features=edge)
    got = run_every_way(data, {"features": packed, "mask": mask})
    logits, own = reference.upper(packed, mask, shape, kind, blocks, head)
    np.testing.assert_array_equal(got["logits"], logits)
    assert ("edge_features" in got) == edge
    if edge:
        np.testing.assert_array_equal(got["edge_features"], own)


def make_hidden(rng, members, classes, units):
    """HC's two layers with weights about as large as they may be; all units open somewhere."""
    inputs = members * (classes + 1)
    most = 2**24 // (inputs * 128 + 1)
    signs = rng.integers(-most // 2, most // 2 + 1, (inputs, units))
    shift = int(np.log2(np.abs(signs).sum() * 128 / units / 4095 + 1))
    hidden = Head(signs, np.ones(1, np.int64), rng.integers(-most, most, units), shift)
    most = 2**31 // (inputs * 128 + units * 4095 + 1)
    signs = rng.integers(-most, most + 1, (inputs + units, classes))
    return hidden, Head(signs, np.ones(1, np.int64), rng.integers(-9, 10, classes))


@few
@given(
    st.integers(1, 32), st.integers(1, 5), st.sampled_from(LOCAL_KINDS), st.integers(0, 2**32 - 1)
)
def test_local_section_equals_whole_number_arithmetic(members, classes, kind, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 256, (6, members, classes), np.uint8)
    scores[0], scores[1] = 0, 255
    mask = rng.integers(0, 2, (6, members), np.uint8)
    mask[0], mask[1], mask[2] = 1, 1, 0
    more, head = {}, None
    if kind == "HC":
        hidden, head = make_hidden(rng, members, classes, 7)
        data = local_section(members, classes, kind, head, hidden=hidden)
        got = run_every_way(data, {"scores": scores, "mask": mask})
        wanted = reference.hidden_local(scores, mask, hidden, head)
        np.testing.assert_array_equal(got["logits"], wanted)
        return
    if kind in ("CC", "GC"):
        largest = 300 if kind == "CC" else 400  # of int32 GC takes the most that 160 inputs may
        weights = rng.integers(-largest, largest + 1, (members * classes, classes))
        more = {"weights": weights, "offset": rng.integers(-999, 1000, classes)}
        head = Head(weights, np.ones(classes, np.int64), more["offset"])
        if kind == "GC":
            more["gate"] = rng.integers(0, 256, (members + 1, 256))
    elif kind == "GA":
        more = {"table": rng.integers(1, 60, members + 1), "gate": rng.integers(0, 64, 256)}
    elif rng.random() < 0.5:
        more = {"table": rng.integers(1, 900, members + 1 if kind == "AP" else 1)}
    data = local_section(members, classes, kind, head, more.get("table"), more.get("gate"))
    got = run_every_way(data, {"scores": scores, "mask": mask})
    np.testing.assert_array_equal(got["logits"], reference.local(scores, mask, kind, **more))


@pytest.mark.parametrize(
    ("kind", "tier"), [*((k, "upper") for k in KINDS), *((k, "local") for k in LOCAL_KINDS)]
)
def test_whatever_a_missing_member_holds_changes_nothing(kind, tier):
    rng = np.random.default_rng(5)
    mask = rng.integers(0, 2, (64, 4), np.uint8)
    if tier == "local":
        head = Head(rng.integers(-9, 10, (12, 3)), np.ones(3, np.int64), np.arange(3))
        gate, table = (np.arange(256) // 4, np.arange(5)) if kind == "GA" else (None, None)
        if kind == "GC":
            gate = rng.integers(0, 256, (5, 256))
        hidden = None
        if kind == "HC":
            hidden, head = make_hidden(rng, 4, 3, 5)
        kept = head if kind in ("CC", "GC", "HC") else None
        data = local_section(4, 3, kind, kept, table, gate, hidden)
        name, rows = "scores", rng.integers(0, 256, (64, 4, 3), np.uint8)
    else:
        shape = (3, 5, 7)
        blocks = make_blocks(rng, 12 if kind == "CC" else 3, (9,), 4 if kind == "AP" else 1)
        head = make_head(rng, 9 * 3 * 4, 3, shift=0, centre=0)
        data = upper_section(4, shape, kind, blocks, head, edge_features=True)
        name, rows = "features", rng.integers(0, 256, (64, 4, packed_bytes(105)), np.uint8)
    garbage = rng.integers(0, 256, rows.shape, np.uint8)
    other = np.where(mask[..., None] == 1, rows, garbage)
    # Any mask byte but 0 is a member that is there.
    loud = mask * rng.integers(1, 256, mask.shape, np.uint8)
    first = run_every_way(data, {name: rows, "mask": mask})
    second = run_every_way(data, {name: other, "mask": loud})
    for output, array in first.items():
        np.testing.assert_array_equal(array, second[output])


@pytest.mark.parametrize(("kind", "fill"), [("MP", -1), ("AP", 0), ("CC", 0)])
def test_with_nobody_there_an_upper_section_sees_what_its_docstring_says(kind, fill):
    rng = np.random.default_rng(6)
    channels = 6 if kind == "CC" else 2
    blocks = make_blocks(rng, channels, (5,), 3)
    head = make_head(rng, 20, 3, shift=0, centre=0)
    data = upper_section(3, (2, 4, 4), kind, blocks, head, edge_features=True)
    packed = rng.integers(0, 256, (2, 3, 4), np.uint8)
    got = run_every_way(data, {"features": packed, "mask": np.zeros((2, 3), np.uint8)})
    x = reference.block(np.full((2, channels, 4, 4), fill), blocks[0])
    np.testing.assert_array_equal(got["logits"], reference.head(x, head))
    np.testing.assert_array_equal(got["edge_features"], reference.pack(x))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("beside", [-1, 0, 1])
@pytest.mark.parametrize("depth", [1, 2])
def test_threshold_hit_exactly_or_missed_by_one(depth, beside, flip):
    rng = np.random.default_rng(depth)
    image = (9, 7, 3)
    images = pictures(rng, 16, image)
    blocks = make_blocks(rng, 3, (6, 5)[:depth], 255)
    x = images.transpose(0, 3, 1, 2)
    for block in blocks[:-1]:
        x = reference.block(x, block)
    last = blocks[-1]
    hit = reference.pool(reference.conv(x, last.signs))[7, :, 1, 1] + beside
    blocks[-1] = Block(last.signs, hit, np.full(len(hit), flip))
    head = make_head(rng, int(np.prod(after((3, 9, 7), (6, 5)[:depth]))), 3, shift=2, centre=128)
    got = run_every_way(device_section(image, blocks, head), {"image": images})
    scores, packed = reference.device(images, blocks, head)
    np.testing.assert_array_equal(got["features"], packed)
    np.testing.assert_array_equal(got["scores"], scores)


def test_sums_far_beyond_a_byte_saturate_on_the_right_side():
    """64 channels all +1 under +1 weights: 2v + 1 - 2T reaches 1153, QLinearConv's byte 255."""
    rng = np.random.default_rng(8)
    signs = np.where(np.arange(16)[:, None, None, None] % 2, 1, -1)
    signs = np.broadcast_to(signs, (16, 64, 3, 3)).astype(np.int8)
    block = Block(signs, rng.integers(-576, 578, 16), np.arange(16) % 3 == 0)
    head = make_head(rng, 64, 3, shift=0, centre=0)
    data = upper_section(1, (64, 4, 4), "CC", [block], head, edge_features=True)
    packed = np.stack([np.full((1, 128), level, np.uint8) for level in (0, 255, 170)])
    mask = np.ones((3, 1), np.uint8)
    got = run_every_way(data, {"features": packed, "mask": mask})
    logits, own = reference.upper(packed, mask, (64, 4, 4), "CC", [block], head)
    np.testing.assert_array_equal(got["edge_features"], own)
    np.testing.assert_array_equal(got["logits"], logits)


@pytest.mark.parametrize("batch", [1, 64])
def test_large_device_section(batch):
    rng = np.random.default_rng(9)
    image, filters = (96, 96, 3), (32, 64, 128, 256)
    blocks = make_blocks(rng, 3, filters, 255)
    head = make_head(rng, 256 * 36, 3, shift=4, centre=128)
    data = device_section(image, blocks, head)
    assert len(data) < 60_000
    images = pictures(rng, batch, image)
    got = ort.InferenceSession(data).run(None, {"image": images})
    some = [0, batch // 2, batch - 1]
    scores, packed = reference.device(images[some], blocks, head)
    np.testing.assert_array_equal(got[0][some], scores)
    np.testing.assert_array_equal(got[1][some], packed)
    if batch == 1:
        alone = run_every_way(data, {"image": images})
        np.testing.assert_array_equal(alone["features"], packed[:1])


@pytest.mark.parametrize("sign", [-1, 1])
def test_exit_at_the_limit_of_what_is_exact(sign):
    rng = np.random.default_rng(13)
    shape, features = (16, 16, 16), 32 * 8 * 8
    blocks = make_blocks(rng, 16, (32,), 1)
    signs = rng.choice([-1, 1], (features, 3)).astype(np.int8)
    signs[:, 0] = 1
    multiplier = np.full(3, sign * (2**24 // (2 * features) - 1))
    offset = np.array([1, -1, 1]) * (2**24 - 1 - 2 * features * abs(multiplier[0]))
    head = Head(signs, multiplier, offset)
    assert offset[0] % 2 == 1
    packed, mask = features_and_mask(rng, 64, 1, shape)
    data = upper_section(1, shape, "CC", blocks, head, edge_features=False)
    got = run_every_way(data, {"features": packed, "mask": mask})
    logits = reference.upper(packed, mask, shape, "CC", blocks, head)[0]
    np.testing.assert_array_equal(got["logits"], logits)
    with pytest.raises(ValueError, match="not exact"):
        Head(signs, multiplier, offset + np.sign(offset)).check_exact()


def test_parameters_that_would_not_be_exact_are_refused():
    rng = np.random.default_rng(10)
    blocks = make_blocks(rng, 3, (256,), 255)
    signs = np.ones((256 * 48 * 48, 3), np.int8)
    with pytest.raises(ValueError, match=r"exit over 589824 features may reach .* not exact"):
        device_section((96, 96, 3), blocks, Head(signs, np.full(3, 90), np.full(3, 128)))
    far = Block(blocks[0].signs, np.full(256, 2**24), blocks[0].flip)
    with pytest.raises(ValueError, match="a block's sums may reach"):
        device_section((96, 96, 3), [far], Head(signs, np.full(3, 1), np.full(3, 128)))
    with pytest.raises(ValueError, match="the local exit may reach"):
        local_section(6, 3, "AP", table=np.full(7, 2**16))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"signs": np.ones((4, 2, 3, 3), np.int8)}, "for 3 input channels"),
        ({"signs": np.zeros((4, 3, 3, 3), np.int8)}, r"\+1 or -1"),
        ({"threshold": np.zeros(3, np.int64)}, "one threshold and flip"),
    ],
)
def test_block_that_does_not_fit_is_refused(change, reason):
    rng = np.random.default_rng(11)
    fields = vars(make_blocks(rng, 3, (4,), 255)[0]) | change
    head = make_head(rng, 64, 3, shift=0, centre=128)
    with pytest.raises(ValueError, match=reason):
        device_section((8, 8, 3), [Block(**fields)], head)


def test_exit_that_does_not_fit_is_refused():
    rng = np.random.default_rng(12)
    blocks = make_blocks(rng, 3, (4,), 255)
    with pytest.raises(ValueError, match="exit over 64 features"):
        device_section((8, 8, 3), blocks, make_head(rng, 60, 3, shift=0, centre=128))
    with pytest.raises(ValueError, match="one block or more"):
        device_section((8, 8, 3), [], make_head(rng, 60, 3, shift=0, centre=128))
    head = make_head(rng, 1, 3, shift=0, centre=0)
    with pytest.raises(ValueError, match="127 are possible"):
        upper_section(128, (4, 4, 4), "CC", blocks, head, edge_features=False)
