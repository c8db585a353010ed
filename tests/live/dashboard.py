"""`ddnn dashboard` as a process of its own, for tests."""

import contextlib
import http.client
import json
import ssl
import sys
import time

from broker.mosquitto import free_port
from cloud_service.guard import users
from cloud_service.guard.users import Users, make_token, make_user
from ddnn.processes import start_child, stop_children

PASSWORD = "correct horse battery"
READY_WITHIN_S = 60.0


class DashboardProcess:
    """Starts it with these options and waits until it answers; `log` is what it says.

    Args:
        folder: for log, database and users.
        broker: `broker.mosquitto.LocalBroker`, started or not.
        people: whether users are set up: otto (operator), vera (viewer), and `token` of a viewer.
        options: of `ddnn dashboard`.
    """

    def __init__(self, folder, broker, *options, people=False, port=None, tls_ca=None):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, port or free_port()
        self.metrics_port = free_port()
        self.tls_ca = tls_ca
        self.database = folder / "decisions.db"
        self._options = [
            "--http-port", str(self.port), "--metrics-port", str(self.metrics_port),
            "--database", str(self.database), "--node", f"dashboard-{self.port}", *options,
        ]  # fmt: skip
        if broker is not None:
            self._options += ["--broker", broker.host, "--port", str(broker.port)]
        self.users_file = folder / "users.json"
        self.token = ""
        if people:
            made = make_token("probe", "viewer")
            self.token = made.text
            everybody = (
                make_user("otto", "operator", PASSWORD),
                make_user("vera", "viewer", PASSWORD),
            )
            users.write_users(self.users_file, Users(users=everybody, tokens=(made.entry,)))
            self._options += ["--users", str(self.users_file)]

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        stop_children([self.child])

    def start(self):
        command = [sys.executable, "-m", "ddnn", "dashboard", *self._options]
        self.child = start_child(command, {}, self.folder / "dashboard.log")
        deadline = time.monotonic() + READY_WITHIN_S
        while True:
            with contextlib.suppress(OSError):
                if self.ask("/healthz")[0] == 200:
                    return
            assert self.child.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.1)

    def stop(self):
        """End it as systemd does; its exit code."""
        self.child.terminate()
        return self.child.wait(20)

    @property
    def log(self):
        return (self.folder / "dashboard.log").read_text()

    @property
    def origin(self):
        return f"{'https' if self.tls_ca else 'http'}://localhost:{self.port}"

    def ask(self, path, method="GET", body=None, headers=None, host="localhost"):
        """(status, headers, body) of one request; nothing is added but what HTTP needs."""
        if self.tls_ca:
            context = ssl.create_default_context(cafile=self.tls_ca)
            made = http.client.HTTPSConnection("localhost", self.port, context=context, timeout=30)
        else:
            made = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(made):
            made.request(method, path, body, {"Host": f"{host}:{self.port}"} | (headers or {}))
            answer = made.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode()

    def api(self, path, **headers):
        """JSON of the API, with the token where there is one."""
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        status, _, body = self.ask(f"/api/v1{path}", headers=headers)
        assert status == 200, (status, body)
        return json.loads(body)

    def log_in(self, name="otto", password=PASSWORD, **headers):
        """(status, cookie) of a login."""
        kind = {"Content-Type": "application/x-www-form-urlencoded", "Origin": self.origin}
        body = f"name={name}&password={password.replace(' ', '+')}&next=/"
        status, found, _ = self.ask("/login", "POST", body, kind | headers)
        found = {key.lower(): value for key, value in found.items()}
        return status, found.get("set-cookie", "").partition(";")[0]
