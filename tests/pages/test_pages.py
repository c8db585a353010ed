"""The pages in a real browser, with sites in every state."""

import time

import pytest
from axe_playwright_python.sync_playwright import Axe
from nicegui import Client

from cloud_service.pages import site as site_module
from ddnn import tuning
from ddnn.tuning import Tuning
from tests.browser import Visit
from tests.pages.messages import PERIOD_S, SiteMessages, tell

pytestmark = pytest.mark.live
PHONE = {"size": (390, 844), "touch": True}
DESKTOP = {"size": (1280, 900)}


@pytest.fixture
def visit(browser, server):
    """Opens a page as a reader would; what it loads and says is checked at the end."""
    opened = []

    def go(path, **options):
        made = Visit(browser, **options)
        opened.append(made)
        made.page.set_default_timeout(15_000)
        made.page.goto(server.url(path))
        made.page.locator("h1").wait_for()
        return made

    yield go
    for made in opened:
        made.context.close()
    for made in opened:
        assert made.errors == []
        assert made.foreign_requests(server.host) == []


def section(made, name):
    return made.page.get_by_role("region", name=name, exact=True)


def wait_text(made, name, text):
    section(made, name).get_by_text(text).first.wait_for()


@pytest.mark.parametrize(
    ("name", "site", "options", "says"),
    [
        ("healthy-light", "healthy", DESKTOP, "All is well."),
        ("healthy-dark", "healthy", DESKTOP | {"dark": True}, "All is well."),
        ("healthy-phone", "healthy", PHONE, "All is well."),
        ("missing-light", "missing", DESKTOP, "no cloud worker serves this site"),
        ("missing-phone-dark", "missing", PHONE | {"dark": True}, "is offline"),
        ("rollout-light", "rollout", DESKTOP, "All is well."),
        ("refused-dark", "refused", DESKTOP | {"dark": True}, "refuses version 8"),
        ("dead-light", "dead", DESKTOP, "nothing is decided"),
    ],
)
def test_site_in_every_state_is_readable_by_everybody(visit, name, site, options, says):
    made = visit(f"/site/{site}", **options)
    wait_text(made, "State", says)
    made.page.locator(".steps td").first.wait_for()
    if site != "dead":
        made.page.locator("#cameras svg").wait_for()
    if site == "healthy":
        made.page.locator("#history svg").first.wait_for()
    made.screenshot(name)
    width = made.page.evaluate("document.documentElement.scrollWidth")
    assert width <= options["size"][0], "it must not scroll sideways"
    found = Axe().run(made.page)
    assert found.violations_count == 0, found.generate_report()


def test_list_of_sites_shows_trouble_first_and_finds_by_name(visit):
    made = visit("/")
    made.page.get_by_text("5 sites, 3 with something").wait_for()
    cards = made.page.locator(".sites a")
    assert cards.count() == 5
    assert "well" in cards.last.inner_text()
    made.screenshot("sites-light")
    assert Axe().run(made.page).violations_count == 0
    made.page.get_by_label("Find").fill("HEAL")
    made.page.wait_for_function("document.querySelectorAll('.sites a').length === 1")
    cards.first.focus()
    made.page.keyboard.press("Enter")
    made.page.get_by_role("heading", name="healthy", exact=True).wait_for()


def test_site_that_nobody_has_heard_of_leads_to_the_list(visit):
    made = visit("/site/nowhere")
    assert made.page.url.endswith("/sites")


def test_decisions_come_by_themselves_until_the_list_is_paused(visit):
    made = visit("/site/healthy")
    first = made.page.locator(".stream li").first
    first.get_by_text("%").wait_for()
    before = first.inner_text()
    made.page.wait_for_function(
        "before => document.querySelector('.stream li').innerText !== before", arg=before
    )
    made.page.get_by_role("button", name="Pause").click()
    button = made.page.get_by_role("button", name="Go on")
    button.wait_for()
    assert button.get_attribute("aria-pressed") == "true"
    wait_text(made, "Decisions", "The list stands still")
    still = first.inner_text()
    made.page.wait_for_timeout(700)
    assert first.inner_text() == still


def test_threshold_is_promised_applied_by_keyboard_taken_and_undone(visit, answering):
    made = visit("/site/healthy")
    apply = made.page.get_by_role("button", name="Apply this threshold")
    wait_text(made, "Threshold and traffic", "In force: the bundle's own thresholds.")
    assert apply.is_disabled()
    slider = made.page.get_by_role("slider")
    slider.focus()
    for _ in range(12):
        made.page.keyboard.press("ArrowLeft")
    made.page.wait_for_function("!document.querySelector('#settings fieldset button').disabled")
    promised = slider.get_attribute("aria-valuetext")
    assert "accuracy 99.0 %" in promised
    assert answering.sent == [], "nothing is sent before it is applied"

    apply.focus()
    made.page.keyboard.press("Enter")
    wait_text(made, "Threshold and traffic", "In force, taken by the gateway: local T")
    (topic, payload, retain), *_ = answering.sent
    assert (topic, retain) == ("ddnn/healthy/settings", True)
    threshold = tuning.decode(payload).local_threshold
    assert promised.startswith(f"T = {threshold:.4g},")
    assert 0 < threshold < 0.99
    made.screenshot("threshold-light")

    made.page.get_by_role("button", name="Undo").click()
    wait_text(made, "Threshold and traffic", "In force: the bundle's own thresholds.")
    assert answering.sent[-1] == ("ddnn/healthy/settings", b"", True)
    # The slider goes back with it.
    made.page.wait_for_function("document.querySelector('input[type=range]').value === '29'")


def test_budget_that_the_gateway_refuses_is_shown_with_its_reason(visit, answering):
    made = visit("/site/healthy")
    field = made.page.get_by_label("Bytes per second")
    field.fill("50")
    field.press("Tab")
    wait_text(made, "Threshold and traffic", "It cannot go below 780 B/s.")
    made.page.get_by_role("button", name="Apply this budget").click()
    wait_text(made, "Threshold and traffic", "the budget is too small for this site")
    assert tuning.decode(answering.sent[-1][1]) == Tuning(budget_bytes_s=50.0)
    wait_text(made, "State", "refused, and not in force")
    made.page.get_by_role("button", name="Back to the bundle's own").click()
    wait_text(made, "Threshold and traffic", "In force: the bundle's own thresholds.")


def test_reader_who_may_not_change_settings_cannot(visit, answering):
    made = visit("/site/healthy")
    slider = made.page.get_by_role("slider")
    slider.focus()
    made.page.keyboard.press("ArrowLeft")
    made.page.wait_for_function("!document.querySelector('#settings fieldset button').disabled")
    answering.may_tune = False  # signed out, while the page is open
    made.page.get_by_role("button", name="Apply this threshold").click(force=True)
    made.page.wait_for_function("document.querySelector('#settings fieldset button').disabled")
    assert answering.sent == []


def test_broker_away_is_said_and_nothing_can_be_changed(visit, world):
    made = visit("/site/healthy")
    made.page.get_by_text("live", exact=True).wait_for()
    try:
        world.overview.linked(False, "no MQTT broker answers at broker.local:8883")
        made.page.get_by_text("no connection to the broker", exact=True).wait_for()
        made.page.get_by_text("no MQTT broker answers at broker.local:8883").wait_for()
        wait_text(made, "State", "Not known: there is no connection")
        wait_text(made, "Threshold and traffic", "Nothing can be changed")
        made.screenshot("broker-away-light")
        assert Axe().run(made.page).violations_count == 0
    finally:
        world.overview.linked(True)
    made.page.get_by_text("live", exact=True).wait_for()


def test_text_from_the_network_is_shown_and_never_run(visit, world):
    evil = "<img src=/x onerror=alert(1)>{{7*7}}</script>"
    site = SiteMessages("evil")
    now = time.time()
    tell(world.overview, [
        *site.healthy(now),
        site.status("device-0", notes={"clock": evil}, refused=evil, refused_id=site.offer.id),
        site.decided(int(now / PERIOD_S), label=evil, degraded=evil),
        site.ledger(**{evil: 3}),
    ], now, retained=False)  # fmt: skip
    dialogs = []
    made = visit("/sites")
    made.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    made.page.goto(made.page.url.replace("/sites", "/site/evil"))
    wait_text(made, "State", evil)
    wait_text(made, "Now", evil)
    assert dialogs == []
    assert made.page.locator("img[onerror]").count() == 0


def test_page_is_renewed_four_times_a_second_at_most(browser, server):
    frames = []
    with Visit(browser) as made:
        made.page.on(
            "websocket", lambda socket: socket.on("framereceived", lambda data: frames.append(data))
        )
        made.page.goto(server.url("/site/healthy"))
        made.page.locator("#history svg").first.wait_for()
        made.page.wait_for_timeout(500)
        before = len(frames)
        made.page.wait_for_timeout(2500)
        got = len(frames) - before
    assert 3 <= got <= 4 * 2.5 + 4, "four a second, charts over time and a ping"


def test_browser_that_does_not_keep_up_gets_nothing_more_until_it_does(visit, monkeypatch):
    monkeypatch.setattr(site_module, "MAX_BEHIND", 6)
    known = set(Client.instances)
    made = visit("/site/healthy")
    made.page.locator(".stream li").first.get_by_text("%").wait_for()
    (client,) = (c for name, c in Client.instances.items() if name not in known)
    made.page.evaluate("window.ackedMessageId = Infinity")
    outbox = client.outbox
    deadline = time.monotonic() + 15
    while len(outbox.message_history) <= 6:
        assert time.monotonic() < deadline
        made.page.wait_for_timeout(50)
    sent = outbox.next_message_id
    made.page.wait_for_timeout(1000)
    assert outbox.next_message_id <= sent + 2
    made.page.evaluate("window.ackedMessageId = 0")
    made.page.wait_for_function(
        "last => window.nextMessageId > last + 3", arg=outbox.next_message_id
    )
