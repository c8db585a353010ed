"""The agent of the built wheel on emulated arm64 processors. Called by `make test-arm64`.

    python -m tests.arm64.agent ROOT

ROOT is what `scripts/fetch-arm64` made. It gets what `make deploy` ships to a Raspberry Pi: the
wheel of this checkout and the aarch64 wheels that its extra `device` needs, installed by pip. The
agent runs there, emulated, with a broker of this machine; it takes the reference bundle from that,
is shown random pictures, and is asked for the features of each. Summaries and features must be
those of this machine, bit for bit. Exit status 1 where anything differs.
"""

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from broker.mosquitto import LocalBroker
from ddnn import topics, wire
from ddnn.mqtt import Client
from ddnn.processes import start_child, stop_children
from ddnn.store import read_folder
from ddnn.wire import Flag, Kind
from device_agent.agent import Agent
from tests.wheelhouse import install
from training.publish import publish_bundle

REPOSITORY = Path(__file__).resolve().parents[2]
PROCESSORS = ("cortex-a72", "cortex-a76")
SITE, CAMERA, SAMPLES = "arm", 0, 40
#: Slow enough for an emulated processor.
PERIOD_S = 0.5
START_TIMEOUT_S = 180


def pictures():
    """(SAMPLES, 32, 32, 3) uint8: noise of several strengths, the first ones of one shade."""
    rng = np.random.default_rng(8)
    low, high = rng.integers(0, 128, (2, SAMPLES, 1, 1, 1))
    images = rng.integers(low, low + high + 1, (SAMPLES, 32, 32, 3)).astype(np.uint8)
    images[0], images[1] = 0, 255
    return images


def expected(bundle, images):
    """This machine's summary bodies and features."""
    agent = Agent(CAMERA, boot=0, ring_slots=SAMPLES)
    agent.load(bundle)
    summaries = [wire.decode(agent.view(slot, image)).body for slot, image in enumerate(images)]
    features = []
    for slot in range(len(images)):
        request = wire.decode(wire.encode(Kind.REQUEST, tag=bundle.tag, boot=0, slot=slot))
        features.append(wire.decode(agent.features(request, slot)).body)
    return summaries, features


class Seen:
    """The frames that came from the agent, by sample."""

    def __init__(self, client, first_slot):
        self.summaries, self.features = {}, {}
        self.all = threading.Event()
        self._client, self._first = client, first_slot
        client.subscribe(topics.summary(SITE, CAMERA), self._on_frame)
        client.subscribe(topics.features(SITE, CAMERA), self._on_frame)

    def _on_frame(self, message):
        frame = wire.decode(message.payload)
        slot = wire.unwrap_slot(frame.slot, self._first)
        kept = self.summaries if frame.kind is Kind.SUMMARY else self.features
        kept[slot - self._first] = b"absent" if frame.flags & Flag.ABSENT else frame.body
        if frame.kind is Kind.SUMMARY:
            request = wire.encode(Kind.REQUEST, tag=frame.tag, boot=0, slot=frame.slot)
            self._client.publish(topics.request(SITE, CAMERA), request, qos=1)
        if len(self.features) == SAMPLES:
            self.all.set()


def run(root, processor, broker, log):
    """What the emulated agent sent."""
    client = Client(broker.host, broker.port, f"test-{processor}")
    client.start()
    client.wait_connected(10)
    change_root = ["chroot", str(root)]
    if os.geteuid():  # a namespace in which we are root
        change_root = ["unshare", "--map-root-user", f"--root={root}"]
    interpreter = (root / "interpreter").read_text().strip()
    agent = start_child(
        [
            *change_root, "/qemu", "-cpu", processor, f"/usr/bin/{interpreter}", "-m", "ddnn",
            "device", "--site", SITE, "--camera", str(CAMERA), "--broker", broker.host,
            "--port", str(broker.port), "--period-s", str(PERIOD_S),
            "--source", "replay:/work/replay.npz",
        ],
        {
            "PYTHONPATH": "/app", "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8",
            "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
        },
        log,
    )  # fmt: skip
    try:
        ready = threading.Event()
        client.subscribe(
            topics.status(SITE, f"device-{CAMERA}"),
            lambda message: ready.set() if b'"bundle"' in message.payload else None,
        )
        if not ready.wait(START_TIMEOUT_S):
            sys.exit(f"{processor}: the agent does not run the bundle:\n{log.read_text()[-2000:]}")
        first_slot = int(time.time() / PERIOD_S) + 4
        seen = Seen(client, first_slot)
        client.publish(topics.replay(SITE), b'{"first_slot":%d}' % first_slot, qos=1)
        seen.all.wait(SAMPLES * PERIOD_S + 60)
        return seen.summaries, seen.features
    finally:
        stop_children([agent])
        client.publish(topics.status(SITE, f"device-{CAMERA}"), b"", qos=1, retain=True)
        client.stop()


def main():
    root = Path(sys.argv[1]).resolve()
    python = (root / "interpreter").read_text().strip().removeprefix("python")
    packages = install("device", "aarch64", python, root / "app")
    print(f"installed for aarch64: {', '.join(packages)}")
    bundle, images = read_folder(REPOSITORY / "models" / "reference"), pictures()
    np.savez(
        root / "work" / "replay.npz", images=images[:, None], present=np.ones((SAMPLES, 1), bool)
    )
    want = expected(bundle, images)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder, LocalBroker() as broker:
        client = Client(broker.host, broker.port, "publisher")
        client.start()
        client.wait_connected(10)
        publish_bundle(client, SITE, bundle, 10)
        for processor in PROCESSORS:
            begin = time.monotonic()
            log = Path(folder) / f"{processor}.log"
            got = run(root, processor, broker, log)
            for name, theirs, ours in zip(("summaries", "features"), got, want, strict=True):
                same = sum(theirs.get(sample) == body for sample, body in enumerate(ours))
                wrong += len(ours) - same
                print(f"agent on {processor}: {same} of {len(ours)} {name} are those of x86-64")
            print(f"  ({time.monotonic() - begin:.0f} s)")
            if wrong:
                print(log.read_text()[-2000:])
        client.stop()
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
