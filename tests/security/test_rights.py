"""Whether the access table is exactly what nodes do: nothing is refused, and nothing is spare."""

import inspect
import re
import time

import pytest

from broker.mosquitto import free_port
from ddnn import access, topics
from ddnn.mqtt import Client
from ddnn.processes import stop_children
from ddnn.tls import TlsFiles
from tests.security.site import HOST, SITE, SecuredSite, make_site
from training.publish import publish_bundle

#: Topic functions that name what no broker carries, or more than one topic.
NOT_A_TOPIC = {"check_name", "matches", "site_of", "member_of", "check_prefix", "home_assistant_id"}
NOT_A_TOPIC |= {"discovery_filters"}
VALUES = {
    "site": SITE,
    "member": 0,
    "edge": 0,
    "node": "device-0",
    "sha256": "0" * 64,
    "chunk": 0,
    "worker": "cloud-0",
    "group": "cloud",
    "prefix": "homeassistant",
}


def every_access():
    yield "device-0", access.device(SITE, 0)
    yield "gateway", access.gateway(SITE, edges=True, home_assistant="homeassistant")
    yield "home-assistant", access.home_assistant(SITE, "homeassistant")
    yield "gateway-0", access.edge_gateway(SITE, 0)
    for name in ("publisher", "operator", "dashboard", "bridge"):
        yield name, getattr(access, name)(SITE)
    yield "cloud-0", access.worker("cloud-0", [SITE])
    yield access.SHOWING, access.showing([SITE])
    yield access.RECORDING, access.recording([SITE])


def topic_functions():
    for name, function in inspect.getmembers(topics, inspect.isfunction):
        if name not in NOT_A_TOPIC and not name.startswith("_"):
            arguments = inspect.signature(function).parameters
            yield name, function(*(VALUES.get(argument, 0) for argument in arguments))


@pytest.mark.parametrize(("name", "topic"), list(topic_functions()))
def test_every_topic_has_somebody_who_writes_it_and_somebody_who_reads_it(name, topic):
    if topic.startswith("$share/"):
        topic = topic.split("/", 2)[2]
    one = topic.replace("ddnn/+", f"ddnn/{SITE}").replace("+/x", f"{SITE}/x")
    for way in ("writes", "reads"):
        fits = [
            who
            for who, may in every_access()
            if any(topics.matches(f, one) or topics.matches(one, f) for f in getattr(may, way))
        ]
        assert fits, f"topics.{name}: nobody {way} {topic}; say who in ddnn/access.py"


@pytest.mark.parametrize(("who", "may"), list(every_access()))
def test_nobody_may_write_or_read_everything(who, may):
    for topic in (*may.writes, *may.reads):
        assert "#" not in topic
        assert not topic.startswith("+")
        assert topics.site_of(topic) == SITE or topic.startswith(("ddnn/_cloud/", "homeassistant/"))


class SiteWithDashboard(SecuredSite):
    def make(self):
        return make_site(self.folder, dashboard=True)


@pytest.mark.live
def test_nodes_of_a_running_site_do_what_the_table_says_and_nothing_else(tmp_path):
    """Read off the broker's own log."""
    with SiteWithDashboard(tmp_path, extra="\nlog_type all\n") as site:
        site.start(
            "_cloud.dashboard", "dashboard", "--database", str(tmp_path / "decisions.db"),
            "--http-port", str(free_port()),
        )  # fmt: skip
        with site.nothing_lost():
            time.sleep(0.5)
        recall = f"'{topics.recall(SITE)}'"
        site.wait(lambda: recall in site.broker.log_path.read_text(), "the dashboard's recall", 60)
        stop_children([site.children.pop("_cloud.dashboard")])
        place = site.folder / "nodes" / "_cloud.dashboard"
        shows = Client(HOST, site.broker.port, "any", tls=TlsFiles(
            place / "ca.crt", place / "node.crt", place / "node.key"
        ))  # fmt: skip
        shows.start()
        try:  # as a page does
            shows.wait_connected(10)
            shows.publish(topics.settings(SITE), b"{}", qos=1).wait_for_publish(5)
        finally:
            shows.stop()
        with site.client("publisher") as publisher:  # as `ddnn publish` and `ddnn retire` do
            for topic in (
                topics.manifest(SITE),
                topics.active(SITE),
                topics.section_filter(SITE),
                topics.status_filter(SITE),
                topics.worker_status_filter(),
            ):
                publisher.subscribe(topic, lambda _message: None)
            publish_bundle(publisher, SITE, site.bundle, 10)
        assert site.findings() == []
        exits = {d.exit for d in site.consumer.decisions.values()}
        assert {"edge", "cloud"} <= exits, "the test must use every topic"
    log = site.broker.log_path.read_text()
    assert "Denied" not in log
    writes, reads = seen(log)
    rights = {str(identity): may for identity, may in site.plan.identities().items()}
    for who, topic in writes:
        assert any(topics.matches(f, topic) for f in rights[who].writes), (who, topic)
    for who, topic in reads:
        assert any(topics.matches(f, of_site(topic)) for f in rights[who].reads), (who, topic)
    for who in (
        f"{SITE}.device-0", f"{SITE}.gateway", "_cloud.cloud-0", f"{SITE}.publisher",
        "_cloud.dashboard", "_cloud.records",
    ):  # fmt: skip
        for way, found in (("writes", writes), ("reads", reads)):
            there = {of_site(topic) for one, topic in found if one == who}
            wide = {topic for one, topic in found if one == who}
            for allowed in getattr(rights[who], way):
                used = any(topics.matches(allowed, topic) for topic in there)
                used = used or any(topics.matches(topic, allowed) for topic in wide)
                # For `ddnn doctor`, which does not run here.
                assert used or "/check/" in allowed, f"{who} never {way} {allowed}: too wide"


def of_site(topic):
    """A cloud worker subscribes to every site's; the broker hands it those of its own."""
    return re.sub(r"^(\$share/\w+/)?(ddnn/)?\+/", rf"\g<2>{SITE}/", topic)


def seen(log):
    """(identity, topic) of every publish, and of every subscription, in a broker's log."""
    writes = set(re.findall(r"Received PUBLISH from (\S+) \(.*?'([^']*)'", log))
    reads = set(re.findall(r": (\S+\.\S+) [012] (\S+)$", log, re.MULTILINE))
    return writes, reads
