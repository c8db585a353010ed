"""A whole site of real processes for a benchmark, with TLS as in production or without."""

from __future__ import annotations

import contextlib
import getpass
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from broker import site
from broker.mosquitto import LocalBroker
from broker.mosquitto import render_config as local_config
from broker.pki import now_utc
from broker.plan import BrokerPlan, Plan
from broker.production import render_config
from ddnn import topics
from ddnn.bundle import Bundle
from ddnn.mqtt import Client
from ddnn.processes import Child, start_child, stop_children
from ddnn.tls import TlsFiles
from demo.observer import Observer
from training.publish import publish_bundle

SITE = "s1"
#: Waits are long, so that a busy machine shows no degraded frame; frames complete early.
WAITS = ("--summary-wait-s", "5", "--features-wait-s", "5", "--answer-wait-s", "5")


class BenchSite:
    """Broker, gateway, worker and one agent per camera of a bundle with one edge or none.

    Args:
        folder: for logs and certificates.
        replay: what the agents show.
        tls: on the configuration that `ddnn site` makes, every node with its own certificate.
        device_options, gateway_options: further options of the agents and the gateway.
        prefix: words before a node's command, by its name.
        line_host: the broker's address for nodes with a prefix; None: loopback.
        offloaders: identities of cameras that have no agent.
    """

    def __init__(
        self,
        folder: Path,
        bundle: Bundle,
        replay: Path,
        *,
        period_s: float = 0.1,
        tls: bool = False,
        device_options: tuple[str, ...] = (),
        gateway_options: tuple[str, ...] = WAITS,
        prefix: Callable[[str], list[str]] = lambda name: [],
        line_host: str | None = None,
        offloaders: int = 0,
    ) -> None:
        self.bundle = bundle
        self.period_s = period_s
        self.children: dict[str, Child] = {}
        self._folder = folder
        self._replay = replay
        self._tls = tls
        self._device_options = device_options
        self._gateway_options = gateway_options
        self._prefix = prefix
        self._line_host = line_host
        self._stack = contextlib.ExitStack()
        cameras = bundle.manifest.topology.cameras
        folder.mkdir(parents=True, exist_ok=True)
        more = f"\nlistener $port {line_host}\n" if line_host else ""
        self.broker = LocalBroker(
            directory=folder / "broker",
            config=lambda port: local_config(port) + more.replace("$port", str(port)),
        )
        if tls:
            plan = Plan(
                site=SITE,
                period_s=period_s,
                cameras=tuple(range(cameras + offloaders)),
                workers=("cloud-0",),
                broker=BrokerPlan(
                    names=("127.0.0.1", "localhost"), bind="127.0.0.1", user=getpass.getuser()
                ),
            )
            site.init(folder / "site", plan)
            site.build(folder / "site", now_utc())

            def config(port: int) -> str:
                moved = msgspec.structs.replace(plan.broker, port=port)
                here = str((folder / "site/broker").resolve())
                return render_config(msgspec.structs.replace(plan, broker=moved), here)

            self.broker = LocalBroker(directory=folder / "broker", config=config)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.broker)
            stack.callback(lambda: stop_children(list(self.children.values())))
            with self.client("publisher") as publisher:
                publish_bundle(publisher, SITE, self.bundle, 10)
            watcher = stack.enter_context(self.client("dashboard", start=False))
            self.observer = Observer(watcher, SITE)
            watcher.start()
            self._start("_cloud.cloud-0", "cloud", "--worker", "cloud-0")
            self._start(f"{SITE}.gateway", "gateway", *self._common, *self._gateway_options)
            topology = self.bundle.manifest.topology
            for camera in range(topology.cameras):
                self._start(
                    f"{SITE}.device-{camera}", "device", *self._common, "--camera", str(camera),
                    "--source", f"replay:{self._replay}", *self._device_options,
                )  # fmt: skip
            self.wait(
                lambda: self.observer.ready(SITE, topology, self.bundle.bundle_id), "starting", 60
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def _common(self) -> tuple[str, ...]:
        return ("--site", SITE, "--period-s", str(self.period_s))

    def _files(self, identity: str) -> TlsFiles | None:
        place = self._folder / "site/nodes" / identity
        if not self._tls:
            return None
        return TlsFiles(place / "ca.crt", place / "node.crt", place / "node.key")

    def _start(self, identity: str, *command: str) -> None:
        name = identity.partition(".")[2]
        prefix, host = self._prefix(name), self.broker.host
        options = []
        if prefix and self._line_host:
            host = self._line_host
            options += ["--allow-unsigned", "true"]  # it takes the broker for another machine
        options += ["--broker", host, "--port", str(self.broker.port)]
        if files := self._files(identity):
            for option, path in zip(("ca", "cert", "key"), files, strict=False):
                options += [f"--tls-{option}", str(path)]
        self.children[name] = start_child(
            [*prefix, sys.executable, "-m", "ddnn", *command, *options],
            {"OMP_NUM_THREADS": "1"},
            self._folder / f"{name}.log",
        )

    @contextlib.contextmanager
    def client(self, node: str, *, start: bool = True) -> Iterator[Client]:
        """A client of one of the site's identities."""
        identity = f"{SITE}.{node}"
        tls = self._files(identity)
        client = Client(self.broker.host, self.broker.port, f"{identity}-bench", tls=tls)
        try:
            if start:
                client.start()
                client.wait_connected(10)
            yield client
        finally:
            client.stop()

    def begin_replay(self, operator: Client, after_s: float = 2.0) -> int:
        """Have all agents begin with the same slot; which one it is."""
        first_slot = int((time.time() + after_s) / self.period_s) + 1
        start = msgspec.json.encode({"first_slot": first_slot})
        operator.publish(topics.replay(SITE), start, qos=1, retain=True).wait_for_publish(5)
        return first_slot

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Wait for `condition` while every process lives.

        Raises:
            SystemExit: a process ended, or it did not become true in time.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            for name, child in self.children.items():
                if (code := child.poll()) is not None:
                    tail = (self._folder / f"{name}.log").read_text()[-1500:]
                    raise SystemExit(f"{name} ended by itself with status {code}:\n{tail}")
            if time.monotonic() > deadline:
                raise SystemExit(f"{what} took longer than {timeout_s:g} s")
            time.sleep(0.02)
