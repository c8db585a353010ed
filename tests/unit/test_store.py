"""Bundles on disk: two slots, atomic, damage is noticed."""

import pytest

from ddnn import store
from ddnn.errors import BundleError
from tests import bundles


def everything(manifest):
    return {info.role for info in manifest.sections}


def test_folder_round_trip(tmp_path):
    bundle = bundles.bundle()
    store.write_folder(tmp_path / "b", bundle)
    assert store.read_folder(tmp_path / "b") == bundle
    only = store.read_folder(tmp_path / "b", lambda manifest: {"cloud"})
    assert set(only.sections) == {"cloud"}


def test_folder_is_replaced_as_a_whole(tmp_path):
    store.write_folder(tmp_path / "b", bundles.bundle())
    newer = bundles.bundle(version=2, marker=b"x")
    store.write_folder(tmp_path / "b", newer)
    assert store.read_folder(tmp_path / "b") == newer
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_folder_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"precious")
    with pytest.raises(BundleError, match="left alone"):
        store.write_folder(tmp_path, bundles.bundle())
    assert (tmp_path / "photo.jpg").read_bytes() == b"precious"


def test_no_bundle_there_is_an_error_with_the_path(tmp_path):
    with pytest.raises(BundleError, match="nowhere"):
        store.read_folder(tmp_path / "nowhere")


def test_damaged_section_is_noticed(tmp_path):
    store.write_folder(tmp_path / "b", bundles.bundle())
    path = tmp_path / "b" / store.section_file("device/0")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match="device/0"):
        store.read_folder(tmp_path / "b")


def test_store_keeps_the_last_bundle(tmp_path):
    kept = store.BundleStore(tmp_path / "s")
    assert kept.load(everything) is None
    for version in (1, 2, 3):
        bundle = bundles.bundle(version=version)
        kept.promote(bundle)
        assert kept.load(everything) == bundle


def test_store_that_dies_before_the_switch_keeps_the_old_bundle(tmp_path, monkeypatch):
    kept = store.BundleStore(tmp_path / "s")
    kept.promote(bundles.bundle(version=1))

    def power_loss(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "_write_durably", power_loss)
        with pytest.raises(KeyboardInterrupt):
            kept.promote(bundles.bundle(version=2))
    assert kept.load(everything).manifest.version == 1
    kept.promote(bundles.bundle(version=3))
    assert kept.load(everything).manifest.version == 3


def test_damaged_pointer_is_an_error(tmp_path):
    (tmp_path / "current").write_text("../../etc")
    with pytest.raises(BundleError, match="damaged"):
        store.BundleStore(tmp_path).load(everything)


def test_unwritable_place_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot"):
        store.BundleStore(tmp_path / "file" / "s").promote(bundles.bundle())
