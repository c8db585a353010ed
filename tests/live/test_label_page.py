"""`ddnn label` in a real browser: keys, tabs, filters, a kill, and who may look at it."""

import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from ddnn.store import write_folder
from tests.browser import Visit, chromium
from tests.label_page import Labelling, press, shown
from tests.live.in_process import wait
from tests.recordings import labelled_folder, slots_of, small_bundle
from training.labelling.suggest import suggestions
from training.recorded.labels import LEFT_OUT, read_classes, read_labels
from training.recorded.views import read_views

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture
def folder(tmp_path):
    made = labelled_folder(tmp_path / "yard", count=12, cameras=3)
    (made / "labels.csv").unlink()
    return made


def test_slots_are_labelled_by_keys_classes_made_in_the_page_and_nothing_is_lost_by_a_kill(
    browser, folder
):
    (folder / "classes.txt").unlink()
    slots = slots_of(12)
    with Labelling(folder) as labelling, Visit(browser) as visit:
        page = labelling.open(visit)
        for name in ("disc", 'no "such" one', "cross"):
            page.get_by_label("New class").fill(name)
            page.keyboard.press("Enter")
            page.get_by_role("button", name=f"{name} (").wait_for()
        page.get_by_role("button", name='remove no "such" one').click()
        page.get_by_role("button", name="2 cross (").wait_for()
        page.get_by_role("heading").click()  # out of the field, where keys are letters
        assert page.locator(".view-absent").count() + page.locator(".view-picture").count() == 3
        assert [press(page, key) for key in ("1", "2", "x", "1")] == slots[:4]
        page.keyboard.press("u")
        page.wait_for_function(
            f"document.querySelector('[data-slot]').dataset.slot === '{slots[3]}'"
        )
        page.get_by_role("button", name="cross (").click()
        page.get_by_text("4 of 12 labelled").wait_for()
        visit.screenshot("label-page")
        labelling.process.kill()
    expected = ["disc", "cross", LEFT_OUT, "cross"]
    assert read_labels(folder) == dict(zip(slots, expected, strict=False))
    assert read_classes(folder) == ["disc", "cross"]
    assert visit.foreign_requests(labelling.host) == []
    assert [e for e in visit.errors if "ERR_CONNECTION" not in e and "WebSocket" not in e] == []


def test_two_tabs_do_not_overwrite_each_other_and_show_each_others_progress(browser, folder):
    slots = slots_of(12)
    with Labelling(folder) as labelling, Visit(browser) as one, Visit(browser) as other:
        first, second = labelling.open(one), labelling.open(other)
        assert shown(first) == shown(second) == slots[0]
        press(first, "1")
        second.get_by_text("1 of 12 labelled").wait_for()
        second.get_by_test_id("label").get_by_text("disc").wait_for()
        press(second, "ArrowRight")
        press(second, "2")
        press(first, "3") if shown(first) != slots[1] else press(first, "ArrowRight")
        first.get_by_text("2 of 12 labelled").wait_for()
    assert read_labels(folder)[slots[0]] == "disc"
    assert read_labels(folder)[slots[1]] == "cross"


def test_held_and_fast_keys_label_nothing_unseen(browser, folder):
    with Labelling(folder) as labelling, Visit(browser) as visit:
        page = labelling.open(visit)
        # Two presses within one script: the page has no time to show the next picture between.
        page.evaluate(
            """() => { for (const repeat of [false, true, false]) document.body.dispatchEvent(
                Object.assign(new KeyboardEvent('keydown', {key: '1', repeat, bubbles: true})));
            }"""
        )
        page.get_by_text("1 of 12 labelled").wait_for()
        time.sleep(0.5)  # what must not happen has had its time
        assert len(read_labels(folder)) == 1


def test_suggestions_come_most_uncertain_first_and_filters_narrow_the_slots(
    browser, tmp_path, folder
):
    bundle = small_bundle(cameras=3)
    (folder / "classes.txt").write_text("".join(f"{c}\n" for c in bundle.manifest.classes))
    write_folder(tmp_path / "bundle", bundle)
    with (
        Labelling(folder, "--bundle", str(tmp_path / "bundle")) as labelling,
        Visit(browser, dark=True) as visit,
    ):
        page = labelling.open(visit)
        suggestion = page.get_by_test_id("suggestion").inner_text().split()[1]
        slot = press(page, "0")
        assert read_labels(folder) == {slot: suggestion}
        press(page, "1")
        visit.screenshot("label-page-suggestions-dark")
        page.get_by_label("Show").click()
        page.get_by_role("option", name="all").click()
        page.get_by_text("of 12 shown").wait_for()
        page.get_by_label("Class").first.click()
        page.get_by_role("option", name=suggestion).click()
        # A slot without a label counts by what is suggested.
        said = suggestions(bundle, folder, read_views(folder), slots_of(12))
        by_slot = {slot: one.label for slot, one in said.items()} | read_labels(folder)
        expected = list(by_slot.values()).count(suggestion)
        page.get_by_text(f"of {expected} shown").wait_for()
    with Visit(browser, size=(390, 844), touch=True) as phone, Labelling(folder) as labelling:
        page = labelling.open(phone)
        assert page.get_by_test_id("suggestion").count() == 0
        write_folder(folder / "bundle", bundle)  # as `ddnn train` does
        page.reload()
        page.get_by_test_id("suggestion").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        phone.screenshot("label-page-phone", full_page=False)


def status_of(address, **headers):
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_page_is_for_this_machine_alone_serves_no_other_file_and_ends_on_sigterm(folder):
    slot = slots_of(1)[0]
    with Labelling(folder) as labelling:
        address = labelling.address
        assert status_of(address) == 200
        assert status_of(address, Host="evil.example") == 403
        assert status_of(address, Origin="http://evil.example") == 403
        cameras = [status_of(f"{address}view/{slot}/{camera}") for camera in range(3)]
        assert set(cameras) <= {200, 404}
        assert 200 in cameras
        for path in (f"view/{slot}/99", "view/../labels.csv", "view/1/..%2f..%2flabels.csv",
                     "pictures/", "labels.csv", "docs", "openapi.json"):  # fmt: skip
            assert status_of(address + path) in (404, 422), path
        second = subprocess.run(
            [sys.executable, "-m", "ddnn", "label", str(folder), "--port", "0"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert second.returncode == 1
        assert "open in another" in second.stderr
        labelling.process.send_signal(signal.SIGTERM)
        wait(lambda: labelling.process.poll() is not None, "ending", 20)
        assert labelling.process.returncode == 0
        rest = labelling.process.stdout.read()
        assert "0 of 12 labelled" in rest
        assert "Traceback" not in rest
