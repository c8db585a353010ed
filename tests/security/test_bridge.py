"""A site whose cloud is behind a second broker: two real brokers, the generated bridge between."""

import shutil
import time

import pytest

from broker.plan import Upstream
from ddnn import topics
from tests.security.site import HOST, SITE, Consumer, SecuredSite, broker_of, make_site

pytestmark = [pytest.mark.security, pytest.mark.timeout(120)]


class BridgedSite(SecuredSite):
    """Workers are at a cloud broker with an authority of its own, and so is a second consumer."""

    def __init__(self, folder):
        self.cloud = folder / "cloud"
        self.cloud_plan = make_site(
            self.cloud, site="", cameras=(), workers=("cloud-0",), bridged_sites=(SITE,)
        )
        self.cloud_broker = broker_of(self.cloud, self.cloud_plan, "\nlog_type all\n")
        self.cloud_broker.start()
        super().__init__(folder, extra="\nlog_type all\n")
        # What the two owners do: hand over the bridge's folder, and say where the cloud is.
        shutil.copytree(self.cloud / "nodes" / f"{SITE}.bridge", self.folder / "broker" / "bridge")

    def make(self):
        return make_site(
            self.folder,
            workers=(),
            upstream=Upstream(host=HOST, port=self.cloud_broker.port),
        )

    def start(self, identity, command, *options):
        if command == "cloud":
            super().start(identity, command, *options, folder=self.cloud, broker=self.cloud_broker)
        else:
            super().start(identity, command, *options)

    def __exit__(self, *error):
        super().__exit__(*error)
        self.cloud_broker.stop()


@pytest.fixture(scope="module")
def bridged(tmp_path_factory):
    with BridgedSite(tmp_path_factory.mktemp("bridged")) as running:
        yield running


def test_escalations_go_up_and_answers_come_down(bridged):
    with bridged.nothing_lost(slots=40):
        pass
    exits = [d.exit for d in bridged.consumer.decisions.values()]
    assert "cloud" in exits
    assert bridged.findings() == []


def test_no_frame_of_a_camera_crosses_the_bridge(bridged):
    log = bridged.cloud_broker.log_path.read_text()
    assert f"'{topics.escalation(SITE)}'" in log
    assert f"'{topics.decision(SITE)}'" in log
    for stream in ("s", "f", "q"):
        assert f"'{SITE}/{stream}/" not in log
    assert "Denied" not in log


def test_cloud_broker_away_for_a_while(bridged):
    """Decisions go on without the cloud, and those made meanwhile arrive up there afterwards."""
    first = bridged.now_slot
    bridged.cloud_broker.kill()
    time.sleep(3)
    away = bridged.now_slot
    bridged.cloud_broker.start()
    wanted = away - first + 1
    bridged.wait(lambda: len(bridged.consumer.between(first, away)) == wanted, "every slot", 20)
    above = Consumer(bridged.cloud, bridged.cloud_broker.port)
    try:
        above.recall(first)
        bridged.wait(lambda: len(above.between(first, away)) == wanted, "the same above", 40)
        bridged.wait(
            lambda: any(
                d.exit == "cloud" and not d.degraded
                for d in bridged.consumer.between(bridged.now_slot - 20, bridged.now_slot)
            ),
            "the cloud's answers again",
            40,
        )
        assert above.between(first, away) == bridged.consumer.between(first, away)
    finally:
        above.client.stop()
