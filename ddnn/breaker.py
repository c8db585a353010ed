"""A circuit breaker: a dead cloud costs a frame its degraded mark and no waiting.

Pure: the caller says what the time is. Three states:

- **closed**: every call goes out. `failures` failed calls in a row open it.
- **open**: no call goes out until the pause is over.
- **probing**: one call goes out. If it succeeds the breaker closes; if it fails, the pause doubles,
  up to `max_pause_s`. A probe that is never heard of again does not block: after another pause
  the next one goes out.

`max_pause_s` is also how long a recovered cloud can stay unnoticed, at most.
"""

from __future__ import annotations

from typing import Literal

State = Literal["closed", "open", "probing"]


class Breaker:
    """One breaker for one remote service.

    Args:
        failures: failed calls in a row that open it.
        first_pause_s: pause before the first probe.
        max_pause_s: longest pause between probes.
    """

    def __init__(
        self, failures: int = 3, first_pause_s: float = 1.0, max_pause_s: float = 4.0
    ) -> None:
        self.state: State = "closed"
        self.opened = 0
        self._failures = failures
        self._first_pause_s = first_pause_s
        self._max_pause_s = max_pause_s
        self._pause_s = first_pause_s
        self._failed_in_a_row = 0
        self._probe_at = 0.0

    def permits(self, now: float) -> bool:
        """Whether a call may go out at `now`; takes nothing."""
        return self.state == "closed" or now >= self._probe_at

    def take(self, now: float) -> bool:
        """Permission for one call; when the breaker is open this call is the probe."""
        if self.state == "closed":
            return True
        if now < self._probe_at:
            return False
        self.state = "probing"
        self._probe_at = now + self._pause_s
        return True

    def succeeded(self) -> None:
        """A call was answered."""
        self.state = "closed"
        self._failed_in_a_row = 0
        self._pause_s = self._first_pause_s

    def failed(self, now: float) -> None:
        """A call was not answered in time, or answered with a refusal."""
        self._failed_in_a_row += 1
        if self.state == "closed" and self._failed_in_a_row >= self._failures:
            self._open(now, self._first_pause_s)
        elif self.state == "probing":
            self._open(now, min(2 * self._pause_s, self._max_pause_s))

    def trip(self, now: float) -> None:
        """Open at once: it is known that nobody is there."""
        if self.state == "closed":
            self._open(now, self._max_pause_s)

    def probe_now(self, now: float) -> None:
        """Somebody is there again, it is said: let the next call be a probe."""
        if self.state != "closed":
            self.state = "open"
            self._probe_at = now

    def _open(self, now: float, pause_s: float) -> None:
        if self.state == "closed":
            self.opened += 1
        self.state = "open"
        self._pause_s = pause_s
        self._probe_at = now + pause_s
