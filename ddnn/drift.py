"""How often an early exit disagrees with the deepest one, and whether that has become worse.

Pure. What is told is one audit after the other (`ddnn.audit`); what is asked is:

- **the rate now**, of the last `WINDOW` audits of an exit, with a 95 % interval. Wilson's score
  interval is used (Wilson, JASA 22, 1927), which Brown, Cai and DasGupta (Statistical Science 16,
  2001) recommend for few samples and rates near 0, where the textbook's interval fails.
- **the alarm**: has the rate risen above what is to be expected? Looking at an interval after
  each audit would raise an alarm sooner or later whatever the rate is. So a sequential test is
  used that may be looked at after every audit: a mixture of Shiryaev-Roberts e-detectors (Shin,
  Ramdas and Rinaldo, "E-detectors", arXiv 2203.03532). With e(x) = (q/b) for a disagreement and
  (1-q)/(1-b) for an agreement, `R <- (R + 1) * e(x)`, averaged over several q > b, is an alarm at
  `ALARM_AT`. As long as the rate is at most b, a false alarm comes on average once in `ALARM_AT`
  audits or less often, and within n audits with a probability of at most n / `ALARM_AT`.

What is to be expected, b, is an upper limit of a rate that was measured itself: by calibration on
validation samples (the manifest), or where the manifest does not say, or thresholds are not its
own, by the first `FIRST` audits. Its upper one-sided 99 % limit is taken (Wilson again), so that
an unlucky reference is an alarm in one of a hundred cases at most.

An alarm ends when of the last `RECENT` audits no more than b disagree.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from ddnn.audit import Disagreement, EarlyExit, ExitEstimate, Reference
from ddnn.bundle import Manifest

WINDOW = 500
FIRST = 200
RECENT = 100
ALARM_AT = 100_000.0
#: Quantiles of the normal distribution: two-sided 95 %, one-sided 99 %.
Z_95, Z_99 = 1.959964, 2.326348
#: How far above the bound, as shares of what is above it, the alternatives q lie.
_ALTERNATIVES = (0.03, 0.06, 0.12, 0.25, 0.5, 0.8)
#: A detector that has long raised its alarm stops counting here, far below overflow.
_HIGHEST = ALARM_AT**2


def expected_of(manifest: Manifest) -> dict[EarlyExit, Expected]:
    """What a bundle's calibration has measured at its own thresholds; empty: nothing."""
    if manifest.disagreement is msgspec.UNSET:
        return {}
    return {
        name: Expected(measured.answered, measured.disagreed)
        for name, measured in manifest.disagreement.items()
    }


def wilson(disagreed: int, audited: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a rate; (0, 1) without samples."""
    if not audited:
        return 0.0, 1.0
    rate, square = disagreed / audited, z * z
    middle = rate + square / (2 * audited)
    half = z * math.sqrt(rate * (1 - rate) / audited + square / (4 * audited**2))
    scale = 1 + square / audited
    # At 0 and at all of them the limit is exactly 0 and 1, which rounding can miss.
    low = 0.0 if disagreed == 0 else max(0.0, (middle - half) / scale)
    high = 1.0 if disagreed == audited else min(1.0, (middle + half) / scale)
    return low, high


class Expected(NamedTuple):
    """A rate that was measured before: of `audited`, `disagreed`."""

    audited: int
    disagreed: int

    @property
    def bound(self) -> float:
        """The highest rate that this is compatible with: one-sided 99 %."""
        return wilson(self.disagreed, self.audited, Z_99)[1]


class Detector:
    """A sequential test that a rate has risen above `bound`; see the module's text.

    Raises:
        ValueError: the bound is not above 0 and below 1.
    """

    def __init__(self, bound: float) -> None:
        if not 0.0 < bound < 1.0:
            raise ValueError(f"a bound of {bound} leaves nothing to test")
        self.bound = bound
        alternatives = [bound + (1 - bound) * share for share in _ALTERNATIVES]
        self._disagreed = [q / bound for q in alternatives]
        self._agreed = [(1 - q) / (1 - bound) for q in alternatives]
        self._values = [0.0] * len(alternatives)

    def add(self, agrees: bool) -> None:
        """The next audit."""
        factors = self._agreed if agrees else self._disagreed
        self._values = [
            min((value + 1) * factor, _HIGHEST)
            for value, factor in zip(self._values, factors, strict=True)
        ]

    @property
    def alarms(self) -> bool:
        """Whether it is time for an alarm."""
        return sum(self._values) / len(self._values) >= ALARM_AT

    def reset(self) -> None:
        """Begin anew."""
        self._values = [0.0] * len(self._values)


class _Seen(NamedTuple):
    """One audit in the window."""

    label: str
    agrees: bool
    complete: bool


class ExitDrift:
    """One early exit: its window, its reference, its alarm.

    Args:
        exit: its name.
        expected: by calibration; None, or of no samples: the first audits are the reference.
    """

    def __init__(self, exit: EarlyExit, expected: Expected | None) -> None:
        self.exit: EarlyExit = exit
        self.drift = False
        self._total = 0
        self._first = Expected(0, 0)
        self._window: deque[_Seen] = deque(maxlen=WINDOW)
        self._reference: Reference | None = None
        self._detector: Detector | None = None
        if expected is not None and expected.audited:
            self._refer(expected, "manifest")

    def add(self, label: str, agrees: bool, complete: bool) -> None:
        """The next audit: what the early exit had decided, and whether the deepest one agrees.

        `complete`: no member was missing from the slot.
        """
        self._total += 1
        self._window.append(_Seen(label, agrees, complete))
        if self._reference is None:
            first = self._first
            self._first = Expected(first.audited + 1, first.disagreed + (not agrees))
            if self._first.audited == FIRST:
                self._refer(self._first, "first audits")
        elif self._detector is not None:
            self._watch(self._detector, agrees)

    def _refer(self, expected: Expected, reference: Reference) -> None:
        self._reference = reference
        if expected.bound < 1.0:
            self._detector = Detector(expected.bound)

    def _watch(self, detector: Detector, agrees: bool) -> None:
        detector.add(agrees)
        if detector.alarms:
            self.drift = True
        elif not self.drift:
            return
        recent = list(self._window)[-RECENT:]
        disagreed = sum(not seen.agrees for seen in recent)
        if len(recent) == RECENT and disagreed <= detector.bound * RECENT:
            self.drift = False
            detector.reset()

    def estimate(self) -> ExitEstimate:
        """The numbers so far."""
        by_class: Counter[str] = Counter(seen.label for seen in self._window)
        wrong: Counter[str] = Counter(seen.label for seen in self._window if not seen.agrees)
        return ExitEstimate(
            exit=self.exit,
            total=self._total,
            incomplete=sum(not seen.complete for seen in self._window),
            all=_disagreement(wrong.total(), len(self._window)),
            classes={
                label: _disagreement(wrong[label], by_class[label]) for label in sorted(by_class)
            },
            reference=self._reference,
            bound=round(self._detector.bound, 6) if self._detector else None,
            drift=self.drift,
        )

    def describe(self) -> str | None:
        """The alarm for people, or None."""
        if not self.drift:
            return None
        now = self.estimate()
        lacking = f", {now.incomplete} of them with members missing" if now.incomplete else ""
        return (
            f"the {self.exit} exit disagrees with the deepest one in {now.all.disagreed} of the "
            f"last {now.all.audited} audits{lacking} ({now.all.low:.3f} to {now.all.high:.3f}); "
            f"up to {now.bound or 0.0:.3f} was expected ({now.reference})"
        )


class Drift:
    """All early exits of one bundle at its present thresholds.

    Args:
        exits: the early ones.
        expected: by exit, as calibration has measured it at these very thresholds.
    """

    def __init__(
        self, exits: tuple[EarlyExit, ...], expected: Mapping[EarlyExit, Expected] | None = None
    ) -> None:
        self.exits = {name: ExitDrift(name, (expected or {}).get(name)) for name in exits}

    def add(self, exit: EarlyExit, label: str, *, agrees: bool, complete: bool) -> None:
        """The next audit of `exit`; one of an exit that there is not is ignored."""
        if one := self.exits.get(exit):
            one.add(label, agrees, complete)

    def estimates(self) -> tuple[ExitEstimate, ...]:
        """The numbers so far, by exit."""
        return tuple(one.estimate() for one in self.exits.values())

    def describe(self) -> str | None:
        """The alarms for people, or None."""
        return "; ".join(text for one in self.exits.values() if (text := one.describe())) or None


def _disagreement(disagreed: int, audited: int) -> Disagreement:
    low, high = wilson(disagreed, audited)
    return Disagreement(
        audited=audited,
        disagreed=disagreed,
        rate=round(disagreed / audited, 6) if audited else None,
        low=round(low, 6),
        high=round(high, 6),
    )
