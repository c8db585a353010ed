"""The six shapes of the paper's Figure 2: trained, exported, run over a real broker.

For each preset: the command trains it for an epoch on a little of the built-in set; thresholds are
then set so that every exit takes its share; services replay the samples through mosquitto; every
decision must be the one that `ddnn.evaluate` makes of the same bundle.
"""

import threading
import time
from contextlib import ExitStack

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")

from broker.mosquitto import LocalBroker
from cloud_service.service import CloudService, CloudSettings
from ddnn import topics
from ddnn.cli import main
from ddnn.evaluate import Evaluator
from ddnn.mqtt import Client
from ddnn.place import edge_gateways
from ddnn.store import read_folder
from demo.observer import Observer
from demo.system import write_replay
from device_agent.service import DeviceService, DeviceSettings
from edge_gateway.service import GatewayService, GatewaySettings
from tests.bundles import every_exit_used
from training.datasets.load import load
from training.preset import one_camera, presets
from training.publish import publish_bundle

pytestmark = pytest.mark.live
PERIOD_S = 0.04
WAITS = {"summary_wait_s": 5.0, "features_wait_s": 5.0, "answer_wait_s": 5.0}
EXITS = {
    "a-cloud-only": {"cloud"},
    "b-device-cloud": {"local", "cloud"},
    "c-devices-cloud": {"local", "cloud"},
    "d-device-edge-cloud": {"local", "edge", "cloud"},
    "e-devices-edge-cloud": {"local", "edge", "cloud"},
    "f-devices-edges-cloud": {"local", "edge", "cloud"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A little of the built-in set, as a file, with some views of the test part lost."""
    samples = load("generated")
    few = samples.subset(np.concatenate([samples.train[:96], samples.test[:48]]))
    lost = np.random.default_rng(5).random(few.present.shape) < 0.25
    lost[few.train] = False
    lost[few.test[7]] = True  # and one that nobody sees
    few.images[lost] = 0
    few.present[lost] = few.seen[lost] = False
    path = tmp_path_factory.mktemp("shapes") / "few.npz"
    few.save(path)
    return path


def train(preset, data, folder):
    """The bundle that the command makes, and the samples to replay."""
    arguments = ["train", "--preset", preset, "--data", data, "--out", folder / "bundle"]
    arguments += ["--epochs", 1, "--run-dir", folder / "runs"]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    samples = load(str(data))
    if presets()[preset].one_camera:
        samples = samples.select_cameras([one_camera(samples)])
    test = samples.subset(samples.test)
    return every_exit_used(read_folder(folder / "bundle"), test.images, test.present), test


def services(broker, replay, topology):
    """Every service of a site, in this process."""
    where = {"broker": broker.host, "port": broker.port}
    site = {**where, "site": "shape", "period_s": PERIOD_S}
    yield CloudService, CloudSettings(**where)
    for edge in (None, *edge_gateways(topology)):
        yield GatewayService, GatewaySettings(edge=edge, **WAITS, **site)
    for camera in range(topology.cameras):
        yield (
            DeviceService,
            DeviceSettings(
                camera=camera, source=f"replay:{replay}", send_images=topology.sends_images, **site
            ),
        )


def replay(bundle, samples, folder):
    """Decisions by sample, and the ledger at the end."""
    write_replay(folder / "replay.npz", samples)
    topology = bundle.manifest.topology
    stop = threading.Event()
    threads = []
    with LocalBroker(directory=folder / "broker") as broker, ExitStack() as stack:
        client = Client(broker.host, broker.port, "observer")
        observer = Observer(client, "shape")
        client.start()
        stack.callback(client.stop)
        client.wait_connected(10)
        publish_bundle(client, "shape", bundle, 10)

        def end():
            stop.set()
            for thread in threads:
                thread.join(10)

        stack.callback(end)
        for service, settings in services(broker, folder / "replay.npz", topology):
            threads.append(threading.Thread(target=service(settings, stop).run, daemon=True))
            threads[-1].start()
        wait(lambda: observer.ready("shape", topology, bundle.bundle_id), "starting")
        first = int((time.time() + 0.3) / PERIOD_S) + 1
        payload = msgspec.json.encode({"first_slot": first})
        client.publish(topics.replay("shape"), payload, qos=1, retain=True)
        wait(lambda: len(observer.decisions) >= len(samples), "all decisions")
        wait(lambda: ended(observer.ledger) >= len(samples), "the ledger")
        seen = observer.decisions
        return [seen[first + n].decision for n in range(len(samples))], observer.ledger


def wait(condition, what, timeout_s=30):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} took longer than {timeout_s} s"
        time.sleep(0.02)


def ended(ledger):
    return sum(ledger.get(name, 0) for name in ("decided", "degraded", "expired"))


def assert_equal(decisions, expected, classes):
    for n, decision in enumerate(decisions):
        wanted = (None, None, None)
        if expected.label[n] >= 0:
            entropy = round(float(expected.entropy[n]), 6)
            wanted = (classes[expected.label[n]], expected.exit[n], entropy)
        assert (decision.label, decision.exit, decision.entropy) == wanted, f"sample {n}"


@pytest.mark.parametrize("preset", EXITS)
def test_every_decision_of_the_shape_equals_the_evaluation(preset, data, tmp_path):
    bundle, samples = train(preset, data, tmp_path)
    expected = Evaluator(bundle).evaluate(samples.images, samples.present)
    seen = samples.present.any(axis=1)
    assert set(expected.exit[seen]) == EXITS[preset], "the test must use every exit"

    decisions, ledger = replay(bundle, samples, tmp_path)

    assert_equal(decisions, expected, bundle.manifest.classes)
    assert ledger["opened"] == ledger["decided"] == len(samples)
    several = len(bundle.manifest.topology.edges) > 1
    assert {d.members for d in decisions} == {"edges" if several else "cameras"}


def test_all_presets_are_tested():
    assert set(presets()) == set(EXITS)
