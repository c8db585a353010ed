"""`ddnn top`: the picture in a terminal, and as plain lines."""

import asyncio

import pytest
from textual.widgets import DataTable, Static

from cloud_service.overview import Overview
from cloud_service.top import Top, snapshot
from tests.pages.messages import NOW, PERIOD_S, SiteMessages, tell

SLOT = int(NOW / PERIOD_S)


@pytest.fixture
def overview():
    made = Overview(lambda: NOW + 1)
    for site in (SiteMessages("s1"), SiteMessages("s2")):
        tell(made, site.healthy())
        tell(made, [site.decided(SLOT + n) for n in range(20)], NOW + 0.9)
    site = SiteMessages("s1")
    tell(made, [site.worker(sites=dict.fromkeys(("s1", "s2"), site.offer.id))])
    tell(made, [site.status("device-3", state="offline")], NOW + 0.95)
    made.linked(True)
    return made


def text(app, name):
    return str(app.query_one(f"#{name}", Static).content)


def cells(app, name):
    table = app.query_one(f"#{name}", DataTable)
    return [[str(cell) for cell in table.get_row_at(n)] for n in range(table.row_count)]


def pilot(overview, play, size=(100, 40)):
    async def run():
        app = Top(overview)
        async with app.run_test(size=size) as driver:
            await play(app, driver)

    asyncio.run(run())


def test_first_site_is_shown_with_its_trouble(overview):
    async def play(app, _driver):
        assert "live   site 1 of 2" in text(app, "link")
        assert "site s1   bundle reference version 7" in text(app, "head")
        assert "bus 97 %" in text(app, "head")
        assert "! Camera 3: is offline" in text(app, "troubles")
        assert cells(app, "nodes")[3][:3] == ["Camera 3", "offline", "offline"]
        assert cells(app, "decisions")[0][1:4] == ["bus 97 %", "local", "6 of 6 cameras"]

    pilot(overview, play)


def test_keys_change_the_site_pause_and_quit(overview):
    async def play(app, driver):
        await driver.press("n")
        assert "site s2" in text(app, "head")
        assert text(app, "troubles") == "all is well"
        await driver.press("p", "space")
        assert "paused" in text(app, "link")
        still = text(app, "head")
        tell(overview, [SiteMessages("s1").decided(SLOT + 50, label="car")], NOW + 1)
        app.renew()
        assert text(app, "head") == still
        await driver.press("space")
        assert "car 97 %" in text(app, "head")
        await driver.press("q")

    pilot(overview, play)


def test_broker_away_is_said_with_its_reason(overview):
    async def play(app, _driver):
        overview.linked(False, "nobody answers at broker:1883")
        app.renew()
        assert "NO CONNECTION TO THE BROKER: nobody answers" in text(app, "link")

    pilot(overview, play)


def test_nothing_heard_and_a_small_terminal_are_no_trouble():
    async def play(app, _driver):
        assert "Nothing has been heard" in text(app, "head")

    pilot(Overview(lambda: NOW), play, size=(30, 8))


def test_text_from_the_network_is_no_markup(overview):
    evil = "[red]x[/red] [@click=app.quit]y"
    site = SiteMessages("s1")
    tell(
        overview, [site.decided(SLOT + 60, label=evil), site.status("device-0", notes={"a": evil})]
    )

    async def play(app, _driver):
        assert evil in text(app, "head")
        assert evil in text(app, "troubles")
        assert evil in cells(app, "decisions")[0][1]

    pilot(overview, play)


def test_snapshot_is_every_site_in_plain_lines(overview):
    lines = snapshot(overview)
    assert [line for line in lines if line.startswith("site ")] == [
        "site s1   bundle reference version 7",
        "site s2   bundle reference version 7",
    ]
    assert any(line.startswith("Camera 3") and "offline" in line for line in lines)
    assert "all is well" in lines
    assert all("\x1b" not in line for line in lines)
    assert not any("s1" in line for line in snapshot(overview, "s2"))
    assert snapshot(overview, "s9") == ["no site has been heard of"]
