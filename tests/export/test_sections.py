"""Section files against the whole-number reference, on random and on nasty parameters."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests.export import reference
from training.local_sections import local_section
from training.sections import (
    EXACT,
    Block,
    Head,
    device_section,
    pooled,
    upper_section,
)

LEVELS = (
    ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
)


def run_everywhere(data, **inputs):
    """Outputs by name, after every optimisation level and thread count gave the same bytes."""
    results = []
    for level in LEVELS:
        for threads in (1, 2):
            options = ort.SessionOptions()
            options.graph_optimization_level = level
            options.intra_op_num_threads = threads
            options.log_severity_level = 3
            session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            names = [output.name for output in session.get_outputs()]
            results.append(dict(zip(names, session.run(names, inputs), strict=True)))
    for other in results[1:]:
        for name, array in results[0].items():
            np.testing.assert_array_equal(array, other[name])
    return results[0]


def random_block(rng, inputs, outputs, spread):
    return Block(
        rng.choice([-1, 1], (outputs, inputs, 3, 3)).astype(np.int8),
        rng.integers(-spread, spread + 1, outputs),
        rng.random(outputs) < 0.4,
    )


def random_head(rng, features, classes, *, shift=0, centre=0):
    return Head(
        rng.choice([-1, 1], (features, classes)).astype(np.int8),
        rng.integers(-40, 41, classes),
        rng.integers(-99, 100, classes) + (centre << shift),
        shift,
    )


def random_device(rng, image, filters, classes=3):
    height, width, channels = image
    blocks = []
    for number, count in enumerate(filters):
        spread = 9 if number else 60 * channels
        blocks.append(random_block(rng, channels, count, spread))
        height, width, channels = pooled(height), pooled(width), count
    head = random_head(rng, height * width * channels, classes, shift=4, centre=128)
    return blocks, head


def pictures(rng, count, image):
    """Random ones, and blank, white and all-equal ones."""
    images = rng.integers(0, 256, (count, *image), np.uint8)
    for number, level in enumerate((0, 255, 77)[: count - 1]):
        images[number] = level
    return images


@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize(
    ("image", "filters"),
    [
        ((32, 32, 3), (4,)),
        ((16, 10, 1), (3,)),
        ((48, 64, 3), (4, 5)),
        ((9, 7, 2), (5, 6, 7)),
        ((1, 1, 4), (1,)),
    ],
)
def test_device_section_equals_the_reference(image, filters, batch):
    rng = np.random.default_rng(batch)
    blocks, head = random_device(rng, image, filters)
    images = pictures(rng, batch, image)
    got = run_everywhere(device_section(image, blocks, head), image=images)
    scores, features = reference.device(images, blocks, head)
    np.testing.assert_array_equal(got["features"], features)
    np.testing.assert_array_equal(got["scores"], scores)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("beside", [-1, 0, 1])
def test_device_threshold_that_is_hit_exactly(beside, flip):
    rng = np.random.default_rng(7)
    image = (8, 8, 3)
    images = pictures(rng, 16, image)
    signs = rng.choice([-1, 1], (4, 3, 3, 3)).astype(np.int8)
    sums = reference.pool(reference.conv(images.astype(np.int64).transpose(0, 3, 1, 2), signs))
    # One of the sums of each channel is its threshold, or one step beside it.
    threshold = sums[5, :, 1, 2] + beside
    block = Block(signs, threshold, np.full(4, flip))
    head = random_head(rng, 64, 3, shift=2, centre=128)
    got = run_everywhere(device_section(image, [block], head), image=images)
    np.testing.assert_array_equal(got["features"], reference.device(images, [block], head)[1])


def test_device_thresholds_out_of_reach_give_constant_channels():
    bound = 27 * 255
    block = Block(
        np.ones((4, 3, 3, 3), np.int8),
        np.array([-bound, bound + 1, -bound, bound + 1]),
        np.array([False, False, True, True]),
    )
    images = pictures(np.random.default_rng(0), 8, (8, 8, 3))
    head = Head(np.ones((64, 2), np.int8), np.array([1, 1]), np.array([128, 128]))
    got = run_everywhere(device_section((8, 8, 3), [block], head), image=images)
    expected = reference.pack(np.tile(np.repeat([1, -1, -1, 1], 16), (8, 1)))
    np.testing.assert_array_equal(got["features"], expected)


def test_scores_beyond_a_byte_are_clipped():
    rng = np.random.default_rng(3)
    blocks = [random_block(rng, 1, 2, 200)]
    head = Head(
        rng.choice([-1, 1], (32, 3)).astype(np.int8), np.array([900, -900, 0]), np.array([0, 5, 9])
    )
    images = pictures(rng, 32, (8, 8, 1))
    got = run_everywhere(device_section((8, 8, 1), blocks, head), image=images)["scores"]
    np.testing.assert_array_equal(got, reference.device(images, blocks, head)[0])
    assert {0, 255} <= set(np.unique(got))


@pytest.mark.parametrize("members", [1, 6, 32])
@pytest.mark.parametrize("kind", ["MP", "AP", "CC"])
def test_local_section_equals_the_reference(kind, members):
    rng = np.random.default_rng(members)
    scores = rng.integers(0, 256, (64, members, 3), np.uint8)
    scores[0], scores[1] = 0, 255
    mask = rng.integers(0, 2, (64, members), np.uint8)
    mask[0], mask[1], mask[2] = 1, 1, 0
    head = Head(
        rng.integers(-500, 500, (members * 3, 3)), np.ones(3, int), rng.integers(-9999, 9999, 3)
    )
    linear = head if kind == "CC" else None
    data = local_section(members, 3, kind, linear)
    expected = reference.local(scores, mask, kind, linear)
    np.testing.assert_array_equal(
        run_everywhere(data, scores=scores, mask=mask)["logits"], expected
    )
    # Any byte but 0 means that the member is there, no more and no less.
    got = run_everywhere(data, scores=scores, mask=mask * 255)["logits"]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("kind", "table"), [("AP", [0, 900, 431, 7]), ("MP", [83])])
def test_local_section_with_a_table(kind, table):
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 256, (20, 3, 5), np.uint8)
    mask = rng.integers(0, 2, (20, 3), np.uint8)
    got = run_everywhere(local_section(3, 5, kind, table=table), scores=scores, mask=mask)
    np.testing.assert_array_equal(got["logits"], reference.local(scores, mask, kind, table=table))


def random_upper(rng, members, shape, kind, filters, classes=3):
    channels, height, width = shape
    channels *= members if kind == "CC" else 1
    blocks = []
    for count in filters:
        blocks.append(random_block(rng, channels, count, 8))
        height, width, channels = pooled(height), pooled(width), count
    return blocks, random_head(rng, height * width * channels, classes)


@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("kind", ["MP", "AP", "CC"])
@pytest.mark.parametrize(
    ("members", "shape", "filters"),
    [(6, (4, 16, 16), (16,)), (2, (3, 5, 3), (5, 9)), (32, (2, 4, 4), (3,)), (1, (1, 1, 1), (2,))],
)
def test_upper_section_equals_the_reference(members, shape, filters, kind, batch):
    rng = np.random.default_rng(batch)
    blocks, head = random_upper(rng, members, shape, kind, filters)
    size = -(-int(np.prod(shape)) // 8)
    features = rng.integers(0, 256, (batch, members, size), np.uint8)
    mask = rng.integers(0, 2, (batch, members), np.uint8)
    if batch > 1:
        mask[0], mask[1] = 0, 1
        features[2], features[3] = 0, 255
    data = upper_section(members, shape, kind, blocks, head, edge_features=True)
    got = run_everywhere(data, features=features, mask=mask)
    logits, packed = reference.upper(features, mask, shape, kind, blocks, head)
    np.testing.assert_array_equal(got["edge_features"], packed)
    np.testing.assert_array_equal(got["logits"], logits)


@pytest.mark.parametrize("kind", ["MP", "AP", "CC"])
def test_masked_rows_have_no_influence(kind):
    rng = np.random.default_rng(5)
    mask = rng.integers(0, 2, (32, 4), np.uint8)
    hidden = mask[..., None] == 0
    blocks, head = random_upper(rng, 4, (2, 6, 6), kind, (7,))
    upper = upper_section(4, (2, 6, 6), kind, blocks, head, edge_features=False)
    weights = rng.integers(-9, 9, (12, 3))
    linear = Head(weights, np.ones(3, int), np.zeros(3, int)) if kind == "CC" else None
    local = local_section(4, 3, kind, linear)
    for data, name, width in ((upper, "features", 9), (local, "scores", 3)):
        rows = rng.integers(0, 256, (32, 4, width), np.uint8)
        garbage = np.where(hidden, rng.integers(0, 256, rows.shape, np.uint8), rows)
        blank = np.where(hidden, 0, rows).astype(np.uint8)
        first = run_everywhere(data, **{name: garbage}, mask=mask)["logits"]
        second = run_everywhere(data, **{name: blank}, mask=mask)["logits"]
        np.testing.assert_array_equal(first, second)


def test_upper_threshold_that_is_hit_exactly_and_sums_that_saturate():
    rng = np.random.default_rng(11)
    shape, members = (8, 6, 6), 6
    features = rng.integers(0, 256, (32, members, 36), np.uint8)
    features[0], features[1] = 255, 0
    mask = np.ones((32, members), np.uint8)
    signs = rng.choice([-1, 1], (6, 48, 3, 3)).astype(np.int8)
    signs[0], signs[1] = 1, -1  # sums up to +-432: far beyond a byte around 128
    x = reference.unpack(features, shape).reshape(32, 48, 6, 6)
    sums = reference.pool(reference.conv(x, signs))
    block = Block(signs, sums[3, :, 1, 1] + np.array([0, 0, 1, -1, 0, 0]), np.arange(6) % 2 == 0)
    head = random_head(rng, 54, 3)
    data = upper_section(members, shape, "CC", [block], head, edge_features=True)
    got = run_everywhere(data, features=features, mask=mask)
    logits, packed = reference.upper(features, mask, shape, "CC", [block], head)
    np.testing.assert_array_equal(got["edge_features"], packed)
    np.testing.assert_array_equal(got["logits"], logits)


@pytest.mark.parametrize("level", [-63, 63, None])
@pytest.mark.parametrize("kind", ["MP", "CC"])
def test_byte_weights_are_exact_up_to_the_largest(kind, level):
    # Of one sign and the largest size: what pairs of products in 16 bits can just hold.
    rng = np.random.default_rng(2)
    shape, members = (16, 6, 6), 4
    features = rng.integers(0, 256, (24, members, 72), np.uint8)
    features[0], features[1] = 255, 0
    mask = rng.integers(0, 2, (24, members), np.uint8)
    mask[:2] = 1
    channels = 64 if kind == "CC" else 16
    signs = rng.integers(-63, 64, (6, channels, 3, 3)).astype(np.int8)
    if level is not None:
        signs[:] = level
    blocks = [
        Block(signs, rng.integers(-9000, 9000, 6), rng.random(6) < 0.5),
        Block(rng.integers(-63, 64, (5, 6, 3, 3)).astype(np.int8), np.arange(5), np.ones(5) > 0),
    ]
    head = random_head(rng, 20, 3)
    data = upper_section(members, shape, kind, blocks, head, edge_features=True)
    got = run_everywhere(data, features=features, mask=mask)
    logits, packed = reference.upper(features, mask, shape, kind, blocks, head)
    np.testing.assert_array_equal(got["edge_features"], packed)
    np.testing.assert_array_equal(got["logits"], logits)


def test_weights_that_a_section_cannot_hold_are_refused():
    rng = np.random.default_rng(0)
    block = random_block(rng, 2, 4, 9)
    wide = Block(np.full((4, 2, 3, 3), 64, np.int8), block.threshold, block.flip)
    zero = Block(np.zeros((4, 2, 3, 3), np.int8), block.threshold, block.flip)
    head = random_head(rng, 4 * 9, 3)
    upper_section(1, (2, 6, 6), "MP", [zero], head, edge_features=False)
    for kind, bad in (("MP", wide), ("AP", zero)):
        with pytest.raises(ValueError, match="weights"):
            upper_section(1, (2, 6, 6), kind, [bad], head, edge_features=False)
    with pytest.raises(ValueError, match="binary"):
        device_section((6, 6, 2), [zero], head)


def test_parameters_that_would_not_be_exact_are_refused():
    rng = np.random.default_rng(0)
    block = random_block(rng, 3, 4, 100)
    loud = Head(np.ones((64, 3), np.int8), np.full(3, EXACT // 64), np.zeros(3, int))
    with pytest.raises(ValueError, match="exact"):
        device_section((8, 8, 3), [block], loud)
    far = Block(block.signs, np.full(4, EXACT), block.flip)
    with pytest.raises(ValueError, match="exact"):
        device_section((8, 8, 3), [far], random_head(rng, 64, 3))
    with pytest.raises(ValueError, match="exact"):
        local_section(2, 3, "AP", table=[0, EXACT, EXACT])
    with pytest.raises(ValueError, match="factors"):
        local_section(2, 3, "AP", table=[0, 1])
    with pytest.raises(ValueError, match="weights"):
        local_section(2, 3, "CC")
    with pytest.raises(ValueError, match="exact"):
        local_section(2, 3, "GA", table=[0, 2, 1], gate=np.full(256, EXACT // 256))
    for gate in (None, np.ones(255), np.arange(256) - 1):
        with pytest.raises(ValueError, match="gates"):
            local_section(2, 3, "GA", table=[0, 2, 1], gate=gate)
    linear = Head(np.full((6, 3), 2**31 // (6 * 128 * 255) + 1), np.ones(3, int), np.zeros(3, int))
    with pytest.raises(ValueError, match="int32"):
        local_section(2, 3, "GC", linear, gate=np.full((3, 256), 255))
    for gate in (None, np.ones(256), np.full((3, 256), 256), np.full((3, 256), -1)):
        with pytest.raises(ValueError, match="gates"):
            local_section(2, 3, "GC", linear, gate=gate)


def test_hidden_units_that_would_not_be_exact_are_refused():
    one, zero = np.ones(1, int), np.zeros(3, int)
    hidden = Head(np.ones((8, 3), np.int64), one, zero)
    output = Head(np.ones((11, 3), np.int64), one, zero)
    local_section(2, 3, "HC", output, hidden=hidden)
    for bad in (None, Head(hidden.signs[1:], one, zero)):
        with pytest.raises(ValueError, match="units"):
            local_section(2, 3, "HC", output, hidden=bad)
    for bad in (None, Head(output.signs[1:], one, zero)):
        with pytest.raises(ValueError, match="units"):
            local_section(2, 3, "HC", bad, hidden=hidden)
    loud = Head(hidden.signs * (EXACT // (6 * 128 + 2) + 1), one, zero)
    with pytest.raises(ValueError, match="float32"):
        local_section(2, 3, "HC", output, hidden=loud)
    loud = Head(output.signs * (2**31 // (6 * 128 + 2 + 3 * 4095) + 1), one, zero)
    with pytest.raises(ValueError, match="int32"):
        local_section(2, 3, "HC", loud, hidden=hidden)


def test_device_section_file_is_small_and_always_the_same():
    rng = np.random.default_rng(0)
    blocks, head = random_device(rng, (32, 32, 3), (4,))
    data = device_section((32, 32, 3), blocks, head)
    assert data == device_section((32, 32, 3), blocks, head)
    assert len(data) <= 2400
    model = onnx.load_model_from_string(data)
    assert not model.producer_name
    assert not model.doc_string
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
