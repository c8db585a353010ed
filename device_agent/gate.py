"""The motion gate: is anything there that was not there before? Pure.

What saves most traffic is to send nothing of an empty scene. The gate keeps, for every pixel and
channel of the section's picture, a running mean and variance of the empty scene, and calls a view
absent when too few pixels differ from that.

**Light.** A cloud, the exposure or the white balance change the whole picture by one factor per
channel. It is the median over the pixels of picture / background, so that an object which covers
less than half of the picture does not move it, and it is divided out.

**Learning.** Pixels that look like the background are learnt at once (`learn_s`). Those that do
not are learnt slowly (`absorb_s`): something passing by leaves no trace, a parked car becomes
background in the end. When most of the picture differs for `relearn_s`, the scene itself has
changed (the camera was turned, lamps were switched on): it is learnt anew. What moves all the
time and never stays, a tree in the wind, is for a mask.

**When in doubt, there is something.** While the background is not known, nothing is held back.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

#: A variance below this is the rounding's and not the sensor's; grey levels, squared.
LEAST_VARIANCE = 2.0
#: Dark pixels tell little about the light: factors come from those above, grey levels.
DARK = 16.0
#: How many pixels are asked for the light.
LIGHT_PIXELS = 256
#: Above this a pixel is burnt out, grey levels.
BURNT = 250.0
#: A factor beyond these is no change of light.
GAIN = (0.4, 2.5)
#: Pictures that must have been learnt before the gate says anything.
LEAST_PICTURES = 10


class GateRules(NamedTuple):
    """Bounds of a gate.

    Attributes:
        sigmas: how many standard deviations of its own a pixel must differ by.
        area: share of the picture's pixels that must differ, at least.
        hold_s: how long something is still taken to be there after it was last seen.
        learn_s, absorb_s: time constants of learning where nothing, and where something, is.
        relearn_area, relearn_s: a larger share that differs for so long is a new scene.
    """

    sigmas: float = 5.0
    area: float = 0.003
    hold_s: float = 0.5
    learn_s: float = 20.0
    absorb_s: float = 600.0
    relearn_area: float = 0.6
    relearn_s: float = 3.0


class Gate:
    """The gate of one camera.

    Attributes:
        changed: share of pixels that differed in the last view; None: still learning.
        present: what was last said.
    """

    def __init__(self, rules: GateRules) -> None:
        self.rules = rules
        self.changed: float | None = None
        self.present = True
        self._mean: Floats | None = None
        self._variance: Floats | None = None
        self._pictures = 0
        self._began_s = self._last_s = 0.0
        self._seen_s = -np.inf
        self._other_scene_since: float | None = None

    @property
    def state(self) -> str:
        """For a status: `learning`, `present` or `absent`."""
        if self.changed is None:
            return "learning"
        return "present" if self.present else "absent"

    def look(self, view: Image, now: float) -> bool:
        """Whether something is in the view (H, W, C) taken at `now` (monotonic seconds)."""
        # Planes, since numpy is fast along whole rows: (C, H * W).
        picture = view.reshape(-1, view.shape[2]).T.astype(np.float32, order="C")
        if self._mean is None or self._variance is None or self._mean.shape != picture.shape:
            self._begin(picture, now)
            return True
        passed_s, self._last_s = max(0.0, now - self._last_s), now
        gain = _light(picture, self._mean)[:, None]
        off = picture / gain
        off -= self._mean
        self._forgive_burnt(off, picture)
        squared = off * off
        if now - self._began_s < self.rules.learn_s or self._pictures < LEAST_PICTURES:
            self._pictures += 1
            self._update(off, squared, np.float32(1.0 / self._pictures))
            return True
        # A pixel differs when one of its channels does. Making a dark picture brighter makes its
        # noise larger, too, and there is more of it in the dark.
        limit = (self.rules.sigmas / np.minimum(gain, 1.0) ** 2) ** 2
        differs = np.any(squared > limit * self._variance, axis=0)
        self.changed = float(np.count_nonzero(differs)) / differs.size
        if self._is_other_scene(self.changed, now):
            self._begin(picture, now)
            return True
        if self.changed >= self.rules.area and self.changed > 0.0:
            self._seen_s = now
        fast = np.float32(-np.expm1(-passed_s / self.rules.learn_s))
        rate: Floats | np.float32 = fast
        if self.changed > 0.0:
            slow = np.float32(-np.expm1(-passed_s / self.rules.absorb_s))
            rate = np.where(differs, slow, fast)
            # Something foreign says nothing of the sensor's noise.
            np.copyto(squared, self._variance, where=differs)
        self._update(off, squared, rate)
        self.present = now - self._seen_s <= self.rules.hold_s
        return self.present

    def _begin(self, picture: Floats, now: float) -> None:
        self._mean = picture
        self._variance = np.full_like(picture, 4 * LEAST_VARIANCE)
        self._pictures = 1
        self._began_s = self._last_s = now
        self._other_scene_since = None
        self.changed, self.present = None, True

    def _is_other_scene(self, share: float, now: float) -> bool:
        if share < self.rules.relearn_area:
            self._other_scene_since = None
            return False
        if self._other_scene_since is None:
            self._other_scene_since = now
        return now - self._other_scene_since >= self.rules.relearn_s

    def _forgive_burnt(self, off: Floats, picture: Floats) -> None:
        """Burnt out, a pixel may be brighter than it says: now, or when it was learnt."""
        assert self._mean is not None
        if self._mean.max() > BURNT:
            off[(off > 0.0) & (self._mean > BURNT)] = 0.0
        if picture.max() > BURNT:
            off[(off < 0.0) & (picture > BURNT)] = 0.0

    def _update(self, off: Floats, squared: Floats, rate: Floats | np.float32) -> None:
        """Move mean and variance by `rate` towards this picture's; overwrites its arguments."""
        assert self._mean is not None
        assert self._variance is not None
        off *= rate
        self._mean += off
        squared -= self._variance
        squared *= rate
        self._variance += squared
        np.maximum(self._variance, LEAST_VARIANCE, out=self._variance)


def _light(picture: Floats, mean: Floats) -> Floats:
    """How much brighter each channel (C,) is than the background, by the median over pixels."""
    # The median of some is as good as of all; an odd step does not fall into columns.
    step = max(1, mean.shape[1] // LIGHT_PIXELS) | 1
    there, before = picture[:, ::step], mean[:, ::step]
    usable = np.minimum(there, before).min(axis=0) > DARK
    count = int(np.count_nonzero(usable))
    if count < usable.size // 8:  # night: nothing to measure the light by
        return np.ones(len(mean), np.float32)
    ratios = np.compress(usable, there, axis=1) / np.compress(usable, before, axis=1)
    ratios.partition(count // 2, axis=1)
    return np.clip(ratios[:, count // 2], *GAIN)
