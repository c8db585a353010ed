"""A candidate bundle on trial: its own engine, run in shadow on a share of the slots.

Cameras send a second summary of every k-th slot, made by the candidate and under its tag. Here it
goes through an engine of its own, down to the cloud if need be, beside the engine whose decisions
count. Of each slot that both have decided the two decisions are compared; after `slots` of them the
rule says whether the site may change over:

1. The labels agree in at least `agreement` of the slots in which either saw anything.
2. The mean entropy has not moved by more than `entropy_shift`, up or down.
3. The mean time to a decision is at most `slower_s` longer.
4. At most a share of `errors` of its slots ended degraded or not at all where the other's did not.

Nothing of a trial is published as a decision or written to the journal.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from ddnn.actions import Action, Decision, Expired
from ddnn.place import Place
from ddnn.tier import NodeSections, Tier, TierConfig

#: Slots that wait for the other engine's decision.
MAX_WAITING = 256


class TrialRules(msgspec.Struct, frozen=True, kw_only=True):
    """How a candidate is tried; `every` 0: not at all."""

    every: int = 0
    slots: int = 100
    agreement: float = 0.95
    entropy_shift: float = 0.1
    slower_s: float = 0.05
    errors: float = 0.02


class Trial:
    """One candidate's trial.

    Args:
        bundle_id: of the candidate.
        sections: its sections.
        rules: when it has passed.
        config: of its engine.
        place: of the gateway, with cameras as members.
    """

    def __init__(
        self,
        bundle_id: str,
        sections: NodeSections,
        rules: TrialRules,
        config: TierConfig,
        place: Place,
    ) -> None:
        self.bundle_id = bundle_id
        self.place = place
        self.tier = Tier(sections, config)
        self.compared = 0
        self._rules = rules
        self._agreed = 0
        self._errors = 0
        self._entropy = [0.0, 0.0]
        self._seconds = [0.0, 0.0]
        self._measured = 0
        self._mine: OrderedDict[int, Decision | None] = OrderedDict()
        self._real: OrderedDict[int, Decision | None] = OrderedDict()

    def take(self, actions: list[Action]) -> list[Action]:
        """Note how the candidate ended its slots; what is left is to be carried out."""
        left: list[Action] = []
        for action in actions:
            match action:
                case Decision():
                    self._put(self._mine, action.slot, action)
                case Expired():
                    self._put(self._mine, action.slot, None)
                case _:
                    left.append(action)
        return left

    def real(self, slot: int, decision: Decision | None) -> None:
        """How the running bundle ended `slot`."""
        if slot % self._rules.every == 0:
            self._put(self._real, slot, decision)

    def describe(self) -> str:
        """The numbers so far, for people."""
        agreement, shift, slower_s, errors = self._numbers()
        return (
            f"bundle {self.bundle_id[:12]} in shadow: {self.compared} of {self._rules.slots} slots "
            f"compared, agreement {agreement:.3f}, entropy {shift:+.3f}, "
            f"time {1000 * slower_s:+.1f} ms, errors {errors:.3f}"
        )

    def verdict(self) -> str | None:
        """None: not yet known; empty: passed; else why it has failed."""
        if self.compared < self._rules.slots:
            return None
        agreement, shift, slower_s, errors = self._numbers()
        rules = self._rules
        failed = []
        if agreement < rules.agreement:
            failed.append(f"agreement {agreement:.3f} is under {rules.agreement:g}")
        if abs(shift) > rules.entropy_shift:
            failed.append(f"entropy moved by {shift:+.3f}, more than {rules.entropy_shift:g}")
        if slower_s > rules.slower_s:
            failed.append(f"{1000 * slower_s:.1f} ms slower, more than {1000 * rules.slower_s:g}")
        if errors > rules.errors:
            failed.append(f"errors in {errors:.3f} of the slots, more than {rules.errors:g}")
        return "; ".join(failed)

    def _numbers(self) -> tuple[float, float, float, float]:
        """Agreement, shift of the entropy, seconds slower, share of errors."""
        all_, both = max(1, self.compared), max(1, self._measured)
        shift = (self._entropy[0] - self._entropy[1]) / both
        slower_s = (self._seconds[0] - self._seconds[1]) / both
        return self._agreed / all_, shift, slower_s, self._errors / all_

    def _put(
        self, ended: OrderedDict[int, Decision | None], slot: int, decision: Decision | None
    ) -> None:
        ended[slot] = decision
        if slot in self._mine and slot in self._real:
            self._compare(self._mine.pop(slot), self._real.pop(slot))
        while len(ended) > MAX_WAITING:
            ended.popitem(last=False)

    def _compare(self, mine: Decision | None, real: Decision | None) -> None:
        if real is None or real.degraded:
            return  # the running bundle itself had no good answer: nothing to measure by
        if real.label is None and mine is not None and mine.label is None:
            return  # nobody saw anything, and both say so
        self.compared += 1
        if mine is None or mine.degraded:
            self._errors += 1
        if mine is None:
            return
        self._agreed += mine.label == real.label
        if mine.entropy is not None and real.entropy is not None:
            self._measured += 1
            for place, decision in enumerate((mine, real)):
                self._entropy[place] += decision.entropy or 0.0
                self._seconds[place] += sum(decision.stage_s.values())
