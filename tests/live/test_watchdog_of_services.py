"""What a service manager hears of a real gateway and cloud worker: ready, alive, stopping."""

import contextlib
import signal
import socket
import sys
import time

import pytest

from broker.mosquitto import LocalBroker
from ddnn.processes import start_child, stop_children

pytestmark = pytest.mark.live


@pytest.fixture
def broker():
    with LocalBroker() as running:
        yield running


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(20)
        yield sock


def hear(manager, wanted):
    """Everything said until `wanted`."""
    said = []
    while wanted not in said:
        said.append(manager.recv(100).decode())
    return said


def forget(manager):
    """What was said before."""
    manager.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            manager.recv(100)


@pytest.mark.parametrize("role", ["gateway", "cloud"])
def test_service_says_that_it_is_alive_and_no_more_when_it_hangs(broker, manager, tmp_path, role):
    command = [sys.executable, "-m", "ddnn", role, "--broker", broker.host]
    command += ["--port", str(broker.port), "--store", str(tmp_path / "store")]
    watched = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
    child = start_child(command, watched, tmp_path / "log")
    try:
        assert hear(manager, "WATCHDOG=1")[0] == "READY=1"
        child.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        forget(manager)
        manager.settimeout(1.5)
        with pytest.raises(TimeoutError):
            manager.recv(100)
        manager.settimeout(20)
        child.send_signal(signal.SIGCONT)
        hear(manager, "WATCHDOG=1")
        child.terminate()
        hear(manager, "STOPPING=1")
        assert child.wait(10) == 0
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGCONT)
        stop_children([child])
