"""What systemd hears of a service."""

import os
import socket

import pytest

from ddnn.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """A service manager's socket, and the address as it gives it to services."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        if request.param == "path":
            address = str(tmp_path / "notify")
            sock.bind(address)
        else:
            address = f"@ddnn-test-{os.getpid()}"
            sock.bind(address.replace("@", "\0"))
        sock.settimeout(5)
        yield sock, address


def heard(sock):
    sock.setblocking(False)
    found = []
    try:
        while True:
            found.append(sock.recv(100).decode())
    except BlockingIOError:
        return found


def test_service_says_that_it_is_ready_alive_and_stopping(manager):
    sock, address = manager
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000000"})
    notifier.ready()
    for now in (100.0, 100.2, 105.0, 109.9, 110.0, 119.0):
        notifier.alive(now)
    notifier.stopping()
    assert heard(sock) == ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]
    assert notifier.every_s == 10.0, "half of the limit"


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "x"},
        {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"},
    ],
)
def test_nothing_is_said_of_life_to_a_manager_that_does_not_watch(manager, variables):
    sock, address = manager
    notifier = Notifier({"NOTIFY_SOCKET": address} | variables)
    notifier.alive(100.0)
    assert heard(sock) == []


def test_without_systemd_nothing_happens():
    notifier = Notifier({})
    notifier.ready()
    notifier.alive(1.0)
    notifier.stopping()


def test_manager_that_is_gone_is_no_reason_to_die(tmp_path, caplog):
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "1000000"})
    with caplog.at_level("WARNING", logger="ddnn.notify"):
        notifier.ready()
        notifier.alive(1.0)
    assert len(caplog.records) == 1
