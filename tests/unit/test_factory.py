"""What a node starts with that has never heard of a bundle: the one that came with the program."""

import pytest

from ddnn.store import BundleStore, write_folder
from tests.signing import OTHER, WALL, moment, signed, trust, trusted
from tests.unit.test_refusals import ROLES, Node, newer


@pytest.fixture
def factory(tmp_path):
    """Folder, and the bundle in it."""
    bundle = signed(newer(version=7))
    write_folder(tmp_path / "factory", bundle)
    return tmp_path / "factory", bundle


def kept(folder):
    bundle = BundleStore(folder).load(lambda manifest: ROLES)
    return bundle.bundle_id if bundle else None


def test_node_without_a_bundle_starts_with_the_factorys(factory):
    folder, bundle = factory
    node = Node(running=False, factory=folder)
    assert node.feed.bundle_id == bundle.bundle_id
    assert node.runner.switched == [(bundle.bundle_id, 0)]


def test_bundle_kept_on_disk_comes_before_the_factorys(factory, tmp_path):
    folder, _ = factory
    mine = signed(newer(version=5))
    BundleStore(tmp_path / "store").promote(mine)
    node = Node(running=False, factory=folder, store=tmp_path / "store")
    assert node.feed.bundle_id == mine.bundle_id


@pytest.mark.parametrize("version", [6, 8])
def test_factory_bundle_gives_way_to_what_the_site_runs_older_or_newer(factory, tmp_path, version):
    folder, _ = factory
    running = signed(newer(version=version, marker=b"site"))
    node = Node(running=False, factory=folder, store=tmp_path / "store")
    node.broker.sections(running)
    node.activate(running, 0)
    node.feed.on_time()
    assert node.feed.bundle_id == running.bundle_id
    assert kept(tmp_path / "store") == running.bundle_id


def test_factory_bundle_is_kept_once_the_site_is_known_to_run_it(factory, tmp_path):
    folder, bundle = factory
    node = Node(running=False, factory=folder, store=tmp_path / "store")
    assert kept(tmp_path / "store") is None
    node.activate(bundle, 0)
    assert kept(tmp_path / "store") == bundle.bundle_id
    older = signed(newer(version=6, marker=b"old"))
    node.broker.sections(older)
    node.activate(older, 0)
    assert node.feed.bundle_id == bundle.bundle_id, "from now on as any other bundle"


@pytest.mark.parametrize("keys", [(OTHER,), ()])
def test_factory_bundle_that_nobody_trusted_has_signed_is_not_run(tmp_path, keys):
    write_folder(tmp_path / "factory", signed(newer(), *keys) if keys else newer())
    node = Node(running=False, factory=tmp_path / "factory")
    assert node.feed.bundle_id is None
    assert node.feed.refused.startswith("factory bundle: ")


def test_damaged_factory_bundle_is_not_run_and_the_next_offer_is(factory):
    folder, _ = factory
    next((folder / "sections").glob("device-0*")).write_bytes(b"no section")
    node = Node(running=False, factory=folder)
    assert node.feed.bundle_id is None
    fresh = signed(newer())
    node.broker.offer(fresh)
    assert node.feed.bundle_id == fresh.bundle_id


def test_dates_of_a_factory_bundle_are_judged_when_the_clock_is_set(factory):
    folder, bundle = factory
    node = Node(trust(trusted(not_after=moment(1))), running=False, factory=folder, wall=0.0)
    node.feed.on_time()
    assert node.feed.bundle_id is None
    node.wall = WALL
    node.feed.on_time()
    assert node.feed.bundle_id == bundle.bundle_id
