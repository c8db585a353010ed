"""Home Assistant's side of a real broker: it finds the site, loses it, and finds it again."""

import queue
import threading

import pytest

from broker.mosquitto import LocalBroker
from ddnn import topics
from ddnn.message import Publish
from ddnn.mqtt import Client
from edge_gateway.service import GatewayService, GatewaySettings
from tests.bundles import random_bundle
from tests.home_assistant_schema import problems, rendered
from tests.live.in_process import wait
from training.publish import publish_bundle

pytestmark = pytest.mark.live
SITE, PREFIX = "home", "homeassistant"
TOPIC = f"{PREFIX}/device/ddnn_{SITE}/config"


class HomeAssistant:
    """Subscribes to what Home Assistant subscribes to."""

    def __init__(self, broker):
        self.configs = queue.Queue()
        self.available = []
        self.client = Client(broker.host, broker.port, "home-assistant")
        for topic_filter in topics.discovery_filters(PREFIX):
            self.client.subscribe(topic_filter, self.configs.put)
        self.client.subscribe(topics.status(SITE, "gateway"), self._on_status)
        self.client.start()
        self.client.wait_connected(10)

    def _on_status(self, message):
        self.available.append(rendered("{{ value_json.state }}", message.payload))

    def next_config(self):
        message = self.configs.get(timeout=15)
        assert message.topic == TOPIC
        assert message.payload == b"" or problems(message.payload) == []
        return message.payload

    def start_again(self):
        self.client.send(Publish(topics.home_assistant_status(PREFIX), b"online", qos=1))


class Gateway:
    """The gateway as a thread, with a store that outlives it."""

    def __init__(self, broker, store, **options):
        settings = GatewaySettings(
            broker=broker.host, port=broker.port, site=SITE, store=str(store), **options
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=GatewayService(settings, self._stop).run)

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(15)


def test_site_is_found_resent_after_a_birth_and_removed_when_turned_off(tmp_path):
    with LocalBroker(directory=tmp_path / "broker") as broker:
        home = HomeAssistant(broker)
        try:
            with Gateway(broker, tmp_path / "store", home_assistant=True):
                publish_bundle(home.client, SITE, random_bundle(cameras=2), 10)
                first = home.next_config()
                assert b"camera_1" in first
                assert b"camera_2" not in first
                home.start_again()
                assert home.next_config() == first
                home.client.send(Publish(topics.home_assistant_status(PREFIX), b"offline"))
                next_bundle = random_bundle(cameras=3, seed=5, version=2)
                publish_bundle(home.client, SITE, next_bundle, 10)
                second = home.next_config()
                assert b"camera_2" in second
                wait(lambda: home.available[-1:] == ["online"], "being available")
            wait(lambda: home.available[-1] == "offline", "being unavailable")
            with Gateway(broker, tmp_path / "store", home_assistant=True):
                assert home.next_config() == second  # before any publisher is heard of
            with Gateway(broker, tmp_path / "store"):
                assert home.next_config() == b""
            later = HomeAssistant(broker)
            later.client.stop()
            assert later.configs.empty(), "nothing is retained any more"
        finally:
            home.client.stop()
