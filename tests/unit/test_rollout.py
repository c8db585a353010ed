"""Collecting a bundle from retained messages: only what is wanted, all of it, never older."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn import bundle as b
from ddnn.errors import BundleError
from ddnn.rollout import Chunk, Stager
from tests import bundles


def everything(manifest):
    return {info.role for info in manifest.sections}


def messages(bundle):
    """Every chunk of a bundle as it would be retained."""
    return {
        Chunk(info.sha256, number): part
        for info in bundle.manifest.sections
        for number, part in enumerate(b.chunks(bundle.sections[info.role]))
    }


def collect(stager, bundle):
    result = stager.offer_manifest(bundle.payload)
    for chunk in list(stager.wanted):
        result = stager.offer_chunk(chunk, messages(bundle)[chunk])
    return result


def big_bundle(version=1):
    datas = bundles.sections() | {"cloud": bytes(b.WHOLE_SECTION_BYTES + 10)}
    return b.assemble(b.encode_manifest(bundles.manifest(datas, version=version)), datas)


def test_manifest_then_sections_make_the_bundle():
    bundle = bundles.bundle()
    got = collect(Stager(everything), bundle)
    assert got is not None
    assert got.sections == bundle.sections


def test_node_asks_only_for_its_own_sections():
    bundle = bundles.bundle()
    stager = Stager(lambda manifest: {"device/1"})
    stager.offer_manifest(bundle.payload)
    assert stager.wanted == [Chunk(bundle.manifest.section("device/1").sha256, 0)]


@given(st.randoms(use_true_random=False))
def test_chunks_may_come_in_any_order_and_twice(random):
    bundle = big_bundle()
    stager = Stager(everything)
    stager.offer_manifest(bundle.payload)
    order = list(messages(bundle)) * 2
    random.shuffle(order)
    done = [r for c in order if (r := stager.offer_chunk(c, messages(bundle)[c])) is not None]
    assert [r.sections for r in done] == [bundle.sections]


def test_same_manifest_again_starts_nothing():
    bundle = bundles.bundle()
    stager = Stager(everything)
    stager.activated(collect(stager, bundle))
    assert stager.offer_manifest(bundle.payload) is None
    assert stager.wanted == []


@pytest.mark.parametrize("version", [1, 2])
def test_bundle_with_older_or_equal_version_is_refused(version):
    running = bundles.bundle(version=2)
    stager = Stager(everything, running.payload)
    with pytest.raises(BundleError, match="not newer"):
        stager.offer_manifest(bundles.bundle(version=version, marker=b"x").payload)
    assert stager.wanted == []


def test_newer_manifest_replaces_a_half_collected_one():
    first, second = bundles.bundle(version=1), bundles.bundle(version=2, marker=b"x")
    stager = Stager(everything)
    stager.offer_manifest(first.payload)
    stager.offer_chunk(stager.wanted[0], messages(first)[stager.wanted[0]])
    assert collect(stager, second).sections == second.sections


def test_chunk_with_wrong_contents_is_refused_and_wanted_again():
    bundle = bundles.bundle()
    stager = Stager(everything)
    stager.offer_manifest(bundle.payload)
    chunk = stager.wanted[0]
    good = messages(bundle)[chunk]
    with pytest.raises(BundleError, match="hash"):
        stager.offer_chunk(chunk, bytes(len(good)))
    assert chunk in stager.wanted
    for chunk in list(stager.wanted):
        result = stager.offer_chunk(chunk, messages(bundle)[chunk])
    assert result is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda chunk, data: (chunk, data + b"x"),
        lambda chunk, data: (chunk, data[:-1]),
        lambda chunk, data: (chunk._replace(number=1), data),
        lambda chunk, data: (chunk._replace(sha256="0" * 64), data),
    ],
)
def test_unasked_or_oversize_chunk_is_dropped_and_counted(change):
    bundle = bundles.bundle()
    stager = Stager(everything)
    stager.offer_manifest(bundle.payload)
    before = list(stager.wanted)
    chunk = before[0]
    assert stager.offer_chunk(*change(chunk, messages(bundle)[chunk])) is None
    assert stager.wanted == before
    assert stager.counts["chunks_dropped"] == 1


def test_bundle_without_a_section_for_this_node_is_refused():
    with pytest.raises(BundleError, match="no section device/9"):
        Stager(lambda manifest: {"device/9"}).offer_manifest(bundles.bundle().payload)


def test_broken_manifest_leaves_the_running_bundle():
    running = bundles.bundle()
    stager = Stager(everything, running.payload)
    with pytest.raises(BundleError):
        stager.offer_manifest(b"{}")
    assert collect(stager, bundles.bundle(version=2, marker=b"x")) is not None
