"""What one browser tab shows and does, without the browser: the rules of labelling. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from training.labelling.queue import KEYS, Suggestion, Wanted, queue
from training.recorded.labels import LEFT_OUT
from training.recorded.views import View

ACCEPT, LEAVE_OUT, UNDO = "0", "x", "u"


class LabelStore(Protocol):
    """What a board needs of `training.recorded.labels.Labels`."""

    @property
    def classes(self) -> Sequence[str]:
        """In the order of their keys."""
        ...

    def get(self, slot: int) -> str | None:
        """The label of a slot."""
        ...

    def all(self) -> dict[int, str]:
        """Slot -> label."""
        ...

    def change(self, slot: int, shown: str | None, label: str | None) -> bool:
        """Set a label if it is still what was shown."""
        ...


class Scenes:
    """The slots of a data set, the same for all tabs.

    Attributes:
        slots: those with a picture, in time.
        views: slot -> its views by camera, absent ones too.
        cameras: every camera's number.
        suggestions: slot -> what the bundle says; empty without a bundle.
    """

    def __init__(self, views: Sequence[View], suggestions: Mapping[int, Suggestion]) -> None:
        by_slot: dict[int, dict[int, View]] = {}
        for view in views:
            by_slot.setdefault(view.slot, {})[view.camera] = view
        self.views = {
            slot: own
            for slot, own in by_slot.items()
            if any(view.state == "present" for view in own.values())
        }
        self.slots = sorted(
            self.views, key=lambda s: (min(v.time_s for v in self.views[s].values()), s)
        )
        self.cameras = sorted({view.camera for view in views})
        self.suggestions = suggestions
        self.seen_by = {
            slot: frozenset(c for c, view in own.items() if view.state == "present")
            for slot, own in self.views.items()
        }


class Board:
    """One tab's place in the queue.

    Attributes:
        wanted: the filters.
        slot: the one that is shown; None: there is none left.
        shown: its label when it was shown.
        message: what the person must hear, until the next action.
    """

    def __init__(self, scenes: Scenes, labels: LabelStore) -> None:
        self._scenes = scenes
        self._labels = labels
        self._queue: list[int] = []
        self._history: list[tuple[int, str | None, str | None]] = []
        self.wanted = Wanted(order="uncertain" if scenes.suggestions else "time")
        self.slot: int | None = None
        self.shown: str | None = None
        self.message = ""
        self.choose(self.wanted)

    @property
    def place(self) -> tuple[int, int]:
        """Number of the slot shown among those wanted, from 1, and how many there are."""
        number = self._queue.index(self.slot) + 1 if self.slot in self._queue else 0
        return number, len(self._queue)

    @property
    def suggestion(self) -> Suggestion | None:
        """What the bundle says of the slot shown."""
        return None if self.slot is None else self._scenes.suggestions.get(self.slot)

    @property
    def following(self) -> list[int]:
        """The next slots, whose pictures may be fetched ahead."""
        number = self.place[0]
        return self._queue[number : number + 3]

    def choose(self, wanted: Wanted) -> None:
        """Show other slots."""
        self.wanted = wanted
        self._queue = self._find()
        if self.slot not in self._queue:
            self._show(self._queue[0] if self._queue else None)

    def press(self, key: str, slot: int | None) -> None:
        """A key was pressed while `slot` was on the screen.

        Raises:
            DataError: the disk does not take the label.
        """
        self.message = ""
        if slot != self.slot:
            return  # typed ahead: nobody has seen the picture that is there now
        key = key.lower() if len(key) == 1 else key
        if key == "ArrowRight":
            self.move(1)
        elif key == "ArrowLeft":
            self.move(-1)
        elif key == UNDO:
            self.undo()
        elif key == LEAVE_OUT:
            self.label(LEFT_OUT)
        elif key == ACCEPT and self.suggestion:
            self.accept()
        elif len(key) == 1 and key in KEYS and KEYS.index(key) < len(self._labels.classes):
            self.label(self._labels.classes[KEYS.index(key)])

    def accept(self) -> None:
        """Agree with the bundle.

        Raises:
            DataError: as `press`.
        """
        if self.suggestion is None:
            return
        if self.suggestion.label in self._labels.classes:
            self.label(self.suggestion.label)
        else:
            self.message = f"there is no class {self.suggestion.label!r} here; make it first"

    def label(self, label: str) -> None:
        """Label the slot shown and go on to the next.

        Raises:
            DataError: as `press`.
        """
        if self.slot is None:
            return
        if not self._labels.change(self.slot, self.shown, label):
            self.shown = self._labels.get(self.slot)
            self.message = f"it is {self.shown or 'unlabelled'} by now, from elsewhere: look again"
            return
        self._history.append((self.slot, self.shown, label))
        rest = self._queue[self.place[0] :]
        self._queue = self._find()
        wanted = set(self._queue)
        ahead = next((slot for slot in rest if slot in wanted), None)
        if ahead is None and self._queue:
            # At the end; what is left was passed over.
            ahead = self._queue[0] if self.wanted.show == "unlabelled" else self.slot
        self._show(ahead)

    def undo(self) -> None:
        """Take back this tab's last label, and show that slot.

        Raises:
            DataError: as `press`.
        """
        if not self._history:
            self.message = "nothing to undo"
            return
        slot, before, label = self._history.pop()
        if not self._labels.change(slot, label, before):
            self.message = "it was labelled again elsewhere since: not undone"
        self._queue = self._find()
        if slot not in self._queue:
            self._queue.insert(0, slot)
        self._show(slot)

    def move(self, step: int) -> None:
        """Show the next or the last slot, without a label."""
        if not self._queue:
            return
        number = self.place[0] - 1 + step
        self._show(self._queue[max(0, min(number, len(self._queue) - 1))])

    def look_again(self) -> bool:
        """Take note of what other tabs have done; whether what is shown has changed."""
        if self.slot is None:
            self._queue = self._find()
            self._show(self._queue[0] if self._queue else None)
            return self.slot is not None
        now = self._labels.get(self.slot)
        changed = now != self.shown
        self.shown = now
        return changed

    def _find(self) -> list[int]:
        scenes = self._scenes
        labels = self._labels.all()
        return queue(scenes.slots, scenes.seen_by, labels, scenes.suggestions, self.wanted)

    def _show(self, slot: int | None) -> None:
        self.slot = slot
        self.shown = None if slot is None else self._labels.get(slot)
