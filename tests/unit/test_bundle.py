"""A bundle is what its manifest says, or it is refused with the reason."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn import bundle as b
from ddnn.errors import BundleError
from tests import bundles
from tests.arm64.bundles import random_bundle as several_edges


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


# -- several edges, and pictures to the cloud ----------------------------------------------------


EDGES = several_edges(1, (6, 5, 3), (2,), ((0,), (1, 2)), (3,), (4,), "CC")
PICTURES = several_edges(1, (6, 5, 3), (2,), (), (), (4,), "CC", pictures=True)


def without(manifest, *roles):
    sections = tuple(info for info in manifest.sections if info.role not in roles)
    return msgspec.structs.replace(manifest, sections=sections)


def with_section(manifest, role, **changes):
    sections = tuple(
        msgspec.structs.replace(info, **changes) if info.role == role else info
        for info in manifest.sections
    )
    return msgspec.structs.replace(manifest, sections=sections)


@pytest.mark.parametrize("made", [EDGES, PICTURES])
def test_manifests_of_all_shapes_are_canonical(made):
    assert b.encode_manifest(b.decode_manifest(made.payload)) == made.payload


def test_manifest_without_the_newer_fields_is_written_without_them():
    payload = b.encode_manifest(bundles.manifest(bundles.sections()))
    assert b"offload" not in payload
    assert b"edge_scales" not in payload


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: without(m, "join/local"), "lacks join/local"),
        (lambda m: without(m, "edge/1"), "lacks edge/1"),
        (lambda m: without(m, "local/0"), "lacks local/0"),
        (
            lambda m: msgspec.structs.replace(
                without(m, "local/0", "local/1"),
                exits={name: m.exits[name] for name in ("edge", "cloud")},
            ),
            "joins local exits",
        ),
        (lambda m: msgspec.structs.replace(m, edge_scales=msgspec.UNSET), "edge_scales"),
        (lambda m: msgspec.structs.replace(m, edge_scales={"edge": 1.0}), "edge and local"),
        (
            lambda m: msgspec.structs.replace(m, edge_scales={**m.edge_scales, "cloud": 1.0}),
            "edge_scales",
        ),
        (
            lambda m: with_section(
                m, "join/edge", inputs=(bundles.u8("scores", 3, 3), bundles.u8("mask", 3))
            ),
            "scores of 2 edges",
        ),
    ],
)
def test_several_edges_that_do_not_fit_together_are_refused(change, reason):
    with pytest.raises(BundleError, match=reason):
        b.decode_manifest(b.encode_manifest(change(EDGES.manifest)))


def test_several_edges_without_a_cloud_are_refused():
    manifest = without(EDGES.manifest, "cloud")
    exits = {name: info for name, info in manifest.exits.items() if name != "cloud"}
    manifest = msgspec.structs.replace(manifest, exits=exits)
    with pytest.raises(BundleError, match="no cloud"):
        b.decode_manifest(b.encode_manifest(manifest))


def test_join_without_several_edges_is_refused():
    manifest = bundles.manifest(bundles.sections())
    join = msgspec.structs.replace(bundles.section_info("local/0", b"join"), role="join/edge")
    manifest = msgspec.structs.replace(manifest, sections=(*manifest.sections, join))
    with pytest.raises(BundleError, match="not several"):
        b.decode_manifest(b.encode_manifest(manifest))


def big_picture(m, side):
    """Pictures of side x side x 3 from two cameras."""
    m = msgspec.structs.replace(m, image=b.Image(height=side, width=side, channels=3))
    for camera in range(2):
        m = with_section(
            m, f"device/{camera}", inputs=(bundles.u8("image", side, side, 3),),
            outputs=(bundles.u8("features", side * side * 3),),
        )  # fmt: skip
    return with_section(
        m, "cloud", inputs=(bundles.u8("features", 2, side * side * 3), bundles.u8("mask", 2))
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda m: with_section(m, "device/1", outputs=(bundles.u8("features", 89),)),
            "picture's 90 bytes",
        ),
        (
            lambda m: with_section(
                m, "device/1", outputs=(bundles.u8("scores", 3), bundles.u8("features", 90))
            ),
            "must give features",
        ),
        (lambda m: with_section(m, "device/1", outputs=()), "must give features"),
        (
            lambda m: msgspec.structs.replace(m, topology=b.Topology(cameras=2)),
            "must give scores, features",
        ),
        (
            lambda m: msgspec.structs.replace(
                m, topology=b.Topology(cameras=2, edges=((0, 1),), offload="images")
            ),
            "no other",
        ),
        (lambda m: big_picture(m, 600), "fit into a message"),
    ],
)
def test_pictures_that_cannot_go_to_the_cloud_are_refused(change, reason):
    with pytest.raises(BundleError, match=reason):
        b.decode_manifest(b.encode_manifest(change(PICTURES.manifest)))


def test_pictures_of_96_pixels_fit():
    b.decode_manifest(b.encode_manifest(big_picture(PICTURES.manifest, 96)))
