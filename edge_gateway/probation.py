"""The first slots of a bundle after a change: do they go as well as those before it did?

A trial in shadow shows what a candidate decides; only running it shows what the site can bear. So
the outcomes of the last slots before the change are kept, and compared with the first ones after:

1. At most a share of `errors` more of the slots end degraded or not at all. What says nothing of a
   bundle is left out: a cloud that is known to be dead, a shutdown.
2. The mean time to a decision is at most `slower_s` longer.

A site that had not decided at least half as many slots before has nothing to compare with.
"""

from __future__ import annotations

from collections import deque

from ddnn.actions import Decision
from edge_gateway.trial import TrialRules

_NOT_THE_BUNDLES = {"cloud_down", "shutdown", "bundle_change"}


class Probation:
    """Outcomes of the slots of the running bundle, and of the one before.

    Args:
        rules: the same bounds as for a trial.

    Attributes:
        verdict: None: nothing (yet) to say; empty: passed; else why the bundle has failed.
    """

    def __init__(self, rules: TrialRules) -> None:
        self.verdict: str | None = None
        self._rules = rules
        self._before: list[tuple[bool, float]] | None = None
        self._now: deque[tuple[bool, float]] = deque(maxlen=rules.slots)

    def changed(self) -> None:
        """Another bundle runs from now on."""
        had_enough = 2 * len(self._now) >= self._rules.slots
        self._before = list(self._now) if had_enough else None
        self._now.clear()
        self.verdict = None

    def ended(self, decision: Decision | None) -> None:
        """A slot of the running bundle has ended; None: it has expired."""
        if decision is None:
            self._now.append((True, 0.0))
        elif decision.degraded not in _NOT_THE_BUNDLES:
            self._now.append((decision.degraded is not None, sum(decision.stage_s.values())))
        if self._before is not None and len(self._now) == self._rules.slots:
            self.verdict = self._judge(self._before)
            self._before = None

    def _judge(self, before: list[tuple[bool, float]]) -> str:
        errors, seconds = _means(list(self._now))
        errors_before, seconds_before = _means(before)
        failed = []
        if errors > errors_before + self._rules.errors:
            failed.append(f"errors in {errors:.3f} of the slots, {errors_before:.3f} before")
        if seconds > seconds_before + self._rules.slower_s:
            took, took_before = 1000 * seconds, 1000 * seconds_before
            failed.append(f"{took:.1f} ms to a decision, {took_before:.1f} before")
        return "; ".join(failed)


def _means(outcomes: list[tuple[bool, float]]) -> tuple[float, float]:
    """Share of errors, and mean seconds of the slots that were decided without."""
    good = [seconds for failed, seconds in outcomes if not failed]
    errors = 1.0 - len(good) / len(outcomes)
    return errors, sum(good) / len(good) if good else 0.0
