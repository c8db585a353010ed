"""`ddnn dashboard` beside a running site: what it shows, what it lets people do, how it ends."""

import json
import re
import sqlite3
import subprocess
import sys
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import msgspec
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from broker.mosquitto import LocalBroker
from cloud_service.guard.users import Users, read_users, write_users
from ddnn import topics
from ddnn.bundle import assemble, encode_manifest
from ddnn.measurements import Calibration, CurvePoint
from ddnn.metrics import TABLE
from tests.browser import NoBrowser, Visit, chromium, find_chromium
from tests.bundles import random_bundle
from tests.live.dashboard import PASSWORD, DashboardProcess
from tests.live.in_process import SITE, Site, ended, wait
from tests.live.test_system import CAMERAS, scenes

pytestmark = pytest.mark.live
SAMPLES = 40
SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site that has decided some slots and goes on living."""
    with Site(tmp_path_factory.mktemp("site"), scenes(SAMPLES), 0.05) as running:
        running.asked = []
        running.client.subscribe(
            topics.settings(SITE), lambda message: running.asked.append(json.loads(message.payload))
        )
        running.run(with_curve(random_bundle(cameras=CAMERAS)))
        wait(lambda: ended(running.observer.ledger) >= SAMPLES, "deciding")
        yield running


def with_curve(bundle):
    """The same network, with a curve to move a threshold along."""
    edge = bundle.manifest.exits["edge"].threshold
    points = tuple(
        CurvePoint(
            thresholds={"local": local, "edge": edge},
            exit_shares={"local": local, "edge": 0.5 - local / 2, "cloud": 0.5 - local / 2},
            accuracy=0.9 - local / 10,
            camera_bytes=40.0 - 20 * local,
            cloud_bytes=20.0 - 10 * local,
        )
        for local in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    calibration = Calibration(goal="accuracy", samples=100, curve=points)
    manifest = msgspec.structs.replace(bundle.manifest, calibration=calibration)
    return assemble(encode_manifest(manifest), bundle.sections)


@pytest.fixture(scope="module")
def dashboard(site, tmp_path_factory):
    with DashboardProcess(tmp_path_factory.mktemp("board"), site.broker, people=True) as running:
        wait(lambda: recorded(running) >= SAMPLES, "recording")
        yield running


@pytest.fixture(scope="module")
def browser():
    try:
        find_chromium()
    except NoBrowser as error:
        pytest.skip(str(error))
    with chromium() as running:
        yield running


def recorded(dashboard):
    try:
        with sqlite3.connect(f"file:{dashboard.database}?mode=ro", uri=True) as database:
            return database.execute("select count(*) from decisions").fetchone()[0]
    except sqlite3.OperationalError:  # not made yet
        return 0


def sign_in(visit, dashboard, name):
    visit.page.goto(dashboard.origin + "/")
    assert visit.page.url.startswith(dashboard.origin + "/login")
    visit.page.get_by_label("Name").fill(name)
    visit.page.get_by_label("Password").fill(PASSWORD)
    visit.page.keyboard.press("Enter")
    visit.page.get_by_role("heading", name=SITE).wait_for()


# -- what it shows and does ------------------------------------------------------------------------


def test_decisions_of_before_its_start_are_recorded_and_told_by_the_api(site, dashboard):
    told = dashboard.api(f"/sites/{SITE}/decisions?limit=1000")["decisions"]
    heard = {slot: seen.decision.label for slot, seen in site.observer.decisions.items()}
    assert {each["slot"]: each["label"] for each in told} == heard


def test_person_logs_in_moves_the_threshold_and_sees_it_taken(site, dashboard, browser):
    with Visit(browser) as visit:
        sign_in(visit, dashboard, "otto")
        page = visit.page
        page.get_by_text("Threshold of the first exit").wait_for()
        slider = page.get_by_role("slider").first
        slider.focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        page.get_by_role("button", name="Apply this threshold").click()
        wait(lambda: settings_of(site).get("local_threshold") is not None, "asking")
        wanted = settings_of(site)["local_threshold"]
        wait(lambda: in_force(dashboard) == wanted, "the gateway's taking it")
        visit.screenshot("dashboard-threshold")
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/login")
        page.goto(f"{dashboard.origin}/site/{SITE}")
        assert "/login" in page.url, "the session is over on the server, too"
        assert visit.errors == [], "nothing of the page is against its own policy"
        assert visit.foreign_requests(f"localhost:{dashboard.port}") == []


def settings_of(site):
    """What is retained on the site's topic; {}: nothing yet."""
    return site.asked[-1] if site.asked else {}


def in_force(dashboard):
    taken = dashboard.api(f"/sites/{SITE}/settings")["settings"]["taken"]
    return (taken or {}).get("local_threshold")


def test_viewer_sees_the_page_and_changes_nothing(site, dashboard, browser):
    before = settings_of(site)
    with Visit(browser) as visit:
        sign_in(visit, dashboard, "vera")
        page = visit.page
        page.get_by_text("Threshold of the first exit").wait_for()
        apply = page.get_by_role("button", name="Apply this threshold")
        page.get_by_role("slider").first.focus()
        page.keyboard.press("ArrowRight")
        if apply.is_enabled():
            apply.click()
            page.get_by_text("operator").first.wait_for()
    assert settings_of(site) == before


def test_page_of_a_user_who_is_removed_ends(dashboard, browser):
    everybody = read_users(dashboard.users_file)
    try:
        with Visit(browser) as visit:
            sign_in(visit, dashboard, "vera")
            visit.page.wait_for_function("window.did_handshake")
            left = tuple(user for user in everybody.users if user.name != "vera")
            write_users(dashboard.users_file, Users(users=left, tokens=everybody.tokens))
            visit.page.wait_for_url("**/login**", timeout=25_000)
    finally:
        write_users(dashboard.users_file, everybody)


def test_metrics_are_in_the_table_and_count(dashboard):
    address = f"http://127.0.0.1:{dashboard.metrics_port}/metrics"
    with urllib.request.urlopen(address, timeout=5) as answer:
        text = answer.read().decode()
    names = set(re.findall(r"^(ddnn_\w+)\{", text, re.M))
    assert names <= {*TABLE}
    node = f'node="dashboard-{dashboard.port}"'
    assert f'ddnn_dashboard_database_up{{{node},site="_cloud"}} 1.0' in text
    assert f'ddnn_dashboard_sites{{{node},site="_cloud"}} 1.0' in text
    assert f'ddnn_node_up{{member="gateway",{node},site="{SITE}"}} 1.0' in text


def test_nothing_says_what_serves_here(dashboard):
    for path in ("/login", "/healthz", "/nothing", "/api/v1/sites"):
        _, headers, body = dashboard.ask(path)
        assert not {"server", "x-powered-by"} & {name.lower() for name in headers}
        assert "uvicorn" not in body.lower()


# -- life ------------------------------------------------------------------------------------------


def test_it_starts_without_a_broker_says_so_and_goes_on_when_there_is_one(tmp_path):
    broker = LocalBroker(directory=tmp_path / "broker")
    broker.start()
    port = broker.port
    broker.stop()
    with DashboardProcess(tmp_path / "board", broker) as dashboard:
        status, _, body = dashboard.ask("/readyz")
        assert status == 503
        assert "no MQTT broker answers" in body
        again = LocalBroker(directory=tmp_path / "again", port=port)
        again.start()
        try:
            wait(lambda: dashboard.ask("/readyz")[0] == 200, "readiness", 20)
        finally:
            again.stop()
        wait(lambda: dashboard.ask("/readyz")[0] == 503, "noticing that it is gone", 20)
        assert dashboard.ask("/healthz")[0] == 200


def test_it_starts_without_a_database_says_so_and_records_when_there_is_one(site, tmp_path):
    blocked = tmp_path / "board" / "decisions.db"
    blocked.mkdir(parents=True)
    with DashboardProcess(tmp_path / "board", site.broker) as dashboard:
        wait(lambda: dashboard.ask("/readyz")[0] == 503, "noticing", 20)
        assert "database" in dashboard.ask("/readyz")[2]
        assert dashboard.ask(f"/site/{SITE}")[0] == 200, "the page is there all the same"
        blocked.rmdir()
        wait(lambda: recorded(dashboard) >= SAMPLES, "recording", 40)
        wait(lambda: dashboard.ask("/readyz")[0] == 200, "readiness", 20)


def test_sigterm_ends_it_cleanly_with_everything_stored(site, tmp_path):
    with DashboardProcess(tmp_path, site.broker) as dashboard:
        wait(lambda: recorded(dashboard) >= SAMPLES, "recording", 40)
        began = time.monotonic()
        assert dashboard.stop() == 0
        assert time.monotonic() - began < 15
        assert "Traceback" not in dashboard.log
        # What comes while it is away is recorded when it is back.
        decision = next(iter(site.observer.decisions.values())).decision
        late = msgspec.structs.replace(decision, slot=decision.slot - 10_000)
        payload = msgspec.json.encode(late)
        site.client.publish(topics.decision(SITE), payload, qos=1).wait_for_publish(5)
        dashboard.start()
        wait(lambda: recorded(dashboard) == SAMPLES + 1, "recording what came meanwhile", 40)


def test_port_that_is_taken_is_said(tmp_path):
    taken = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    try:
        dashboard = DashboardProcess(tmp_path, None, port=taken.server_port)
        command_ends(dashboard)
        assert "is the port taken?" in dashboard.log
    finally:
        taken.server_close()


def command_ends(dashboard):
    command = [sys.executable, "-m", "ddnn", "dashboard", *dashboard._options]
    outcome = subprocess.run(command, capture_output=True, timeout=60, check=False)
    (dashboard.folder / "dashboard.log").write_bytes(outcome.stdout + outcome.stderr)
    assert outcome.returncode == 1, outcome.stderr
    assert b"Traceback" not in outcome.stderr


# -- pages of others, on a dashboard without a login -----------------------------------------------


@pytest.fixture(scope="module")
def open_dashboard(site, tmp_path_factory):
    """What a person has who just started it: no users, this machine only."""
    with DashboardProcess(tmp_path_factory.mktemp("open"), site.broker) as running:
        wait(lambda: running.api("/sites")["sites"], "hearing of the site")
        yield running


@pytest.mark.parametrize("host", ["evil.net", "localhost.evil.net", "169.254.1.1", "0.0.0.0"])
def test_name_that_somebody_points_at_this_machine_shows_nothing(open_dashboard, host):
    status, _, body = open_dashboard.ask(f"/site/{SITE}", host=host)
    assert status == 421
    assert SITE not in body


@pytest.mark.parametrize(
    "origin", ["http://evil.net", "null", None, "http://localhost:1", "https://localhost"]
)
def test_websocket_of_another_origin_is_refused(open_dashboard, origin):
    address = f"ws://localhost:{open_dashboard.port}{SOCKET}"
    with pytest.raises(InvalidStatus) as refused, connect(address, origin=origin):
        pass
    assert refused.value.response.status_code == 403
    with connect(address, origin=open_dashboard.origin) as own:
        assert own.recv(timeout=5).startswith("0{")


def test_no_answer_lets_another_origin_read_it(open_dashboard):
    poll = "/_nicegui_ws/socket.io/?EIO=4&transport=polling"
    for headers in ({}, {"Origin": "http://evil.net"}, {"Origin": open_dashboard.origin}):
        status, found, _ = open_dashboard.ask(poll, headers=headers)
        assert status == (403 if headers == {"Origin": "http://evil.net"} else 200)
        assert not any(name.lower().startswith("access-control") for name in found)


EVIL_PAGE = """<!doctype html><title>evil</title><body><script>
const target = "http://localhost:PORT", result = {};
const tries = {
  fetch: () => fetch(target + "/api/v1/sites").then(r => r.text()),
  nocors: () => fetch(target + "/site/site", {mode: "no-cors"}).then(r => "status " + r.status),
  poll: () => fetch(target + "/_nicegui_ws/socket.io/?EIO=4&transport=polling")
                .then(r => r.text()),
  post: () => fetch(target + "/login", {method: "POST", mode: "no-cors", body: "name=a"})
                .then(r => "sent"),
  socket: () => new Promise((good, bad) => {
    const socket = new WebSocket(target.replace("http", "ws") + "SOCKET");
    socket.onopen = () => good("open"); socket.onerror = () => bad("refused"); }),
  script: () => new Promise((good, bad) => {
    const tag = document.createElement("script"); tag.src = target + "/api/v1/sites";
    tag.onload = () => good("loaded"); tag.onerror = () => bad("refused");
    document.body.append(tag); }),
  frame: () => new Promise((good, bad) => {
    const tag = document.createElement("iframe"); tag.src = target + "/site/site";
    tag.onload = () => { try { good("frame " + (tag.contentDocument ? "readable" : "opaque")) }
                         catch (e) { good("frame opaque") } };
    document.body.append(tag); }),
};
Promise.all(Object.entries(tries).map(([name, attempt]) =>
  attempt().then(v => result[name] = v, e => result[name] = "refused"))).then(() => {
    document.title = "done"; window.result = result; });
</script>"""


def test_page_of_another_site_in_the_same_browser_reads_and_changes_nothing(
    site, open_dashboard, browser
):
    """The page is on localhost, too: to a browser the same site, and yet another origin."""
    page_text = EVIL_PAGE.replace("PORT", str(open_dashboard.port)).replace("SOCKET", SOCKET)

    class Evil(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page_text.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Evil)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        with Visit(browser) as visit:
            visit.page.goto(f"http://localhost:{server.server_port}/")
            visit.page.wait_for_function("document.title === 'done'", timeout=20_000)
            outcome = visit.page.evaluate("window.result")
            frames = [frame.evaluate("document.body.innerText") for frame in visit.page.frames[1:]]
    finally:
        server.shutdown()
        server.server_close()
    # A request without CORS may leave, but its answer (opaque, or blocked) tells nothing.
    assert outcome.pop("nocors") in ("refused", "status 0")
    assert outcome.pop("post") in ("refused", "sent")
    assert outcome.pop("frame") in ("frame opaque",)
    assert set(outcome.values()) == {"refused"}, outcome
    assert not any(SITE in text and "Cameras" in text for text in frames)
    _, _, body = open_dashboard.ask("/api/v1/database")
    assert json.loads(body)["ok"]
