"""A bundle is what its manifest says, or it is refused with the reason."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn import bundle as b
from ddnn.errors import BundleError
from tests import bundles


def test_manifest_round_trip_is_canonical():
    payload = b.encode_manifest(bundles.manifest(bundles.sections()))
    assert b.encode_manifest(b.decode_manifest(payload)) == payload
    assert b.tag(payload) == int(b.bundle_id(payload)[:4], 16)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.replace(b'"format":1', b'"format":2'),
        lambda m: m.replace(b'{"accuracy"', b'{ "accuracy"'),
        lambda m: m.replace(b'"version":1', b'"version":0'),
        lambda m: m.replace(b'"version":1', b'"unheard_of":1,"version":1'),
        lambda m: m[:-1],
        lambda m: b"",
        lambda m: b"[]",
        lambda m: b"\xff" + m,
        lambda m: m + b" " * b.MAX_MANIFEST_BYTES,
        lambda m: b"[" * 100_000,
    ],
)
def test_manifest_that_is_not_exactly_one_is_refused(change):
    payload = b.encode_manifest(bundles.manifest(bundles.sections()))
    with pytest.raises(BundleError):
        b.decode_manifest(change(payload))


@given(st.data())
def test_manifest_with_any_byte_changed_is_refused_or_another_bundle(data):
    payload = b.encode_manifest(bundles.manifest(bundles.sections()))
    place = data.draw(st.integers(0, len(payload) - 1))
    other = bytearray(payload)
    other[place] ^= data.draw(st.integers(1, 255))
    try:
        b.decode_manifest(bytes(other))
    except BundleError:
        return
    assert b.bundle_id(bytes(other)) != b.bundle_id(payload)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"topology": b.Topology(cameras=2, edges=((0,),))}, "every camera exactly once"),
        ({"topology": b.Topology(cameras=2, edges=((0, 1), (1,)))}, "every camera exactly once"),
        ({"topology": b.Topology(cameras=2, edges=((0, 1), ()))}, "without cameras"),
        ({"topology": b.Topology(cameras=1, edges=((0,),))}, "no place for section device/1"),
        (
            {"topology": b.Topology(cameras=3, edges=((0, 1, 2),))},
            "lacks section device/2",
        ),
        ({"topology": b.Topology(cameras=2)}, "no place for section edge/0"),
        ({"exits": {"cloud": b.ExitInfo(logit_scale=1.0)}}, "local section or a local exit"),
        ({"classes": ("car", "bus")}, "one value for each class"),
    ],
)
def test_inconsistent_manifest_is_refused(change, reason):
    payload = b.encode_manifest(bundles.manifest(bundles.sections(), **change))
    with pytest.raises(BundleError, match=reason):
        b.decode_manifest(payload)


@pytest.mark.parametrize(
    ("role", "change", "reason"),
    [
        ("edge/0", {"inputs": (bundles.u8("features", 2, 16),)}, "must take features, mask"),
        ("cloud", {"outputs": (bundles.u8("logits", 3),)}, "wrong dtype"),
        ("cloud", {"outputs": (bundles.u8("other", 3),)}, "must give logits"),
    ],
)
def test_section_with_other_tensors_than_its_role_has_is_refused(role, change, reason):
    datas = bundles.sections()
    infos = tuple(
        bundles.section_info(r, d, **(change if r == role else {})) for r, d in datas.items()
    )
    payload = b.encode_manifest(bundles.manifest(datas, sections=infos))
    with pytest.raises(BundleError, match=reason):
        b.decode_manifest(payload)


def test_role_twice_is_refused():
    datas = bundles.sections()
    infos = tuple(bundles.section_info(r, d) for r, d in [*datas.items(), ("cloud", b"x")])
    with pytest.raises(BundleError, match="twice"):
        b.decode_manifest(b.encode_manifest(bundles.manifest(datas, sections=infos)))


def test_section_with_a_flipped_bit_is_refused():
    good = bundles.bundle()
    flipped = bytearray(good.sections["cloud"])
    flipped[3] ^= 1
    with pytest.raises(BundleError, match="hash"):
        b.assemble(good.payload, good.sections | {"cloud": bytes(flipped)})


def test_section_of_another_length_is_refused():
    good = bundles.bundle()
    with pytest.raises(BundleError, match="bytes"):
        b.assemble(good.payload, good.sections | {"cloud": good.sections["cloud"] + b"x"})


def test_missing_section_is_refused_and_unneeded_ones_may_stay_away():
    good = bundles.bundle()
    some = {"cloud": good.sections["cloud"]}
    with pytest.raises(BundleError, match="lacks section device/0"):
        b.assemble(good.payload, some)
    assert b.assemble(good.payload, some, {"cloud"}).sections == some


def test_unlisted_section_is_refused():
    good = bundles.bundle()
    with pytest.raises(BundleError, match="not in the manifest"):
        b.assemble(good.payload, good.sections | {"edge/7": b"x"})


@given(st.integers(1, 400_000))
def test_chunks_join_to_the_section(size):
    data = (b"0123456789" * (size // 10 + 1))[:size]
    parts = b.chunks(data)
    assert b"".join(parts) == data
    assert len(parts) == b.chunk_count(size)
    assert all(len(part) <= b.WHOLE_SECTION_BYTES for part in parts)


def test_self_test_inputs_are_the_same_everywhere():
    inputs = b.self_test_inputs(bundles.section_info("edge/0", b"x"))
    assert inputs["features"].shape == (2, 2, 16)
    assert inputs["features"].tobytes()[:8].hex() == GOLDEN_FEATURES
    assert set(np.unique(inputs["mask"])) <= {0, 1}


GOLDEN_FEATURES = "17746d54c1b109d0"


def test_output_hash_sees_values_shapes_and_names():
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert b.output_hash({"a": array}) == b.output_hash({"a": array.copy(order="F")})
    others = [{"a": array + 1}, {"a": array.reshape(3, 2)}, {"b": array}]
    assert len({b.output_hash(o) for o in [{"a": array}, *others]}) == 4


def test_unknown_tier_names_in_exits_are_refused():
    payload = b.encode_manifest(bundles.manifest(bundles.sections()))
    raw = msgspec.json.decode(payload)
    raw["exits"]["fog"] = raw["exits"]["cloud"]
    with pytest.raises(BundleError):
        b.decode_manifest(msgspec.json.encode(raw, order="sorted"))
