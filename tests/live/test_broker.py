"""A real mosquitto: it starts, applies its configuration, crashes, comes back, and never stays."""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties

from broker.mosquitto import HOST, LocalBroker
from ddnn.errors import DdnnError
from ddnn.processes import start_child, stop_children

pytestmark = [pytest.mark.live, pytest.mark.timeout(60)]

REPOSITORY = Path(__file__).resolve().parents[2]
MAX_PACKET_BYTES = 2 * 1024 * 1024


class Client:
    """A paho client that records what happens to it."""

    def __init__(self, broker: LocalBroker, subscribe: str | None = None) -> None:
        self.messages: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.connect_properties: queue.Queue[Properties] = queue.Queue()
        self.disconnected = threading.Event()
        self.paho = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        subscribed = threading.Event()

        def on_connect(client, _userdata, _flags, _reason, properties):
            self.connect_properties.put(properties)
            if subscribe is not None:
                client.subscribe(subscribe, qos=1)

        self.paho.on_connect = on_connect
        self.paho.on_subscribe = lambda *_: subscribed.set()
        self.paho.on_message = lambda *args: self.messages.put((args[2].topic, args[2].payload))
        self.paho.on_disconnect = lambda *_: self.disconnected.set()
        self.paho.connect(broker.host, broker.port)
        self.paho.loop_start()
        if subscribe is not None:
            assert subscribed.wait(5)

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        self.paho.publish(topic, payload, qos=1, retain=retain).wait_for_publish(5)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()


def is_alive(pid: int) -> bool:
    """Whether the process runs (a zombie that nobody has collected yet does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def wait_until(condition: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def test_message_goes_through():
    with LocalBroker() as broker, Client(broker, "a/#") as client:
        client.publish("a/b", b"hello")
        assert client.messages.get(timeout=5) == ("a/b", b"hello")
    assert not broker.is_running


def test_two_brokers_at_once_do_not_share_anything():
    with LocalBroker() as one, LocalBroker() as two:
        assert one.port != two.port
        with Client(one) as publisher, Client(two, "#") as listener:
            publisher.publish("a", b"for one")
            with pytest.raises(queue.Empty):
                listener.messages.get(timeout=0.3)


def test_listens_on_loopback_only():
    # Another loopback address stands for the network's addresses, which a test machine may lack.
    with LocalBroker() as broker, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", broker.port), timeout=1)


def test_port_outside_the_range_for_outgoing_connections():
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with LocalBroker() as broker:
        assert broker.port < max(first_outgoing, 32768)


def test_killed_broker_comes_back_on_the_same_port_without_memory():
    with LocalBroker() as broker:
        with Client(broker) as client:
            client.publish("model", b"retained", retain=True)
            port, pid = broker.port, broker.pid
            broker.kill()
            assert not is_alive(pid)
            assert client.disconnected.wait(5)
        broker.start()
        assert (broker.port, broker.is_running) == (port, True)
        assert broker.pid != pid
        with Client(broker, "#") as client, pytest.raises(queue.Empty):
            client.messages.get(timeout=0.3)


@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "killed"])
def test_broker_with_persistence_comes_back_with_its_retained_messages(tmp_path: Path, crash: bool):
    state = tmp_path / "a folder"
    with LocalBroker(persistence_dir=state) as broker:
        with Client(broker) as client:
            client.publish("model", b"retained", retain=True)
        if crash:
            # It saves every second, so a crash loses at most what came after the last save.
            assert wait_until(
                lambda: any(b"retained" in file.read_bytes() for file in state.glob("*.db"))
            )
            broker.kill()
        else:
            broker.stop()
        broker.start()
        with Client(broker, "#") as client:
            assert client.messages.get(timeout=5) == ("model", b"retained")


def test_start_again_while_running_changes_nothing():
    with LocalBroker() as broker:
        pid = broker.pid
        broker.start()
        assert broker.pid == pid


def test_configuration_is_applied():
    with LocalBroker() as broker, Client(broker, "a") as client:
        properties = client.connect_properties.get(timeout=5)
        assert properties.MaximumPacketSize == MAX_PACKET_BYTES
        payload = bytes(MAX_PACKET_BYTES - 1000)
        client.publish("a", payload)
        assert client.messages.get(timeout=5) == ("a", payload)
        log = broker.log_path.read_text()
    assert "unknown configuration" not in log.lower()
    assert "Error" not in log


def test_oversize_packet_is_refused():
    connect = b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02id"  # CONNECT, MQTT 3.1.1
    # Fixed header of a PUBLISH of MAX_PACKET_BYTES + 5 bytes; the broker need not see the rest.
    oversize = b"\x30\x80\x80\x80\x01" + b"\x00\x01a" + bytes(1000)
    with (
        LocalBroker() as broker,
        socket.create_connection((broker.host, broker.port), timeout=5) as connection,
    ):
        connection.sendall(connect)
        assert connection.recv(4) == b"\x20\x02\x00\x00"
        connection.sendall(oversize)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(10) == b""
        assert broker.is_running


def test_taken_port_is_an_error_that_names_it():
    with LocalBroker() as broker:
        other = LocalBroker(broker.port)
        with pytest.raises(DdnnError, match=f"port {broker.port} .* in use"), other:
            pass
        assert not other.is_running
        assert broker.is_running


def test_port_taken_in_the_race_is_replaced_by_another(monkeypatch: pytest.MonkeyPatch):
    with LocalBroker() as first:
        ports = iter([first.port, first.port])
        from broker import mosquitto

        choose = mosquitto.free_port
        monkeypatch.setattr(mosquitto, "free_port", lambda: next(ports, None) or choose())
        with LocalBroker() as second:
            assert second.port != first.port


def test_broker_that_dies_at_its_start_shows_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("broker.mosquitto.render_config", lambda *_: "no_such_setting 1\n")
    with pytest.raises(DdnnError, match="no_such_setting"):
        LocalBroker(directory=tmp_path).start()


def test_temporary_folder_is_gone_afterwards():
    with LocalBroker() as broker:
        folder = broker.log_path.parent
        assert folder.is_dir()
    assert not folder.exists()


PARENT = """
import sys, threading, time
from pathlib import Path
from broker.mosquitto import LocalBroker
broker = LocalBroker(directory=Path(sys.argv[1]))
thread = threading.Thread(target=broker.start)
thread.start()
thread.join()
print(broker.pid, broker.port, flush=True)
time.sleep(60)
"""


@pytest.fixture
def parent(tmp_path: Path):
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def test_broker_dies_with_a_parent_that_is_killed(parent: subprocess.Popen[str]):
    assert parent.stdout is not None
    pid, port = map(int, parent.stdout.readline().split())
    # Started from a thread that has ended: the broker must not take that for its parent's death.
    time.sleep(0.3)
    assert is_alive(pid)
    os.kill(parent.pid, signal.SIGKILL)
    assert wait_until(lambda: not is_alive(pid))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port), timeout=1)


def test_broker_dies_with_a_parent_that_ends_by_an_error():
    source = (
        "from broker.mosquitto import LocalBroker\nb = LocalBroker()\nb.start()\nprint(b.pid)\n1/0"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert "ZeroDivisionError" in done.stderr
    assert wait_until(lambda: not is_alive(int(done.stdout)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_broker_command_ends_cleanly(tmp_path: Path, number: signal.Signals):
    source = "from broker.cli import broker; broker()"
    command = [sys.executable, "-c", source, "--port", "0", "--directory", str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("mqtt://127.0.0.1:")
        process.send_signal(number)
        assert process.wait(10) == 0
    assert "terminating" in (tmp_path / "mosquitto.log").read_text()


def test_child_that_ignores_sigterm_is_killed_after_the_grace_period(tmp_path: Path):
    log_path = tmp_path / "log"
    stubborn = ["sh", "-c", "trap '' TERM; echo $EXTRA; while :; do sleep 0.1; done"]
    polite = ["sleep", "60"]
    children = [start_child(args, {"EXTRA": "ready"}, log_path) for args in (stubborn, polite)]
    assert wait_until(lambda: "ready" in log_path.read_text())
    assert stop_children(children, grace_s=0.5) == children[:1]
    assert [child.returncode for child in children] == [-signal.SIGKILL, -signal.SIGTERM]


def test_child_that_does_not_exist_is_an_error(tmp_path: Path):
    with pytest.raises(DdnnError, match="no such program"):
        start_child(["/nonexistent/program"], {}, tmp_path / "log")
