"""Work that must not hold up messages or frames, one piece after the other on one thread."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Background:
    """A thread that does what it is given, in order, and ends with the process.

    Loading a model and syncing a disk take a tenth of a second or more on a small machine; a
    camera's frames and a gateway's deadlines do not wait for that.
    """

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        # A daemon: what it is doing at the end of the process may be lost, as at a loss of power.
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def __call__(self, work: Callable[[], None]) -> None:
        """Do `work` after all that was given before."""
        self._work.put(work)

    def _run(self) -> None:
        while True:
            work = self._work.get()
            try:
                work()
            except Exception:  # as for a message's handler: the next piece must not suffer
                log.exception("in the background")
