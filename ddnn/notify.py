"""Telling systemd how a service does (sd_notify): ready, alive, stopping.

A service of `Type=notify` with `WatchdogSec=` is killed and started again when it stops saying that
it is alive. It must say so from the loop whose hanging would matter, never from a thread of its
own. Without systemd (no NOTIFY_SOCKET) all of this does nothing.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)


class Notifier:
    """Speaks to the service manager that started this process.

    Args:
        environment: where NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID are.

    Attributes:
        every_s: how often it must hear that the service is alive, halved as it recommends; None:
            it does not watch.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        usec = environment.get("WATCHDOG_USEC", "")
        for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watched = bool(self._address) and usec.isdecimal() and int(usec) > 0 and for_us
        self.every_s = int(usec) / 2e6 if watched else None
        self._next_s = 0.0
        self._failed = False

    def ready(self) -> None:
        """The service has started."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The service is on its way out."""
        self._send("STOPPING=1")

    def alive(self, now: float) -> None:
        """Said at every turn of the main loop; told on as often as is needed."""
        if self.every_s is not None and now >= self._next_s:
            self._next_s = now + self.every_s
            self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        # A leading @ stands for the zero byte of an abstract address.
        address = self._address.replace("@", "\0", 1) if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.connect(address)
                sock.send(text.encode())
        except OSError as error:
            if not self._failed:
                log.warning("cannot tell systemd %r: %s", text, error)
            self._failed = True
