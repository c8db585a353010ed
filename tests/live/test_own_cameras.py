"""The way of docs/own-cameras.md on pictures made here: from recording to a site that decides."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser import Visit, chromium
from tests.label_page import Labelling, press, shown
from tests.live.in_process import SITE, wait
from tests.live.live_site import LiveSite, write_pictures
from tests.recordings import CLASSES
from training.recorded.labels import read_labels
from training.recorded.views import read_views

pytestmark = pytest.mark.own_cameras
CAMERAS = 3
PICTURES = 96
#: Three pictures of the same thing follow each other, as they do before a camera.
SHOWN = [CLASSES[n // 3 % 3] for n in range(PICTURES)]


def ddnn(*args, folder, check=True):
    environ = {**os.environ, "XDG_DATA_HOME": str(folder / "home"), "COLUMNS": "120"}
    result = subprocess.run(
        [sys.executable, "-m", "ddnn", *map(str, args)],
        capture_output=True, text=True, timeout=400, check=False, env=environ, cwd=folder,
    )  # fmt: skip
    assert result.returncode == 0 or not check, result.stdout + result.stderr
    return result.stdout + result.stderr


def record(folder):
    """Every camera's agent keeps 96 slots or more; there is no bundle and no gateway yet."""
    (folder / "before").mkdir()
    with LiveSite(folder / "before") as site:
        for camera in range(CAMERAS):
            pictures = write_pictures(folder / f"seen-{camera}", SHOWN, seed=camera)
            site.start_camera(
                camera, pictures, record_dir=str(folder / f"pi-{camera}"), record_every=1,
                record_size="16x16",
            )  # fmt: skip

        def kept():
            return min(len(list((folder / f"pi-{c}").glob("*/*/*.png"))) for c in range(CAMERAS))

        wait(lambda: kept() >= PICTURES, "recording", 60)


def truth(slot):
    return SHOWN[slot % PICTURES]


def label(folder):
    """A person who knows what is in the pictures, at the page."""
    with Labelling(folder) as labelling, chromium() as browser, Visit(browser) as visit:
        page = labelling.open(visit)
        for name in CLASSES:
            page.get_by_label("New class").fill(name)
            page.keyboard.press("Enter")
            page.get_by_role("button", name=f"{name} (").wait_for()
        page.get_by_role("heading").click()
        slots = {v.slot for v in read_views(folder) if v.state == "present"}
        for _ in range(len(slots) - 1):
            press(page, str(CLASSES.index(truth(shown(page))) + 1))
        page.keyboard.press(str(CLASSES.index(truth(shown(page))) + 1))
        page.get_by_text("Nothing left to show").wait_for()
    assert read_labels(folder) == {slot: truth(slot) for slot in slots}


def test_from_recording_to_decisions(tmp_path):
    record(tmp_path)
    own = tmp_path / "yard"
    pis = [tmp_path / f"pi-{camera}" for camera in range(CAMERAS)]
    said = ddnn("collect", *pis, "--out", own, folder=tmp_path)
    print(said)
    assert "3: " in said, "slots that all three cameras saw"
    label(own)

    said = ddnn("train", own, "--site", SITE, "--epochs", 25, "--no-learning-curve",
                folder=tmp_path)  # fmt: skip
    print(said)
    report = Path(re.search(r"is it good enough\? (.+)", said)[1])
    assert "Which camera matters" in report.read_text()
    print(ddnn("evaluate", own / "bundle", own, folder=tmp_path))

    # The site: other pictures of the same things than those that were recorded.
    with LiveSite(tmp_path) as site:
        site.start_upper()
        for camera in range(CAMERAS):
            fresh = write_pictures(tmp_path / f"sees-{camera}", SHOWN, seed=100 + camera)
            site.start_camera(camera, fresh)
        where = ("--broker", site.broker.host, "--port", site.broker.port)
        said = ddnn("publish", own / "bundle", "--site", SITE, *where, folder=tmp_path)
        print(said)
        wait(lambda: len(site.observer.decisions) > PICTURES, "a round of decisions", 60)
        seen = [s.decision for s in site.observer.decisions.values()]
    whole = [d for d in seen if not d.missing]
    right = sum(d.label == truth(d.slot) for d in whole)
    print(f"{right} of {len(whole)} decisions right: {right / len(whole):.1%}")
    assert len(whole) > PICTURES // 2
    assert right / len(whole) > 0.7, "guessing gets a third"
