"""A running site, every part a process of its own, watched in a browser and in a terminal."""

import contextlib
import os
import pty
import select
import subprocess
import sys
import time

import numpy as np
import pytest

from ddnn import topics
from ddnn.mqtt import Client
from ddnn.store import read_folder
from demo.prepare import REFERENCE
from demo.system import System, write_replay
from tests.browser import Visit
from training.datasets.base import MultiCameraSet
from training.publish import publish_bundle

pytestmark = pytest.mark.live
SITE = "running"
CAMERAS = 6
PERIOD_S = 0.2


def noise(count):
    """Views that say nothing: where they are decided does not matter here."""
    rng = np.random.default_rng(5)
    everything = np.arange(count)
    there = np.ones((count, CAMERAS), bool)
    return MultiCameraSet(
        images=rng.integers(0, 256, (count, CAMERAS, 32, 32, 3)).astype(np.uint8),
        labels=np.zeros(count, int), seen=there, present=there,
        classes=("car", "bus", "person"), name="noise", train=everything[:0], test=everything,
    )  # fmt: skip


@pytest.fixture(scope="module")
def running(world, server, tmp_path_factory):
    """The site's processes; the pages' overview hears them, and their settings reach them."""
    folder = tmp_path_factory.mktemp("site")
    bundle = read_folder(REFERENCE)
    write_replay(folder / "replay.npz", noise(4000))
    system = System(
        folder / "run", folder / "replay.npz", bundle.manifest.topology, site=SITE,
        period_s=PERIOD_S,
    )  # fmt: skip
    with system:
        client = Client(system.broker.host, system.broker.port, "pages")
        overview = world.overview

        def hear(message):
            overview.hear(message.topic, message.payload, message.retain, time.time())

        for topic_filter in (*overview.filters(site=SITE), topics.decision(SITE)):
            client.subscribe(topic_filter, hear)
        client.start()
        try:
            client.wait_connected(10)
            publish_bundle(client, SITE, bundle, 10)
            system.start_services()
            first = int((time.time() + 1.0) / PERIOD_S)
            client.publish(topics.replay(SITE), b'{"first_slot":%d}' % first, qos=1, retain=True)
            system.wait_until(lambda: (v := overview.site(SITE)) and v.latest, "deciding", 60)
            server.send = lambda topic, payload, retain: client.publish(
                topic, payload, qos=1, retain=retain
            )
            yield system
        finally:
            server.send = None
            client.stop()


def said(visit, text, timeout_s=20):
    visit.page.get_by_text(text).first.wait_for(timeout=1000 * timeout_s)


def test_threshold_set_in_the_browser_is_taken_by_the_gateway(running, browser, server, world):
    with Visit(browser) as visit:
        visit.page.set_default_timeout(20_000)
        visit.page.goto(server.url(f"/site/{SITE}"))
        visit.page.locator(".stream li").first.get_by_text("%").wait_for()
        said(visit, "In force: the bundle's own thresholds.")
        slider = visit.page.get_by_role("slider")
        slider.focus()
        visit.page.keyboard.press("Home")  # everything goes to the edge: noise or not
        visit.page.get_by_role("button", name="Apply this threshold").click()
        said(visit, "In force, taken by the gateway: local T = 0.")
        visit.page.locator(".stream li.edge, .stream li.cloud").first.wait_for()
        assert world.overview.site(SITE).gateway.status.settings.local_threshold == 0.0
        visit.page.get_by_role("button", name="Undo").click()
        said(visit, "In force: the bundle's own thresholds.")
        visit.screenshot("running-light")
        assert visit.errors == []


def top(system, *options):
    broker = ("--broker", system.broker.host, "--port", str(system.broker.port))
    return [sys.executable, "-m", "ddnn", "top", *broker, *options]


def test_top_prints_what_there_is_where_there_is_no_terminal(running):
    done = subprocess.run(top(running), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert f"site {SITE}   bundle reference version 1" in done.stdout
    assert "Gateway" in done.stdout
    assert "\x1b" not in done.stdout


def test_top_in_a_terminal_shows_the_site_and_ends_with_q(running):
    master, slave = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    child = subprocess.Popen(top(running), stdin=slave, stdout=slave, stderr=slave, env=env)
    os.close(slave)
    shown = b""
    deadline = time.monotonic() + 30
    try:
        while b"cameras 6 of 6" not in shown and time.monotonic() < deadline:
            if select.select([master], [], [], 0.2)[0]:
                shown += os.read(master, 65536)
        assert b"cameras 6 of 6" in shown, shown[-2000:]
        os.write(master, b"q")
        with contextlib.suppress(OSError):  # the terminal is gone with its last program
            while child.poll() is None and time.monotonic() < deadline:
                if select.select([master], [], [], 0.2)[0]:
                    os.read(master, 65536)
        assert child.wait(10) == 0
    finally:
        child.kill()
        child.wait()
        os.close(master)


def test_camera_that_is_killed_is_missing_with_the_promise_for_just_that_set(
    running, browser, server
):
    with Visit(browser) as visit:
        visit.page.set_default_timeout(20_000)
        visit.page.goto(server.url(f"/site/{SITE}"))
        said(visit, "No camera is missing.")
        running.children.pop("device-5").kill()
        said(visit, "Missing now: 5.")
        table = read_folder(REFERENCE).manifest.missing
        said(visit, f"{table.without((5,)).overall * 100:.1f} %")
