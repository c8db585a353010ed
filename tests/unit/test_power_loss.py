"""A node that loses power at any file operation of an update starts with a working bundle.

A child process makes the update and ends itself, without a word, at its n-th file operation; what
it had written and not synced is cut in half, as a loss of power may do. Every n is tried.
"""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from ddnn import bundle as b
from ddnn import store, topics
from ddnn.trust import KeySet, Trust
from tests import bundles
from tests.signing import HOME, message, signed, trusted
from tests.unit.test_refusals import Node

#: Python's audit events of operations that change files.
CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "os.link"}


@pytest.fixture
def tmp_path(tmp_path):
    """In memory where there is a place: thousands of syncs are slow on a disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def roles(manifest):
    return {info.role for info in manifest.sections}


def big(version):
    """A bundle whose cloud section travels in three chunks."""
    datas = bundles.sections(b"%d" % version)
    datas["cloud"] = bytes([version]) * (2 * b.CHUNK_BYTES + 10)
    return signed(b.assemble(b.encode_manifest(bundles.manifest(datas, version=version)), datas))


def in_child(folder, work, stop_at):
    """Run `work` in a process that dies at its file operation number `stop_at`.

    Returns:
        Whether it died there (it may have come to its end before).
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    try:
        count, unsynced = 0, []
        fsync = os.fsync

        def step():
            nonlocal count
            count += 1
            if count == stop_at:
                for path in unsynced:
                    if os.path.exists(path):
                        size = os.path.getsize(path)
                        os.truncate(path, size // 2 if size > 8 else 0)
                os._exit(9)

        def audit(event, args):
            if event in CHANGES and str(folder) in str(args[0]) and stop_at > count:
                if event == "open":
                    if not isinstance(args[1], str) or "w" not in args[1]:
                        return
                    unsynced.append(args[0])
                step()

        def synced(descriptor):
            step()
            fsync(descriptor)
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            unsynced[:] = [other for other in unsynced if str(other) != path]

        os.fsync = synced
        sys.addaudithook(audit)
        work()
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)


def every_operation(tmp_path, prepare, work, check):
    """Try each operation in a folder of its own; returns how many there were."""
    for n in range(1, 500):
        folder = tmp_path / str(n)
        prepare(folder)
        died = in_child(folder, lambda folder=folder: work(folder), n)
        check(folder)
        if not died:
            return n - 1
    raise AssertionError("it does not end")


def updated(folder):
    kept = store.BundleStore(folder)
    kept.keep_chunk("0" * 64, 0, b"x" * 100)
    kept.stage(big(2))
    kept.keep_activation(b"record")
    kept.promote(big(2))


@pytest.mark.parametrize("before", [None, 1])
def test_store_survives_a_loss_of_power_at_every_file_operation(tmp_path, before):
    def prepare(folder):
        if before:
            store.BundleStore(folder).promote(big(before))

    def check(folder):
        kept = store.BundleStore(folder)
        found = kept.load(roles)
        assert found in (big(2), big(before) if before else None)
        staged = kept.load_staged(roles)
        assert staged in (None, big(2))
        kept.promote(big(3))  # and it is not stuck
        assert kept.load(roles) == big(3)

    operations = every_operation(tmp_path, prepare, updated, check)
    assert operations > 25


def test_node_survives_a_loss_of_power_at_every_file_operation_of_an_update(tmp_path):
    """From the first chunk to the change over, through the very code of a node."""

    def work(folder):
        node = Node(store=folder)
        node.broker.offer(big(6))
        node.activate(big(6), 0)

    def prepare(folder):
        Node(store=folder)

    def check(folder):
        node = Node(store=folder, running=False)
        assert node.feed.version in (5, 6)
        node.broker.offer(big(6))
        node.activate(big(6), 0)
        assert node.feed.version == 6

    operations = every_operation(tmp_path, prepare, work, check)
    assert operations > 30


def test_download_goes_on_with_the_chunks_on_disk(tmp_path):
    node = Node(store=tmp_path)
    chunks = b.chunks(big(6).sections["cloud"])
    info = big(6).manifest.section("cloud")
    node.broker.publish(topics.manifest("s1"), message(big(6)))
    node.broker.publish(topics.section("s1", info.sha256, 0), chunks[0])
    again = Node(store=tmp_path, running=False)
    again.broker.publish(topics.manifest("s1"), message(big(6)))
    wanted = {chunk for chunk in again.feed.fetcher.stager.wanted if chunk.sha256 == info.sha256}
    assert {chunk.number for chunk in wanted} == {1, 2}
    again.broker.offer(big(6))
    assert again.feed.staged_id == big(6).bundle_id
    assert not list((tmp_path / "parts").glob("*"))


def test_damaged_chunk_on_disk_is_fetched_again(tmp_path):
    node = Node(store=tmp_path)
    info = big(6).manifest.section("cloud")
    for number, length in ((0, b.CHUNK_BYTES), (1, 100), (2, 10)):
        store.BundleStore(tmp_path).keep_chunk(info.sha256, number, b"?" * length)
    node.broker.offer(big(6))
    node.broker.sections(big(6))
    assert node.feed.staged_id == big(6).bundle_id


def test_staged_bundle_is_staged_again_after_a_restart_without_fetching(tmp_path):
    Node(store=tmp_path).broker.offer(big(6))
    again = Node(store=tmp_path, running=False)
    assert (again.feed.version, again.feed.staged_id) == (5, big(6).bundle_id)
    assert not [topic for topic in again.broker.taken if "section" in topic]


def test_staged_bundle_on_disk_is_checked_again_after_a_restart(tmp_path):
    Node(store=tmp_path).broker.offer(big(6))
    revoked = Trust(HOME, lambda: KeySet(keys=(trusted(revoked="lost"),)))
    again = Node(revoked, store=tmp_path, running=False)
    assert (again.feed.version, again.feed.staged) == (5, None)


def test_many_changes_leave_no_more_files_than_one(tmp_path):
    node = Node(store=tmp_path)
    counts = []
    for version in range(6, 30):
        fresh = signed(bundles.bundle(version=version, marker=b"%d" % version))
        node.broker.offer(fresh)
        node.activate(fresh, 0)
        counts.append(sum(len(files) for _, _, files in os.walk(tmp_path)))
    assert node.feed.version == 29
    assert len(set(counts[1:])) == 1
