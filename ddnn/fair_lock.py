"""A lock that threads get in turns."""

from __future__ import annotations

import threading
from types import TracebackType


class FairLock:
    """For a `with` block; not to be entered twice by one thread.

    With Python's own lock, a thread that lets go of it and takes it again at once nearly always
    gets it: a gateway with more messages than it can handle would never look at its deadlines.
    Whoever waits here holds the turn, so that nobody overtakes it.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._turn:
            self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()
