"""A site's services as threads of the test around a real mosquitto: quick to start."""

import threading
import time
from contextlib import ExitStack

import msgspec

from broker.mosquitto import LocalBroker
from cloud_service.service import CloudService, CloudSettings
from ddnn import topics
from ddnn.mqtt import Client
from ddnn.place import edge_gateways
from demo.observer import Observer
from demo.system import write_replay
from device_agent.service import DeviceService, DeviceSettings
from edge_gateway.service import GatewayService, GatewaySettings
from training.publish import publish_bundle

SITE = "site"
WAITS = {"summary_wait_s": 5.0, "features_wait_s": 5.0, "answer_wait_s": 5.0}


class Site:
    """Broker, observer, and the services of a topology from `run` on.

    Attributes:
        first: the slot in which the replay began.
    """

    def __init__(self, folder, samples, period_s):
        self.folder, self.samples, self.period_s = folder, samples, period_s
        self.first = None
        self._stop = threading.Event()
        self._threads = []
        self._stack = ExitStack()

    def __enter__(self):
        self.broker = LocalBroker(directory=self.folder / "broker")
        self.broker.start()
        self._stack.callback(self.broker.stop)
        self.client = Client(self.broker.host, self.broker.port, "observer")
        self.observer = Observer(self.client, SITE)
        self.client.start()
        self._stack.callback(self.client.stop)
        self.client.wait_connected(10)
        self._stack.callback(self._end)
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _end(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def publish(self, bundle):
        publish_bundle(self.client, SITE, bundle, 10)

    def run(self, bundle):
        """Publish the bundle, start everything and the replay."""
        self.publish(bundle)
        topology = bundle.manifest.topology
        write_replay(self.folder / "replay.npz", self.samples)
        for service, settings in self._services(topology):
            made = service(settings, self._stop)
            self._threads.append(threading.Thread(target=made.run, daemon=True))
            self._threads[-1].start()
        wait(lambda: self.observer.ready(SITE, topology, bundle.bundle_id), "starting")
        self.first = int((time.time() + 0.3) / self.period_s) + 1
        payload = msgspec.json.encode({"first_slot": self.first})
        self.client.publish(topics.replay(SITE), payload, qos=1, retain=True)

    def _services(self, topology):
        where = {"broker": self.broker.host, "port": self.broker.port}
        site = {**where, "site": SITE, "period_s": self.period_s}
        yield CloudService, CloudSettings(**where)
        for edge in (None, *edge_gateways(topology)):
            # An audit, one in a hundred by chance, has bytes and requests that tests would count.
            yield GatewayService, GatewaySettings(edge=edge, audit_share=0.0, **WAITS, **site)
        source = f"replay:{self.folder / 'replay.npz'}"
        allowed = topology.sends_images
        for camera in range(topology.cameras):
            settings = DeviceSettings(camera=camera, source=source, send_images=allowed, **site)
            yield DeviceService, settings

    def decisions(self):
        """By sample, as far as there are any."""
        return {slot - self.first: seen.decision for slot, seen in self.observer.decisions.items()}


def wait(condition, what, timeout_s=30):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} took longer than {timeout_s} s"
        time.sleep(0.02)


def ended(ledger):
    return sum(ledger.get(name, 0) for name in ("decided", "degraded", "expired"))


def assert_equal(decisions, expected, classes):
    """Decisions by sample are those of `ddnn.evaluate`."""
    for n, decision in decisions.items():
        wanted = (None, None, None)
        if expected.label[n] >= 0:
            entropy = round(float(expected.entropy[n]), 6)
            wanted = (classes[expected.label[n]], expected.exit[n], entropy)
        assert (decision.label, decision.exit, decision.entropy) == wanted, f"sample {n}"
