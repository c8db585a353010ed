"""Who may see and do what over HTTP: users, sessions, throttles and the rules for each request."""

import asyncio
import http.cookies
import json
import re
import threading
import time

import pytest
from argon2 import PasswordHasher
from click.testing import CliRunner
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from cloud_service.dashboard import Dashboard, DashboardSettings, check_exposure
from cloud_service.guard import login, rules, users
from cloud_service.guard.asgi import VISITOR, Guard
from cloud_service.guard.door import Door, LoggedIn
from cloud_service.guard.rules import Asked, Who
from cloud_service.guard.sessions import MAX_SESSIONS, Sessions
from cloud_service.guard.throttle import Throttle, network_of
from cloud_service.guard.users import Users, UsersFile, make_token, make_user
from ddnn.cli import main
from ddnn.errors import ConfigError

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module", autouse=True)
def _quick_hashes():
    """Argon2 takes its time by design; here it need not."""
    before = users._HASHER
    users._HASHER = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    yield
    users._HASHER = before


@pytest.fixture(scope="module")
def people():
    """A viewer and an operator."""
    return (
        make_user("vera", "viewer", PASSWORD),
        make_user("otto", "operator", PASSWORD),
    )


@pytest.fixture
def users_file(tmp_path, people):
    path = tmp_path / "users.json"
    users.write_users(path, Users(users=people))
    return path


# -- the file --------------------------------------------------------------------------------------


def test_file_holds_no_password_and_is_for_its_owner_only(users_file):
    assert PASSWORD not in users_file.read_text()
    assert "$argon2id$" in users_file.read_text()
    assert users_file.stat().st_mode & 0o777 == 0o600


def test_file_that_others_may_read_is_refused(users_file):
    users_file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        users.read_users(users_file)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"users": 1}', '{"people": []}', '{"users": [{"name": "a"}]}', "\xff", "null"],
)
def test_damaged_file_is_refused(tmp_path, text):
    path = tmp_path / "users.json"
    path.touch(mode=0o600)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError):
        users.read_users(path)


def test_file_that_names_nobody_is_refused(tmp_path):
    users.write_users(tmp_path / "users.json", Users())
    with pytest.raises(ConfigError, match="nobody"):
        UsersFile(tmp_path / "users.json")


def test_file_that_becomes_unreadable_lets_nobody_in(users_file):
    file = UsersFile(users_file)
    assert file.get().user("otto")
    users_file.write_text("{ half")
    assert file.get() == Users()


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "a" * 65, "é", "a\n"])
def test_name_that_could_break_a_log_or_a_form_is_refused(name):
    with pytest.raises(ConfigError):
        make_token(name, "viewer")


@pytest.mark.parametrize("password", ["", "short", "x" * 1025])
def test_password_that_is_too_short_or_too_long_is_refused(password):
    with pytest.raises(ConfigError, match="password"):
        make_user("otto", "operator", password)


def test_right_password_only(people):
    vera, _ = people
    assert users.verify(vera, PASSWORD)
    assert not users.verify(vera, PASSWORD + "x")
    assert not users.verify(None, PASSWORD)


def test_token_is_known_again_and_no_other_is():
    made = make_token("ci", "viewer")
    found = Users(tokens=(made.entry,))
    assert found.token(made.text) == made.entry
    assert made.text not in json.dumps(made.entry.sha256)
    for other in ("", made.text[:-1], made.entry.sha256, make_token("ci", "viewer").text):
        assert found.token(other) is None


# -- commands --------------------------------------------------------------------------------------


def run(*args, **options):
    return CliRunner().invoke(main, ["dashboard", *map(str, args)], **options)


def test_people_and_programs_are_added_listed_and_removed(tmp_path):
    path = tmp_path / "users.json"
    where = ("--users", path)
    typed = f"{PASSWORD}\n{PASSWORD}\n"
    assert run("user", "add", "otto", "--role", "operator", *where, input=typed).exit_code == 0
    made = run("token", "add", "ci", *where)
    assert made.output.startswith("ddnn_")
    found = users.read_users(path)
    assert users.verify(found.user("otto"), PASSWORD)
    assert found.token(made.output.strip()).role == "viewer"
    assert run("user", "list", *where).output == "user   otto  operator\ntoken  ci  viewer\n"
    assert run("token", "remove", "ci", *where).exit_code == 0
    assert run("user", "remove", "otto", *where).exit_code == 0
    assert users.read_users(path) == Users()


def test_password_from_a_file_replaces_the_one_before_and_the_role(tmp_path, users_file):
    secret = tmp_path / "password"
    secret.write_text("another password\nnot this line")
    added = run("user", "add", "vera", "--password-file", secret, "--users", users_file)
    assert added.exit_code == 0
    assert PASSWORD not in added.output
    vera = users.read_users(users_file).user("vera")
    assert users.verify(vera, "another password")
    assert not users.verify(vera, PASSWORD)
    assert len(users.read_users(users_file).users) == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("user", "remove", "nobody"), "has no user"),
        (("token", "remove", "nobody"), "has no token"),
        (("user", "add", "a b", "--password-file", "PASSWORD"), "letter or digit"),
        (("user", "add", "vera", "--password-file", "SHORT"), "10 to"),
    ],
)
def test_mistake_in_a_command_is_a_sentence(tmp_path, users_file, args, said):
    (tmp_path / "PASSWORD").write_text(PASSWORD)
    (tmp_path / "SHORT").write_text("short")
    args = [str(tmp_path / a) if a in ("PASSWORD", "SHORT") else a for a in args]
    outcome = run(*args, "--users", users_file)
    assert outcome.exit_code == 1
    assert said in outcome.output
    assert "Traceback" not in outcome.output


def test_token_of_a_name_that_has_one_is_refused(tmp_path):
    assert run("token", "add", "ci", "--users", tmp_path / "u").exit_code == 0
    assert "remove it first" in run("token", "add", "ci", "--users", tmp_path / "u").output


# -- sessions and throttles ------------------------------------------------------------------------


def test_session_ends_after_idling_after_its_life_and_at_logout(people):
    known, (vera, _) = Users(users=people), people
    sessions = Sessions(idle_s=10, life_s=25)
    idle, alive, left = (sessions.begin(vera, 0.0) for _ in range(3))
    assert sessions.user(alive, known, 9.0) == vera
    assert sessions.user(idle, known, 11.0) is None
    assert sessions.user(alive, known, 18.0) == vera
    assert sessions.user(alive, known, 26.0) is None, "its life is over, whatever it does"
    sessions.end(left)
    assert sessions.user(left, known, 1.0) is None
    assert len(sessions) == 0


def test_session_ends_with_its_password_and_with_its_user(people):
    vera, otto = people
    sessions = Sessions(100, 100)
    hers, his = sessions.begin(vera, 0.0), sessions.begin(otto, 0.0)
    changed = make_user("vera", "viewer", "another password")
    assert sessions.user(hers, Users(users=(changed,)), 1.0) is None
    assert sessions.user(his, Users(users=(changed,)), 1.0) is None


def test_role_is_the_one_of_now(people):
    vera, _ = people
    sessions = Sessions(100, 100)
    hers = sessions.begin(vera, 0.0)
    promoted = users.User(name="vera", role="operator", hash=vera.hash)
    assert sessions.user(hers, Users(users=(promoted,)), 1.0).role == "operator"


def test_sessions_are_bounded(people):
    sessions = Sessions(100, 100)
    first = sessions.begin(people[0], 0.0)
    for _ in range(MAX_SESSIONS):
        sessions.begin(people[0], 1.0)
    assert len(sessions) == MAX_SESSIONS
    assert sessions.user(first, Users(users=people), 1.0) is None


@given(st.lists(st.floats(0, 30), max_size=40))
def test_throttle_never_allows_more_than_its_burst_and_refill(pauses):
    throttle, now, allowed = Throttle(3, 10.0), 0.0, 0
    for pause in pauses:
        now += pause
        wait_s = throttle.take("a", now)
        allowed += wait_s == 0.0
        assert 0.0 <= wait_s <= 10.0
        assert allowed <= 3 + now / 10.0 + 1e-6


def test_throttle_says_how_long_to_wait_and_keeps_its_word():
    throttle = Throttle(1, 10.0)
    assert throttle.take("a", 0.0) == 0.0
    wait_s = throttle.take("a", 4.0)
    assert throttle.take("a", 4.0 + wait_s + 1e-6) == 0.0


def test_throttle_is_bounded():
    throttle = Throttle(1, 10.0, max_keys=100)
    for number in range(1000):
        throttle.take(str(number), 0.0)
    assert len(throttle) == 100


def test_addresses_that_one_attacker_can_have_count_as_one():
    assert network_of("2001:db8:1:2:3::4") == network_of("2001:db8:1:2:ffff::1")
    assert network_of("2001:db8:1:2::1") != network_of("2001:db8:1:3::1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1")
    assert network_of("192.0.2.1") != network_of("192.0.2.2")


# -- the rules -------------------------------------------------------------------------------------


def asked(kind="http", method="GET", path="/", scheme="http", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Asked(kind, method, scheme, path, {"host": "localhost:8080"} | named)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]", "[::1]:8080", "ddnn.example"]
)
def test_own_names_are_let_through(host):
    names = frozenset({"localhost", "127.0.0.1", "::1", "ddnn.example"})
    assert rules.check_host(asked(host=host), names) is None


@pytest.mark.parametrize(
    "host",
    [
        "", "evil.net", "localhost.evil.net", "localhost@evil.net", "localhost:80:80",
        "localhost:x", "[::1", "[::1]x", "127.0.0.1.evil.net", "localhost,evil.net", "::1",
    ],
)  # fmt: skip
def test_other_names_are_refused(host):
    names = frozenset({"localhost", "127.0.0.1", "::1"})
    assert rules.check_host(asked(host=host), names).status == 421


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.net", "null", "https://localhost:8080", "http://localhost", "file://", "",
        "http://localhost:8081", "http://localhost:8080.evil.net", "http://localhost:8080/",
    ],
)  # fmt: skip
def test_page_of_another_origin_is_refused(kind, origin):
    assert rules.check_origin(asked(kind=kind, origin=origin)).reason == "origin"


def test_own_page_is_let_through():
    for kind in ("http", "websocket"):
        assert rules.check_origin(asked(kind=kind, origin="http://localhost:8080")) is None


def test_websocket_without_an_origin_is_refused():
    assert rules.check_origin(asked(kind="websocket")).reason == "origin"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "something new"])
@pytest.mark.parametrize("mode", ["no-cors", "cors", "websocket", "nested-navigate", None])
def test_what_a_browser_says_comes_from_another_site_is_refused(site, mode):
    headers = {"sec_fetch_site": site} | ({"sec_fetch_mode": mode} if mode else {})
    assert rules.check_origin(asked(**headers)).reason == "origin"


@pytest.mark.parametrize(("dest", "method"), [("iframe", "GET"), ("document", "POST")])
def test_frame_or_form_of_another_site_is_refused(dest, method):
    made = asked(
        method=method, sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest=dest
    )
    assert rules.check_origin(made).reason == "origin"


def test_person_may_follow_a_link_from_anywhere():
    made = asked(sec_fetch_site="cross-site", sec_fetch_mode="navigate", sec_fetch_dest="document")
    assert rules.check_origin(made) is None


VIEWER, OPERATOR = Who("v", "viewer", "session"), Who("o", "operator", "session")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "ODD"])
def test_change_without_an_origin_is_refused_with_a_cookie_but_not_with_a_token(method):
    made = asked(method=method, path="/api/v1/x")
    assert rules.check_change(made, OPERATOR).reason == "csrf"
    assert rules.check_change(made, None).reason == "csrf"
    assert rules.check_change(made, OPERATOR._replace(how="local")).reason == "csrf"
    assert rules.check_change(made, OPERATOR._replace(how="token")) is None
    own = asked(method=method, path="/api/v1/x", origin="http://localhost:8080")
    assert rules.check_change(own, OPERATOR) is None


def test_viewer_changes_nothing_but_may_log_out():
    own = {"origin": "http://localhost:8080", "method": "POST"}
    assert rules.check_change(asked(path="/api/v1/x", **own), VIEWER).reason == "role"
    assert rules.check_change(asked(path="/logout", **own), VIEWER) is None
    assert rules.check_change(asked(), VIEWER) is None


@given(st.text() | st.text(alphabet="/\\ab:@?#%\t\n."))
def test_login_leads_to_a_path_of_this_server_whatever_was_asked_for(text):
    found = rules.next_page(text)
    assert found.startswith("/")
    assert not found.startswith("//")
    assert "\\" not in found
    assert all(" " <= character <= "~" for character in found)


@given(st.text())
def test_no_host_header_raises(text):
    rules.host_name(text)


# -- what may be set up ----------------------------------------------------------------------------


def test_default_is_this_machine_only():
    check_exposure(DashboardSettings())


@pytest.mark.parametrize(
    ("given_settings", "missing"),
    [
        ({"host": "0.0.0.0"}, "users"),
        ({"host": "0.0.0.0", "users": "u"}, "TLS"),
        ({"host": "::", "users": "u", "web_cert": "c", "web_key": "k"}, "names"),
        ({"behind_proxy": "10.0.0.1"}, "users"),
        ({"behind_proxy": "10.0.0.1", "users": "u"}, "names"),
        ({"web_cert": "c"}, "belong together"),
        ({"web_cert": "c", "web_key": "k", "behind_proxy": "10.0.0.1"}, "exclude"),
    ],
)
def test_server_that_strangers_could_reach_is_refused(given_settings, missing):
    with pytest.raises(ConfigError, match=missing):
        check_exposure(DashboardSettings(**given_settings))


@pytest.mark.parametrize(
    ("given_settings", "said"),
    [
        ({"users": "nowhere.json"}, "user add"),
        ({"database": "oracle://x"}, "oracle"),
        ({"tls_ca": "x", "tls_cert": "y", "tls_key": "z"}, "records_cert"),
        ({"metrics_port": 9100, "metrics_host": "0.0.0.0"}, "metrics_cert"),
    ],
)
def test_mistake_in_the_settings_is_told_before_anything_is_served(given_settings, said):
    with pytest.raises(ConfigError, match=said):
        Dashboard(DashboardSettings(**given_settings), threading.Event())


# -- the guard -------------------------------------------------------------------------------------


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def guarded(users_path=None, *, tls=False, names=("testserver",)):
    """A client of a guarded application, its door and clock."""

    async def page(request):
        return HTMLResponse("<html><script>1</script><p>text</p></html>")

    async def who(request):
        visitor = request.scope[VISITOR].now()
        return PlainTextResponse(f"{visitor.name} {visitor.role} {visitor.how}")

    async def echo(websocket):
        await websocket.accept()
        while True:
            try:
                await websocket.send_text(await websocket.receive_text())
            except WebSocketDisconnect:
                return

    clock = Clock()
    door = Door(UsersFile(users_path) if users_path else None, tls=tls, life_s=3600, clock=clock)
    routes = [
        Route("/", page),
        Route("/who", who, methods=["GET", "POST"]),
        WebSocketRoute("/echo", echo),
    ]
    inner = FastAPI(routes=routes)
    inner.include_router(login.router(door))
    app = Guard(inner, door, names)
    scheme = "https" if tls else "http"
    client = TestClient(app, base_url=f"{scheme}://testserver", follow_redirects=False)
    client.headers["origin"] = f"{scheme}://testserver"
    return client, door, clock


def log_in(client, name="otto", password=PASSWORD, **data):
    return client.post("/login", data={"name": name, "password": password, **data})


def test_without_users_everybody_here_is_an_operator():
    client, _, _ = guarded()
    assert client.get("/who").text == "local operator local"
    assert client.get("/login").headers["location"] == "/"


def test_stranger_sees_the_login_and_whether_it_lives_only(users_file):
    client, _, _ = guarded(users_file)
    answer = client.get("/who", headers={"accept": "text/html"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Fwho")
    answer = client.get("/who")
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert client.get("/login").status_code == 200
    for path in ("//login", "/login/", "/login/../who", "/LOGIN", "/who?x=/login"):
        assert client.get(path).status_code == 401, path
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/echo"):
        pass


def test_login_gives_a_session_that_no_script_and_no_other_site_can_use(users_file):
    client, _, _ = guarded(users_file, tls=True)
    answer = log_in(client, next="/who")
    assert (answer.status_code, answer.headers["location"]) == (303, "/who")
    (cookie,) = http.cookies.SimpleCookie(answer.headers["set-cookie"]).values()
    assert cookie.key == "__Host-ddnn"
    assert cookie["httponly"]
    assert cookie["secure"]
    assert cookie["samesite"] == "Strict"
    assert cookie["path"] == "/"
    assert not cookie["domain"]
    assert int(cookie["max-age"]) == 3600
    assert client.get("/who").text == "otto operator session"
    assert cookie.value not in str(answer.headers["location"])


def test_login_begins_another_session_and_ends_the_old_one(users_file):
    client, door, _ = guarded(users_file)
    client.cookies.set("ddnn", "planted by an attacker", domain="testserver.local", path="/")
    log_in(client)
    first = client.cookies["ddnn"]
    assert first != "planted by an attacker"
    log_in(client)
    assert client.cookies["ddnn"] != first
    assert len(door.sessions) == 1


def test_logout_ends_the_session_on_the_server(users_file):
    client, _, _ = guarded(users_file)
    log_in(client)
    stolen = client.cookies["ddnn"]
    assert client.post("/logout").headers["location"] == "/login"
    client.cookies.set("ddnn", stolen)
    assert client.get("/who").status_code == 401


def test_changed_password_ends_the_session_and_its_websocket(users_file, people):
    client, _, _ = guarded(users_file)
    log_in(client)
    with client.websocket_connect("/echo") as socket:
        socket.send_text("one")
        assert socket.receive_text() == "one"
        vera, _ = people
        users.write_users(users_file, Users(users=(vera,)))
        socket.send_text("two")
        with pytest.raises(WebSocketDisconnect) as ended:
            socket.receive_text()
        assert ended.value.code == 4401
    assert client.get("/who").status_code == 401


def test_wrong_passwords_are_slowed_down_and_the_right_one_too(users_file):
    client, door, clock = guarded(users_file)
    outcomes = [log_in(client, password="wrong password").status_code for _ in range(8)]
    assert outcomes == [401] * 5 + [429] * 3
    answer = log_in(client)
    assert answer.status_code == 429
    assert "try again" in answer.text
    clock.now += 25
    assert log_in(client).status_code == 303
    assert door.counts["login"] == 5
    assert door.counts["rate"] == 4


def test_one_user_is_protected_from_many_addresses(users_file):
    _, door, _ = guarded(users_file)

    async def attack():
        for n in range(20):
            outcome = await door.log_in("otto", "wrong password", f"192.0.2.{n}")
            assert outcome.reason == "login"
        return await door.log_in("otto", "wrong password", "198.51.100.1")

    assert asyncio.run(attack()).reason == "rate"


def test_one_address_locks_nobody_else_out_however_often_it_tries(users_file):
    _, door, clock = guarded(users_file)

    async def attack():
        for _ in range(600):
            clock.now += 0.5
            await door.log_in("otto", "wrong password", "192.0.2.1")
        return await door.log_in("otto", PASSWORD, "198.51.100.1")

    assert isinstance(asyncio.run(attack()), LoggedIn)


def test_unknown_user_and_wrong_password_are_told_the_same(users_file):
    client, _, _ = guarded(users_file)
    unknown, wrong = log_in(client, name="nobody"), log_in(client, password="wrong password")
    assert unknown.status_code == wrong.status_code == 401
    nonces = r'nonce="[^"]*"'
    assert re.sub(nonces, "", unknown.text) == re.sub(nonces, "", wrong.text)


def test_token_is_the_programs_and_no_cookie_helps_out(users_file, people):
    made = make_token("ci", "viewer")
    users.write_users(users_file, Users(users=people, tokens=(made.entry,)))
    client, _, _ = guarded(users_file)
    with_token = {"authorization": f"Bearer {made.text}"}
    assert client.get("/who", headers=with_token).text == "ci viewer token"
    assert client.post("/who", headers=with_token).status_code == 403
    log_in(client)
    for wrong in ("Bearer x", "Basic b3R0bzp4", "Bearer", f"bearer  {made.text}"):
        assert client.get("/who", headers={"authorization": wrong}).status_code == 401, wrong


@pytest.mark.parametrize("setting", [False, True])
def test_every_answer_has_its_security_headers(users_file, setting):
    client, _, _ = guarded(users_file, tls=setting)
    answers = [client.get("/login"), client.get("/who"), client.get("/nothing")]
    log_in(client)
    answers += [client.get("/"), client.get("/who"), client.get("/", headers={"host": "evil"})]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "'unsafe-inline'" not in answer.headers["content-security-policy"].replace(
            "style-src 'self' 'unsafe-inline'", ""
        )
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers
        assert ("strict-transport-security" in answer.headers) == setting


def test_scripts_of_a_page_carry_a_nonce_that_is_new_each_time():
    client, _, _ = guarded()
    seen = set()
    for _ in range(3):
        answer = client.get("/")
        policy = answer.headers["content-security-policy"]
        nonce = policy.partition("'nonce-")[2].partition("'")[0]
        assert f'<script nonce="{nonce}">1</script>' in answer.text
        assert int(answer.headers["content-length"]) == len(answer.content)
        seen.add(nonce)
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-length": "2000000"}, 413),
        ({"content-length": "-5"}, 411),
        ({"content-length": "1e3"}, 411),
        ({"transfer-encoding": "chunked"}, 411),
        ({"host": "evil.net"}, 421),
        ({"origin": "http://evil.net"}, 403),
    ],
)
def test_request_that_is_out_of_bounds_is_refused(headers, status):
    async def ask():
        sent = []
        guard = guarded()[0].app
        given = {"host": "testserver", "origin": "http://testserver", "content-length": "0"}
        given |= headers
        scope = {
            "type": "http", "method": "POST", "scheme": "http", "path": "/who",
            "headers": [(n.encode(), v.encode()) for n, v in given.items()],
        }  # fmt: skip

        async def send(message):
            sent.append(message)

        await guard(scope, None, send)
        return sent[0]["status"]

    assert asyncio.run(ask()) == status


def test_header_that_comes_twice_is_refused():
    async def ask():
        sent = []
        guard = guarded()[0].app
        headers = [(b"host", b"testserver"), (b"host", b"evil.net")]
        scope = {"type": "http", "method": "GET", "path": "/who", "headers": headers}

        async def send(message):
            sent.append(message)

        await guard(scope, None, send)
        return sent[0]["status"]

    assert asyncio.run(ask()) == 400


def test_login_from_a_form_of_another_site_is_refused(users_file):
    client, door, _ = guarded(users_file)
    answer = client.post(
        "/login", data={"name": "otto", "password": PASSWORD}, headers={"origin": "http://evil.net"}
    )
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    del client.headers["origin"]
    assert log_in(client).status_code == 403, "a form that does not say where it comes from"
    assert door.counts["csrf"] == 1


def test_what_was_typed_or_asked_for_is_never_shown_as_markup(users_file):
    client, _, _ = guarded(users_file)
    for text in ('"><script>alert(1)</script>', "/a\"onfocus='x'"):
        for answer in (
            log_in(client, name=text, next=text),
            client.get("/login", params={"next": text}),
        ):
            assert "<script" not in answer.text
            assert "onfocus='" not in answer.text


def test_password_is_checked_on_another_thread_one_at_a_time(users_file, monkeypatch):
    """A login must not hold up pages, nor a hundred of them take a hundred times the memory."""
    _, door, _ = guarded(users_file)
    running, most = 0, 0

    def slow(user, password):
        nonlocal running, most
        assert threading.current_thread() is not threading.main_thread()
        running += 1
        most = max(most, running)
        time.sleep(0.005)  # long enough for another thread to meet this one
        running -= 1
        return True

    monkeypatch.setattr("cloud_service.guard.door.verify", slow)

    async def many():
        attempts = (door.log_in("otto", "x", f"192.0.2.{n}") for n in range(8))
        return await asyncio.gather(*attempts)

    outcomes = asyncio.run(many())
    assert all(isinstance(outcome, LoggedIn) for outcome in outcomes)
    assert most == 1
