"""Attacks on `ddnn dashboard` over TLS, on a site with its production configuration."""

import concurrent.futures
import contextlib
import http.client
import re
import socket
import ssl
import time

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from broker.pki import Authority, now_utc
from ddnn import topics
from ddnn.access import RECORDING, SHOWING
from ddnn.mqtt import Client
from ddnn.tls import TlsFiles
from tests.live.dashboard import PASSWORD, DashboardProcess
from tests.security.site import HOST, SITE, SecuredSite, make_site

pytestmark = [pytest.mark.security, pytest.mark.timeout(300)]
PAGE_SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"


class SiteWithDashboard(SecuredSite):
    def make(self):
        return make_site(self.folder, dashboard=True)

    @property
    def own(self):
        """The folder that the site made for the dashboard."""
        return self.folder / "nodes" / "_cloud.dashboard"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with SiteWithDashboard(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture(scope="module")
def dashboard(site, tmp_path_factory):
    """On all addresses, with TLS and users, by the settings that the site made for it."""
    folder = tmp_path_factory.mktemp("board")
    issued = Authority(site.folder / "ca").issue("web", now_utc(), kind="broker", hosts=(HOST,))
    (folder / "web.crt").write_bytes(issued.certificate)
    (folder / "web.key").write_bytes(issued.key)
    options = [
        "--config", str(site.own / "dashboard.toml"), "--port", str(site.broker.port),
        "--host", "0.0.0.0", "--names", f'["{HOST}"]',
        "--web-cert", str(folder / "web.crt"), "--web-key", str(folder / "web.key"),
    ]  # fmt: skip
    ca = str(site.own / "ca.crt")
    with DashboardProcess(folder, None, *options, people=True, tls_ca=ca) as running:
        site.wait(lambda: running.ask("/readyz")[0] == 200, "readiness", 30)
        yield running


def authorised(dashboard):
    return {"Authorization": f"Bearer {dashboard.token}"}


def still_serves(dashboard):
    """Whoever may come in still gets an answer, soon."""
    began = time.monotonic()
    assert dashboard.api("/sites")["sites"]
    assert time.monotonic() - began < 10


def test_it_shows_the_site_by_the_rights_that_it_was_given(site, dashboard):
    deadline = time.monotonic() + 20
    while not dashboard.api(f"/sites/{SITE}/decisions?limit=5")["decisions"]:
        assert time.monotonic() < deadline, "no decision is recorded"
        time.sleep(0.2)
    nodes = {each["node"] for each in dashboard.api(f"/sites/{SITE}/nodes")["nodes"]}
    assert {"gateway", "cloud-0", "device-0"} <= nodes
    assert "Denied" not in site.broker.log_tail(200)


def test_stolen_certificates_of_the_dashboard_write_settings_and_recalls_and_nothing_else(site):
    for name, allowed in ((SHOWING, topics.settings(SITE)), (RECORDING, topics.recall(SITE))):
        stem = "node" if name == SHOWING else RECORDING
        files = TlsFiles(site.own / "ca.crt", site.own / f"{stem}.crt", site.own / f"{stem}.key")
        thief = Client(HOST, site.broker.port, "thief", tls=files)
        thief.start()
        try:
            thief.wait_connected(10)
            refused = [
                topics.decision(SITE), topics.active(SITE), topics.manifest(SITE),
                topics.summary(SITE, 0), topics.request(SITE, 0), topics.answer(SITE),
                topics.status(SITE, "gateway"), topics.ledger(SITE), topics.audit(SITE),
                topics.replay(SITE), topics.settings(SITE), topics.recall(SITE),
            ]  # fmt: skip
            refused.remove(allowed)
            for topic in refused:
                thief.publish(topic, b"{}", qos=1).wait_for_publish(5)
            deadline = time.monotonic() + 10
            while set(thief.denied()) != set(refused):
                assert time.monotonic() < deadline, set(refused) - set(thief.denied())
                time.sleep(0.05)
        finally:
            thief.stop()
    with site.nothing_lost():
        pass


def test_browser_without_tls_gets_nothing(dashboard):
    with socket.create_connection(("127.0.0.1", dashboard.port), timeout=5) as plain:
        plain.sendall(b"GET /login HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with contextlib.suppress(ConnectionError):  # ended, which is as good
            assert not plain.recv(100).startswith(b"HTTP")


@pytest.mark.parametrize(
    "path",
    [
        "/", "/sites", f"/site/{SITE}", "/api/v1/sites", "/api/v1/openapi.json", "/docs",
        "/api/v1/database", "/_nicegui_ws/socket.io/?EIO=4&transport=polling", "/metrics",
        "/login/../sites", "/%6cogin", "//sites", "/static/../../etc/passwd", "/healthz/../sites",
    ],
)  # fmt: skip
def test_stranger_sees_nothing(dashboard, path):
    for headers in (
        {},
        {"Cookie": "__Host-ddnn=x"},
        {"Cookie": "ddnn=" + "A" * 4000},
        {"Authorization": "Bearer " + "x" * 4000},
        {"Authorization": "Basic b3R0bzpvdHRv"},
        {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http"},
        {"X-Forwarded-Host": "localhost", "X-Original-URL": "/login", "X-Rewrite-URL": "/login"},
    ):
        status, found, body = dashboard.ask(path, headers=headers)
        assert status in (401, 404, 303) or "Log in" in body, (path, headers, status)
        assert SITE not in body
        assert not any("set-cookie" in name.lower() for name in found)


def test_passwords_are_not_found_by_trying(dashboard):
    """Two hundred tries from one address: a few are looked at, and the right one is not let in."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        outcomes = list(
            pool.map(lambda n: dashboard.log_in(password=f"guess number {n}"), range(200))
        )
    statuses = [status for status, _ in outcomes]
    assert set(statuses) == {401, 429}
    assert statuses.count(401) <= 12, "the burst, and what was allowed again meanwhile"
    assert dashboard.log_in()[0] == 429
    still_serves(dashboard)
    assert PASSWORD not in dashboard.log
    assert "guess number" not in dashboard.log
    assert "login refused: otto" in dashboard.log


def test_names_that_there_are_not_tell_nothing(dashboard):
    status, cookie = dashboard.log_in(name="nobody at all")
    assert (status, cookie) in ((401, ""), (429, ""))
    assert "nobody at all" not in dashboard.log


@pytest.mark.parametrize(
    ("method", "headers", "body"),
    [
        ("POST", {"Content-Length": "99999999999"}, None),
        ("POST", {"Content-Type": "application/x-www-form-urlencoded"}, b"name=" + b"a" * 900_000),
        ("POST", {"Content-Type": "multipart/form-data; boundary=x"}, b"--x\r\n" * 10_000),
        ("POST", {"Content-Type": "multipart/form-data"}, b"x"),
        ("PUT", {}, b""),
        ("TRACE", {}, None),
        ("BREW", {}, None),
        ("GET", {"Range": "bytes=0-0," * 200}, None),
    ],
)
def test_odd_request_is_refused_and_the_next_one_answered(dashboard, method, headers, body):
    given = {"Origin": dashboard.origin} | headers
    try:
        status, _, text = dashboard.ask("/login", method, body, given)
        assert status < 500, text
        assert "Traceback" not in text
    except (OSError, http.client.HTTPException):
        pass  # it ended the connection, which is as good
    still_serves(dashboard)


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.net\r\n\r\n",
        b"GET http://evil.net/ HTTP/1.1\r\nHost: evil.net\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"\x16\x03\x01" * 1000,
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_malformed_request_is_refused_and_the_next_one_answered(dashboard, raw):
    context = ssl.create_default_context(cafile=dashboard.tls_ca)
    with (
        socket.create_connection(("127.0.0.1", dashboard.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as sock,
    ):
        sock.sendall(raw)
        try:
            answer = sock.recv(100)
        except OSError:
            answer = b""
    assert not answer or re.match(rb"HTTP/1\.1 4\d\d", answer), answer
    still_serves(dashboard)


def test_silent_connections_keep_nobody_out(dashboard):
    idle = [socket.create_connection(("127.0.0.1", dashboard.port)) for _ in range(300)]
    try:
        still_serves(dashboard)
    finally:
        for each in idle:
            each.close()


def test_websocket_of_a_stranger_or_another_origin_is_refused(dashboard):
    context = ssl.create_default_context(cafile=dashboard.tls_ca)
    address = f"wss://localhost:{dashboard.port}{PAGE_SOCKET}"
    own = {"ssl": context, "additional_headers": authorised(dashboard)}
    for origin, given in (
        (dashboard.origin, {"ssl": context}),
        ("https://evil.net", own),
        ("null", own),
        (None, own),
        (dashboard.origin.replace("https", "http"), own),
    ):
        with pytest.raises(InvalidStatus) as refused, connect(address, origin=origin, **given):
            pass
        assert refused.value.response.status_code == 403
    with connect(address, origin=dashboard.origin, **own) as socket_:
        assert socket_.recv(timeout=5).startswith("0{")


def test_flood_of_events_from_one_browser_leaves_the_others_alone(dashboard):
    context = ssl.create_default_context(cafile=dashboard.tls_ca)
    address = f"wss://localhost:{dashboard.port}{PAGE_SOCKET}"
    headers = authorised(dashboard)
    with connect(
        address, origin=dashboard.origin, ssl=context, additional_headers=headers
    ) as flooding:
        flooding.recv(timeout=5)
        flooding.send("40")
        event = '42["event",{"client_id":"00000000-0000-0000-0000-000000000000","id":1,"args":[]}]'
        for number in range(2000):
            flooding.send(event)
            if number % 500 == 0:
                still_serves(dashboard)
    with connect(
        address, origin=dashboard.origin, ssl=context, additional_headers=headers
    ) as too_long:
        too_long.recv(timeout=5)
        too_long.send("4" + "x" * 2_000_000)
        with pytest.raises(ConnectionClosed):
            expect_the_end(too_long)
    still_serves(dashboard)


def expect_the_end(socket_):
    while True:
        socket_.recv(timeout=10)


def test_cookie_is_for_this_host_only_and_its_session_ends_with_the_password(site, dashboard):
    logins = []
    site.wait(
        lambda: logins.append(dashboard.log_in(name="vera")) or logins[-1][0] == 303,
        "the throttle's opening",
        60,
    )
    _, cookie = logins[-1]
    assert cookie.startswith("__Host-ddnn=")
    assert dashboard.ask("/sites", headers={"Cookie": cookie})[0] == 200
    answer = dashboard.ask("/sites", headers={"Cookie": cookie})
    headers = {name.lower(): value for name, value in answer[1].items()}
    assert "strict-transport-security" in headers
    assert "'unsafe-inline'" not in headers["content-security-policy"].split("style-src")[0]
    text = dashboard.users_file.read_text()
    dashboard.users_file.write_text(text + " ")
    assert dashboard.ask("/sites", headers={"Cookie": cookie})[0] == 200, "nothing has changed"
    found = re.sub(r'("name": "vera".*?"hash": ")[^"]*', r"\1changed", text, flags=re.S)
    dashboard.users_file.write_text(found)
    assert dashboard.ask("/sites", headers={"Cookie": cookie})[0] != 200
    dashboard.users_file.write_text(text)


def test_nothing_was_lost_at_the_site_meanwhile(site):
    assert site.findings() == []
    with site.nothing_lost():
        pass
