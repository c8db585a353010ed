"""The pages in a real browser."""

import pytest

from tests.browser import Visit

pytestmark = pytest.mark.live
PHONE = (390, 844)


@pytest.mark.parametrize(
    ("name", "site", "options"),
    [
        ("healthy-light", "healthy", {}),
        ("healthy-dark", "healthy", {"dark": True}),
        ("healthy-phone", "healthy", {"size": PHONE, "touch": True}),
        ("missing-light", "missing", {}),
        ("missing-phone-dark", "missing", {"size": PHONE, "touch": True, "dark": True}),
        ("rollout-light", "rollout", {}),
        ("refused-dark", "refused", {"dark": True}),
        ("dead-light", "dead", {}),
    ],
)
def test_screenshots(browser, server, name, site, options):
    with Visit(browser, **options) as visit:
        visit.page.goto(server.url(f"/site/{site}"))
        visit.page.get_by_role("heading", name=site, exact=True).wait_for()
        visit.page.wait_for_timeout(1200)
        visit.screenshot(name)
        assert visit.errors == []
        assert visit.foreign_requests(server.host) == []
        width = visit.page.evaluate("document.documentElement.scrollWidth")
        assert width <= (options.get("size") or (1280,))[0]
