"""Every service of a running site shows its metrics, and they agree with what it published."""

import urllib.request

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from broker.mosquitto import free_port
from ddnn.metrics import TABLE
from tests.bundles import random_bundle
from tests.live.in_process import Site, ended, wait
from tests.live.test_system import CAMERAS, scenes
from tests.promtool import promtool

pytestmark = pytest.mark.live
SAMPLES = 60


class MeasuredSite(Site):
    """A site whose services all serve metrics; `ports` by node."""

    def _services(self, topology):
        self.ports = {}
        for service, settings in super()._services(topology):
            node = service.__name__
            if service.__name__ == "DeviceService":
                node += str(settings.camera)
            self.ports[node] = free_port()
            yield service, msgspec.structs.replace(settings, metrics_port=self.ports[node])

    def read(self, node):
        """One node's metrics as text."""
        address = f"http://127.0.0.1:{self.ports[node]}/metrics"
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.read().decode()


def by_name(text):
    found = {}
    for family in parse(text):
        for sample in family.samples:
            labels = tuple(
                sorted((k, v) for k, v in sample.labels.items() if k not in ("site", "node"))
            )
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_metrics_of_a_running_site_agree_with_its_decisions(tmp_path):
    bundle = random_bundle(cameras=CAMERAS)
    with MeasuredSite(tmp_path, scenes(SAMPLES), 0.05) as site:
        site.run(bundle)
        wait(lambda: ended(site.observer.ledger) >= SAMPLES, "deciding")
        texts = {node: site.read(node) for node in site.ports}
        decisions = [seen.decision for seen in site.observer.decisions.values()]
        ledger = site.observer.ledger

    for text in texts.values():
        assert promtool("check", "metrics", stdin=text.encode()).returncode == 0
        ours = {family.name for family in parse(text) if family.name.startswith("ddnn_")}
        assert ours <= {name.removesuffix("_total") for name in TABLE}
    gateway, worker = by_name(texts["GatewayService"]), by_name(texts["CloudService"])
    for name in ("local", "edge", "cloud"):
        count = sum(decision.exit == name for decision in decisions)
        assert gateway["ddnn_decisions_total"][(("exit", name),)] == count
        assert gateway["ddnn_decision_entropy_ratio_count"][(("exit", name),)] == count
    ends = gateway["ddnn_slots_ended_total"]
    assert ends[(("end", "decided"),)] == ledger["decided"]
    assert gateway["ddnn_slots_opened_total"][()] == sum(ends.values())
    assert gateway["ddnn_payload_bytes_total"][()] == sum(d.payload_bytes for d in decisions)
    assert gateway["ddnn_raw_offload_bytes_total"][()] > gateway["ddnn_payload_bytes_total"][()]
    assert gateway["ddnn_decision_seconds_count"][()] == len(decisions)
    members = gateway["ddnn_member_up"]
    assert members == {(("member", f"device-{n}"),): 1 for n in range(CAMERAS)}
    assert gateway["ddnn_rollout_state"][(("state", "settled"),)] == 1
    assert gateway["ddnn_bundle_version"][()] == bundle.manifest.version
    assert gateway["ddnn_broker_connected"][()] == 1
    asked = sum(decision.exit == "cloud" for decision in decisions)
    assert worker["ddnn_worker_requests_total"][(("result", "answered"),)] == asked
    for camera in range(CAMERAS):
        device = by_name(texts[f"DeviceService{camera}"])
        assert device["ddnn_summaries_total"][(("result", "sent"),)] == SAMPLES
        assert device["ddnn_view_seconds_count"][()] >= SAMPLES
        image = bundle.manifest.image
        raw = image.height * image.width * image.channels * SAMPLES
        assert device["ddnn_raw_offload_bytes_total"][()] == raw
