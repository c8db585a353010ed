"""Why there is no connection to the broker: in words that say what to do, said once."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable

from ddnn.tls import explain

log = logging.getLogger(__name__)

#: A broker that ends connections before it has answered is asked why at most this often.
ASK_EVERY_S = 30.0


class Trouble:
    """What is known of an outage. Its methods may be called from any thread.

    Args:
        address: host and port, for the texts.
        ask: asks a broker that speaks TLS why it ended a connection before it had answered; None:
            this one speaks none.

    Attributes:
        text: why there is no connection; None while there is one, or while it is not known.
        settled: set once connected, or once it is clear that waiting will not help.
    """

    def __init__(self, address: str, ask: Callable[[], BaseException | None] | None) -> None:
        self.text: str | None = None
        self.settled = threading.Event()
        self._address = address
        self._ask = ask
        self._ask_after = 0.0
        self._is_lasting = False

    def over(self) -> None:
        """There is a connection."""
        self.text, self._is_lasting, self._ask_after = None, False, 0.0
        self.settled.set()

    def lost(self) -> None:
        """The connection was lost: wait anew."""
        self.settled.clear()

    def failed(self, error: BaseException | None) -> None:
        """An attempt to connect, or to read, failed with this error."""
        why, lasting = explain(error) if error else ("trying on", False)
        self._say(why, lasting=lasting)

    def refused(self, reason: str) -> None:
        """The broker said in MQTT that it does not want this client."""
        self._say(f"the broker refuses this client: {reason}", lasting=True)

    def ended(self) -> None:
        """The broker ended a connection that it had not answered yet."""
        error: BaseException | None = None
        now = time.monotonic()
        if self._ask and now >= self._ask_after:
            self._ask_after = now + ASK_EVERY_S
            error = self._ask()
        if isinstance(error, ssl.SSLError):
            self.failed(error)
        elif not self._is_lasting:  # else it is known already
            said = "it ends the connection after the handshake; its log says why"
            plain = "it ends the connection at once; does it want TLS?"
            self._say(said if self._ask else plain, lasting=False)

    def describe(self) -> str:
        """For a person who waits."""
        return self.text or self._no_answer("is it running?")

    def _no_answer(self, why: str) -> str:
        return (
            f"no MQTT broker answers at {self._address}: {why} (`ddnn broker` starts a local one)"
        )

    def _say(self, why: str, *, lasting: bool) -> None:
        """Once per outage and not at every attempt; again if it is something else."""
        text = f"{self._address}: {why}" if lasting else self._no_answer(why)
        if text != self.text:
            log.warning(text)
        self.text, self._is_lasting = text, lasting
        if lasting:
            self.settled.set()
