"""A small server for the pages, in the process of the tests: one, since NiceGUI has one app."""

import socket
import threading
import time

import uvicorn
from fastapi import FastAPI
from nicegui import ui

from cloud_service.pages import RUN_OPTIONS, add_pages


class PageServer:
    """Serves the pages on a free port of this machine.

    Attributes:
        may_tune: whether readers may change settings.
        sent: what the pages have published: (topic, payload, retain).
        send: does it, too, if set.
    """

    def __init__(self, overview, records=None):
        self.overview = overview
        self.may_tune = True
        self.sent = []
        self.send = None
        app = FastAPI()
        add_pages(overview, records, self._publish, lambda _request: self.may_tune)
        ui.run_with(app, **RUN_OPTIONS)
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(app, log_level="warning", server_header=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def _publish(self, topic, payload, retain):
        self.sent.append((topic, payload, retain))
        if self.send:
            self.send(topic, payload, retain)

    def url(self, path="/"):
        return f"http://{self.host}{path}"

    def __enter__(self):
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.02)
        return self

    def __exit__(self, *_):
        self._server.should_exit = True
        self._thread.join(10)
