"""Moving a running site's threshold or its traffic budget, with the promise shown first."""

from __future__ import annotations

from collections.abc import Callable

from nicegui import ui

from cloud_service import prediction
from cloud_service.pages import charts
from cloud_service.pages.look import Box, Button, Card, Field, Slider, Stats, Text
from cloud_service.pages.now import put
from cloud_service.prediction import Prediction
from cloud_service.views import BundleView, SiteView
from cloud_service.words import duration, share, shorten, size, tuning_words
from ddnn import topics, tuning
from ddnn.errors import DdnnError
from ddnn.tuning import Tuning

#: Sends a message: topic, payload, retain.
Send = Callable[[str, bytes, bool], object]
#: Changes that can be undone one by one.
MAX_UNDO = 20
#: A gateway answers within a second or two; later than this something is wrong.
PATIENCE_S = 10.0


class TuningPanel:
    """Threshold and budget of one site.

    Args:
        site: its name.
        send: publishes.
        allowed: whether whoever sits there may change anything; asked again at each change.
    """

    def __init__(self, site: str, send: Send, allowed: Callable[[], bool]) -> None:
        self._site, self._send, self._allowed = site, send, allowed
        self._view: SiteView | None = None
        self._bundle: BundleView | None = None
        self._points: tuple[Prediction, ...] = ()
        self._choice = 0
        self._drawn: object = None
        # Until the reader moves it the slider follows what is in force.
        self._force: float | None = None
        self._follows = True
        self._undo: list[Tuning] = []
        self._asked_s: float | None = None
        self._linked = True
        with Card("settings", "Threshold and traffic"):
            # What the gateway makes of a change is said to those who do not see it, too.
            self._state = Text("p", "", "", role="status")
            self._none = Text("p", "", "soft small")
            self._controls = Box("div")
            with self._controls:
                self._threshold_part()
                self._budget_part()
                with Box("div", "row"):
                    self._undo_button = Button("Undo", "button plain")
                    self._undo_button.on("click", self._take_back)
                    self._own_button = Button("Back to the bundle's own", "button plain")
                    self._own_button.on("click", self._back_to_own)

    def _threshold_part(self) -> None:
        with Box("fieldset", "", role="group", aria_label="Threshold"):
            Text("h3", "Threshold of the first exit")
            self._value = Text("p", "", "num")
            self._slider = Box("div")
            self._promise = Stats("Accuracy", "Left at", "Cameras send", "To the cloud")
            self._measured = Text("p", "", "soft small")
            self._chart = ui.echart({}, renderer="svg").classes("chart")
            self._apply = Button("Apply this threshold")
            self._apply.on("click", self._apply_threshold)

    def _budget_part(self) -> None:
        with Box("fieldset", "", role="group", aria_label="Traffic budget"):
            Text("h3", "Or a traffic budget")
            Text(
                "p",
                "The gateway moves the threshold so that all cameras together send so much.",
                "soft small",
            )
            with Box("div", "row"):
                label = Text("label", "Bytes per second")
                budget = Field(
                    "input", self._budget_typed, "field num", type="number", min="1",
                    max="1000000000", inputmode="numeric",
                )  # fmt: skip
                budget.name_it(label)
                self._budget_button = Button("Apply this budget")
                self._budget_button.on("click", self._apply_budget)
            self._budget_said = Text("p", "", "small", role="status")
        self._wanted: float | None = None

    # -- what the reader does ------------------------------------------------------------------

    def _moved(self, value: str) -> None:
        if self._points and value.isdecimal():
            self._choice, self._follows = min(int(value), len(self._points) - 1), False
            self._show_choice()

    def _budget_typed(self, value: str) -> None:
        try:
            self._wanted = float(value)
        except ValueError:
            self._wanted = None
        if self._wanted is not None and not 1 <= self._wanted <= 1e9:
            self._wanted = None
        self._show_budget()
        self._show_buttons()

    def _apply_threshold(self) -> None:
        point = self._chosen()
        if point is not None and self._bundle is not None and self._view is not None:
            asked = self._view.settings.asked
            self._ask(prediction.with_threshold(asked, self._bundle, point.threshold))

    def _apply_budget(self) -> None:
        if self._wanted is not None and self._view is not None:
            self._ask(prediction.with_budget(self._view.settings.asked, self._wanted))

    def _back_to_own(self) -> None:
        if self._view is not None:
            self._ask(prediction.without_changes(self._view.settings.asked))

    def _take_back(self) -> None:
        if self._undo:
            self._ask(self._undo.pop(), undoing=True)

    def _ask(self, wanted: Tuning, *, undoing: bool = False) -> None:
        """Publish settings; the gateway's status says what has become of them."""
        if self._view is None:
            return
        if not self._allowed():
            self._state.show("You may not change settings: sign in as an operator.", "bad")
            return
        if not undoing:
            self._undo = [*self._undo, self._view.settings.asked][-MAX_UNDO:]
        try:
            self._send(topics.settings(self._site), tuning.encode(wanted), True)
        except DdnnError as error:
            self._state.show(f"Not sent: {shorten(str(error))}", "bad")
            return
        self._asked_s = self._view.now_s
        self._follows = True
        self._show_buttons()

    # -- what is shown ---------------------------------------------------------------------------

    def update(self, view: SiteView, *, linked: bool) -> None:
        """Show `view`; `linked`: whether the broker can be reached."""
        before, self._view, self._linked = self._bundle, view, linked
        bundle = self._bundle = view.bundle
        if bundle is None or bundle is not before:
            self._points = prediction.points(bundle) if bundle else ()
            usable = len(self._points) > 1
            self._controls.set_visibility(usable)
            self._none.show("" if usable else _why_not(bundle))
            self._choice = -1
            self._centre()
        elif self._follows and self._in_force() != self._force:
            self._centre()
        self._state.show(*self._state_words(view))
        if self._points:
            self._show_choice()
            self._show_budget()

    def _centre(self) -> None:
        """Put the slider where the threshold in force is."""
        if self._bundle is None or len(self._points) < 2:
            return
        self._force, self._follows = self._in_force(), True
        choice = prediction.nearest(self._bundle, self._force or 0.0)
        if choice == self._choice:
            return  # one that has the keyboard's focus keeps it
        self._choice = choice
        said = [f"T = {p.threshold:.4g}, accuracy {share(p.accuracy)}" for p in self._points]
        self._slider.clear()
        with self._slider:
            Slider("Threshold along the calibrated curve", said, choice, self._moved)

    def _show_choice(self) -> None:
        point, bundle = self._chosen(), self._bundle
        if point is None or bundle is None:
            return
        own = bundle.thresholds.get(bundle.exits[0])
        said = f"T = {point.threshold:.4g}"
        self._value.show(said + ("" if own is None else f" (the bundle's own: {own:.4g})"))
        for name, number, more in charts.predicted(point, bundle.raw_bytes):
            self._promise.show(name, number, more)
        if bundle.calibration is not None:
            self._measured.show(f"As measured on {bundle.calibration.samples} validation samples.")
        self._show_buttons()
        threshold = self._in_force()
        if self._drawn != (shape := (bundle.id, point.threshold, threshold)):
            self._drawn = shape
            force = prediction.at(bundle, threshold) if threshold is not None else None
            put(self._chart, charts.curve(self._points, point, force))

    def _show_budget(self) -> None:
        view, bundle = self._view, self._bundle
        if view is None or bundle is None or self._wanted is None or not view.period_s:
            self._budget_said.show("")
            return
        point = prediction.for_budget(bundle, self._wanted, view.period_s)
        if point is None:
            self._budget_said.show("This bundle has no curve to keep a budget with.")
            return
        least = self._points[-1].frame_bytes / view.period_s
        low = f" It cannot go below {size(least)}/s." if self._wanted < least else ""
        self._budget_said.show(
            f"About T = {point.threshold:.4g}: accuracy {share(point.accuracy)}.{low}"
        )

    def _show_buttons(self) -> None:
        may, view = self._allowed() and self._linked, self._view
        point, force = self._chosen(), self._in_force()
        asked = view.settings.asked if view else Tuning()
        same = point is not None and force is not None and abs(point.threshold - force) < 1e-9
        self._apply.enable(may and point is not None and not same)
        self._budget_button.enable(may and self._wanted not in (None, asked.budget_bytes_s))
        self._undo_button.enable(may and bool(self._undo))
        self._own_button.enable(may and prediction.without_changes(asked) != asked)

    def _state_words(self, view: SiteView) -> tuple[str, str]:
        settings = view.settings
        asked = tuning_words(settings.asked)
        if not self._linked:
            return "Nothing can be changed: there is no connection to the broker.", "bad"
        if settings.state == "refused":
            return f"Refused ({asked}): {shorten(settings.refused or '')}", "bad"
        if settings.state == "default":
            return "In force: the bundle's own thresholds.", ""
        if settings.state == "taken":
            return f"In force, taken by the gateway: {asked}.", "ok"
        waited_s = view.now_s - self._asked_s if self._asked_s is not None else 0.0
        if waited_s > PATIENCE_S:
            return f"Asked for {asked} {duration(waited_s)} ago; the gateway does not say.", "bad"
        return f"Asked for {asked}; waiting for the gateway.", "warning"

    def _chosen(self) -> Prediction | None:
        return self._points[self._choice] if 0 <= self._choice < len(self._points) else None

    def _in_force(self) -> float | None:
        view = self._view
        if view is None or view.bundle is None:
            return None
        settings = view.settings
        return prediction.in_force(view.bundle, settings.taken or Tuning(), settings.thresholds)


def _why_not(bundle: BundleView | None) -> str:
    if bundle is None:
        return "There is nothing to set before a bundle is active."
    if len(bundle.exits) < 2:
        return "This bundle has one exit only, which always answers: there is no threshold."
    return "This bundle has no calibrated curve to move along."
