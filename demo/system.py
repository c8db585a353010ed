"""The processes of a site: broker, cloud worker, gateways and one agent per camera."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from broker.mosquitto import LocalBroker
from ddnn.bundle import Topology
from ddnn.errors import DdnnError
from ddnn.place import edge_gateways, gateway_node
from ddnn.processes import Child, start_child, stop_children
from training.datasets.base import MultiCameraSet


class System:
    """Starts a site's processes and ends all of them when it is left, whatever happens.

    Args:
        folder: for logs, stores and the replay file; one log per process.
        replay: the replay file that the agents show.
        topology: how many agents and edge gateways. Where it sends pictures to the cloud the
            agents are told to allow that.
        site, period_s: of the site.
        gateway_options: further options of `ddnn gateway`.
        trusted_keys: file of the keys whose bundles are run; None: any bundle is.
    """

    def __init__(
        self,
        folder: Path,
        replay: Path,
        topology: Topology,
        *,
        site: str = "demo",
        period_s: float = 0.1,
        gateway_options: tuple[str, ...] = (),
        trusted_keys: Path | None = None,
    ) -> None:
        self.site = site
        self.folder = folder
        self.broker = LocalBroker(directory=folder / "broker")
        self.children: dict[str, Child] = {}
        self._replay = replay
        self._topology = topology
        self._common = ("--site", site, "--period-s", str(period_s))
        self._gateway_options = gateway_options
        self._trust = ("--trusted-keys", str(trusted_keys)) if trusted_keys else ()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.broker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop_services()
        finally:
            self.broker.stop()

    def start_services(self) -> None:
        """Start cloud worker, gateways and agents; they find bundle and each other by topics."""
        self.start("cloud-0", "cloud", "--worker", "cloud-0")
        self.start_gateway()
        for edge in edge_gateways(self._topology):
            self.start_gateway(edge)
        for camera in range(self._topology.cameras):
            self.start_device(camera)

    def start_dashboard(self, port: int) -> None:
        """Start the dashboard, with a database of its own."""
        database = str(self.folder / "decisions.db")
        self.start("dashboard", "dashboard", "--http-port", str(port), "--database", database)

    def start_gateway(self, edge: int | None = None) -> None:
        """Start (again) the site's gateway, or that of one of several edges."""
        own = () if edge is None else ("--edge", str(edge))
        self.start(gateway_node(edge), "gateway", *own, *self._common, *self._gateway_options)

    def start_device(self, camera: int) -> None:
        """Start (again) the agent of one camera."""
        self.start(
            f"device-{camera}",
            "device",
            *self._common,
            *("--camera", str(camera), "--source", f"replay:{self._replay}"),
            *(("--send-images", "true") if self._topology.sends_images else ()),
        )

    def start(self, name: str, *args: str) -> None:
        """Start one `ddnn` command as a process of its own, logging to `<name>.log`."""
        address = ("--broker", self.broker.host, "--port", str(self.broker.port))
        store = ("--store", str(self.folder / "stores" / name))
        self.children[name] = start_child(
            [sys.executable, "-m", "ddnn", *args, *address, *store, *self._trust],
            {"OMP_NUM_THREADS": "1"},
            self.folder / f"{name}.log",
        )

    def check_alive(self) -> None:
        """Raise if a process has ended by itself.

        Raises:
            DdnnError: which one, and the end of its log.
        """
        for name, child in self.children.items():
            if (code := child.poll()) is not None:
                log = self.folder / f"{name}.log"
                tail = "\n  ".join(log.read_text(errors="replace").splitlines()[-8:])
                raise DdnnError(f"{name} ended by itself with status {code}; {log} ends:\n  {tail}")

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Wait for `condition` while every process lives.

        Raises:
            DdnnError: a process ended, or it did not become true in time.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            self.check_alive()
            if time.monotonic() > deadline:
                raise DdnnError(
                    f"{what} took longer than {timeout_s:g} s; logs are in {self.folder}"
                )
            time.sleep(0.05)

    def stop_services(self) -> None:
        """End all services in good order: agents first, so that the gateway can still decide."""
        agents = [child for name, child in self.children.items() if name.startswith("device")]
        others = [child for name, child in self.children.items() if not name.startswith("device")]
        stop_children(agents)
        stop_children(others)
        self.children.clear()


def write_replay(path: Path, samples: MultiCameraSet) -> None:
    """Write `samples` as the file that replaying agents read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, images=samples.images, present=samples.present)
