"""The engines of a gateway: one per bundle, each for its own range of slots.

While a site changes over there are two: slots before the switch end with the bundle that they
began with, later ones belong to the new bundle from the start. A slot belongs to exactly one
engine, which takes frames of its own tag only; so no decision mixes two bundles, and none is cut
short.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ddnn.audit import EarlyExit
from ddnn.budget import Curve
from ddnn.drift import Expected
from ddnn.place import Place
from ddnn.tier import Tier


@dataclass
class Engine:
    """One bundle's engine.

    Attributes:
        place: whose engine it is.
        from_slot: the first slot that is its own.
        expected: how often its early exits disagree with the deepest one, as calibrated.
        highest: the highest slot that it has taken; -1: none.
        raw_bytes: by member, what the raw views of its cameras would take; empty: not known.
    """

    tier: Tier
    place: Place
    bundle_id: str
    classes: tuple[str, ...]
    curve: Curve | None
    from_slot: int
    expected: Mapping[EarlyExit, Expected] | None = None
    highest: int = -1
    raw_bytes: tuple[int, ...] = ()


class Engines:
    """The running engine and, for a while after a switch, the one before it."""

    def __init__(self) -> None:
        self.all: list[Engine] = []

    @property
    def newest(self) -> Engine | None:
        """The engine of the last switch, whether its slot has come or not."""
        return self.all[-1] if self.all else None

    def of(self, slot: int) -> Engine | None:
        """The engine whose slot it is; the oldest one for slots before all of them."""
        for engine in reversed(self.all):
            if slot >= engine.from_slot:
                return engine
        return self.all[0] if self.all else None

    def add(self, engine: Engine) -> None:
        """Let `engine` have the slots from its `from_slot` on.

        A slot that another engine has begun stays with that one.
        """
        self.all.append(engine)
        self.move(engine.from_slot)

    def move(self, from_slot: int) -> None:
        """Set the newest engine's first slot anew, as far as it has not begun."""
        engine = self.all[-1]
        taken = max((other.highest for other in self.all[:-1]), default=-1)
        engine.from_slot = max(from_slot, taken + 1)

    def done(self, before_slot: int) -> list[Engine]:
        """Take out the engines whose slots are all over and too old to come back."""
        over = [
            engine
            for engine, after in zip(self.all, self.all[1:], strict=False)
            if after.from_slot < before_slot and not engine.tier.open_slots
        ]
        self.all = [engine for engine in self.all if engine not in over]
        return over

    @property
    def open_slots(self) -> int:
        """Slots that have not ended."""
        return sum(engine.tier.open_slots for engine in self.all)

    @property
    def settled(self) -> bool:
        """Whether no slot of a bundle before the newest one is open."""
        return not any(engine.tier.open_slots for engine in self.all[:-1])

    @property
    def highest(self) -> int:
        """The highest slot that any engine has taken; -1: none."""
        return max((engine.highest for engine in self.all), default=-1)

    def next_deadline(self) -> float:
        """When the first of them has a slot to move on; infinite: none has."""
        return min([engine.tier.next_deadline() for engine in self.all], default=math.inf)
