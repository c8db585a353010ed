"""The labelling page: a board (`training.labelling.board`) in a browser."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse
from nicegui import events, run, ui

from ddnn.errors import DdnnError
from training.labelling.board import Board, Scenes
from training.labelling.guard import LoopbackOnly
from training.labelling.queue import is_doubtful, key_of
from training.labelling.suggest import Suggester
from training.recorded.labels import LEFT_OUT, Labels
from training.recorded.views import View

#: How often a tab looks for what other tabs have done.
LOOK_EVERY_S = 1.0
#: A key counts for the slot that was on the screen when it was pressed.
KEYS_SCRIPT = """
<script>
document.addEventListener('keydown', (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest?.('input, textarea, [role=listbox], [role=combobox]')) return;
  const shown = document.querySelector('[data-slot]');
  emitEvent('label_key', {key: event.key, slot: shown ? shown.dataset.slot : null});
});
</script>
"""
STYLE = """
<style>
.view-picture { image-rendering: pixelated; width: 100%; aspect-ratio: 1; object-fit: contain;
  background: #8884; border-radius: 6px; }
.view-absent { width: 100%; aspect-ratio: 1; border: 2px dashed #8888; border-radius: 6px;
  display: flex; align-items: center; justify-content: center; }
.views { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px;
  width: 100%; }
.views > * { max-width: 320px; }
.key { font-family: monospace; border: 1px solid currentColor; border-radius: 4px;
  padding: 0 6px; margin-right: 8px; opacity: .8; }
</style>
"""
#: Text of a button without a ground of its own, readable in light and dark.
INHERIT = "color: inherit !important"
SHOW = {
    "unlabelled": "not labelled yet",
    "uncertain": "bundle uncertain",
    "labelled": "labelled",
    "all": "all",
    "doubtful": "bundle disagrees",
}
ORDER = {"time": "in time", "uncertain": "uncertain first"}


def make_app(folder: Path, scenes: Scenes, labels: Labels, suggester: Suggester) -> FastAPI:
    """The page as an application.

    Args:
        folder: the data set.
        suggester: asked for new suggestions whenever the page is loaded.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(LoopbackOnly)
    files = {
        (slot, camera): folder / view.file
        for slot, views in scenes.views.items()
        for camera, view in views.items()
        if view.state == "present"
    }

    @app.get("/view/{slot}/{camera}")
    def picture(slot: int, camera: int) -> FileResponse:
        """A view's picture, at the camera's resolution where there is one; no other file."""
        path = files.get((slot, camera))
        if path is None:
            raise HTTPException(404)
        region = path.parent / "region" / path.name
        return FileResponse(
            region if region.is_file() else path, headers={"Cache-Control": "max-age=3600"}
        )

    # A new bundle may have thousands of slots to say something about.
    @ui.page("/", response_timeout=600)
    async def page() -> None:
        await run.io_bound(suggester.refresh)
        _Page(folder.resolve().name, scenes, labels, suggester.source).build()

    ui.run_with(
        app,
        title=f"Labels: {folder.resolve().name}",
        dark=None,
        show_welcome_message=False,
        reconnect_timeout=30,
    )
    return app


class _Page:
    """One tab."""

    def __init__(self, name: str, scenes: Scenes, labels: Labels, source: str) -> None:
        self._name = name
        self._scenes = scenes
        self._labels = labels
        self._source = source
        self._board = Board(scenes, labels)
        self._changes = labels.changes
        self._label_filter: ui.select | None = None

    def build(self) -> None:
        """Lay the page out."""
        ui.colors(primary="#2a68ad", secondary="#00695c", positive="#1b5e20", negative="#b3261e")
        ui.add_head_html(STYLE)
        ui.add_body_html(KEYS_SCRIPT)
        ui.on("label_key", self._on_key)
        ui.timer(LOOK_EVERY_S, self._look_again)
        with ui.column().classes("w-full max-w-6xl mx-auto p-2 gap-3"):
            self._filters()
            self._progress()
            with ui.element("main").classes("w-full"):
                self._scene()
            with ui.element("section").classes("w-full").props('aria-label="Classes"'):
                self._classes()
                self._new_class()
            ui.label(
                "Keys: a class by its key, x leave out, u undo, arrows back and on"
                + (", 0 agree with the suggestion" if self._source else "")
                + ". Every label is on the disk at once."
            ).classes("text-sm opacity-70")

    def _filters(self) -> None:
        wanted = self._board.wanted
        with ui.row().classes("w-full items-center gap-4"):
            ui.label(self._name).classes("text-xl font-bold").props('role="heading" aria-level="1"')
            show = {k: v for k, v in SHOW.items() if self._source or not v.startswith("bundle")}
            ui.select(show, value=wanted.show, label="Show", on_change=self._filter("show"))
            self._label_filter = ui.select(
                self._label_choices(), value="", label="Class",
                on_change=self._filter("label", lambda v: v or None),
            ).classes("min-w-24")  # fmt: skip
            cameras = {-1: "any"} | {c: str(c) for c in self._scenes.cameras}
            ui.select(
                cameras, value=-1, label="Camera",
                on_change=self._filter("camera", lambda v: None if v < 0 else v),
            ).classes("min-w-24")  # fmt: skip
            if self._source:
                ui.select(ORDER, value=wanted.order, label="Order", on_change=self._filter("order"))
                ui.label(f"suggestions: {self._source}").classes("text-sm opacity-70")

    def _label_choices(self) -> dict[str, str]:
        return {"": "any", **{name: name for name in self._labels.classes}, LEFT_OUT: "left out"}

    def _filter(
        self, field: str, convert: Callable[[Any], Any] = lambda v: v
    ) -> Callable[..., None]:
        def changed(event: events.ValueChangeEventArguments[Any]) -> None:
            wanted = self._board.wanted._replace(**{field: convert(event.value)})
            if wanted.label and wanted.show == "unlabelled" and not self._source:
                ui.notify("slots without a label have no class: choose what to show as well")
            self._board.choose(wanted)
            self._refresh()

        return changed

    @ui.refreshable_method
    def _progress(self) -> None:
        labels = self._labels.all()
        done, total = sum(slot in labels for slot in self._scenes.slots), len(self._scenes.slots)
        with ui.row().classes("w-full items-center gap-4"):
            ui.linear_progress(done / total if total else 1.0, show_value=False).classes("grow")
            ui.label(f"{done} of {total} labelled").props('data-testid="progress" role="status"')

    @ui.refreshable_method
    def _scene(self) -> None:
        slot = self._board.slot
        if slot is None:
            with ui.card().classes("w-full items-center p-8"):
                ui.label("Nothing left to show with these filters.").classes("text-lg")
                ui.label("Undo with u, or show others above.").classes("opacity-70")
            return
        views = self._scenes.views[slot]
        number, count = self._board.place
        when = datetime.fromtimestamp(min(view.time_s for view in views.values())).astimezone()
        with ui.column().classes("w-full gap-2").props(f'data-slot="{slot}"'):
            with ui.row().classes("items-center gap-4 min-h-8"):
                ui.label(f"{when:%Y-%m-%d %H:%M:%S}").classes("text-lg")
                ui.label(f"{number} of {count} shown").classes("opacity-70")
                label = self._board.shown
                if label is not None:
                    text = "left out" if label == LEFT_OUT else label
                    ui.badge(text, color="positive").props('data-testid="label"')
                suggestion = self._board.suggestion
                if suggestion is not None:
                    doubt = is_doubtful(label, suggestion)
                    ui.badge(
                        f"suggestion: {suggestion.label} {suggestion.probability:.0%}",
                        color="negative" if doubt else "secondary",
                    ).props('data-testid="suggestion"')
            with ui.element("div").classes("views"):
                for camera in self._scenes.cameras:
                    _view(camera, views.get(camera))
        for ahead in self._board.following:
            for view in self._scenes.views[ahead].values():
                if view.state == "present":
                    ui.element("link").props(f'rel="prefetch" href="{_address(view)}"')

    @ui.refreshable_method
    def _classes(self) -> None:
        counts = self._labels.counts()
        with ui.row().classes("w-full gap-2"):
            for number, name in enumerate(self._labels.classes):
                self._button(key_of(number), f"{name} ({counts[name]})", name)
                if not counts[name]:
                    self._removal(name)
            self._button("x", f"leave out ({counts[LEFT_OUT]})", LEFT_OUT)
            if self._board.suggestion is not None:
                with (
                    ui.button(on_click=lambda: self._do(self._board.accept))
                    .props("outline no-caps")
                    .style(INHERIT)
                ):
                    ui.html('<span class="key">0</span>', sanitize=False)
                    ui.label("agree")
            with (
                ui.button(on_click=lambda: self._do(self._board.undo))
                .props("flat no-caps")
                .style(INHERIT)
            ):
                ui.html('<span class="key">u</span>', sanitize=False)
                ui.label("undo")

    def _button(self, key: str, text: str, label: str) -> None:
        with ui.button(on_click=lambda: self._do(lambda: self._board.label(label))) as button:
            if key:
                ui.html(f'<span class="key">{key}</span>', sanitize=False)
            ui.label(text)
        button.props("no-caps" + (" outline" if label == LEFT_OUT else ""))
        if label == LEFT_OUT:
            button.style(INHERIT)

    def _removal(self, name: str) -> None:
        """For a class that was mistyped: no slot has it."""

        def remove() -> None:
            self._do(lambda: self._labels.remove_class(name))

        button = ui.button("×", on_click=remove).props("flat dense").style(INHERIT)
        button.props["aria-label"] = f"remove {name}"  # not parsed: a name may hold quotes

    def _new_class(self) -> None:
        with ui.row().classes("items-center gap-2"):
            name = ui.input("New class").props("dense maxlength=40")

            def add() -> None:
                try:
                    self._labels.add_class(name.value or "")
                except DdnnError as error:
                    ui.notify(str(error), type="warning")
                    return
                name.value = ""
                self._refresh()

            name.on("keydown.enter", add)
            ui.button("add", on_click=add).props("flat no-caps").style(INHERIT)
            if not self._labels.classes:
                ui.label("Begin here: what can be in the pictures?").classes("opacity-70")

    def _on_key(self, event: events.GenericEventArguments) -> None:
        key, slot = event.args.get("key"), event.args.get("slot")
        if isinstance(key, str):
            number = int(slot) if isinstance(slot, str) and slot.isdecimal() else None
            self._do(lambda: self._board.press(key, number))

    def _do(self, action: Callable[[], None]) -> None:
        try:
            action()
        except DdnnError as error:
            ui.notify(str(error), type="negative", timeout=0, close_button=True)
        if self._board.message:
            ui.notify(self._board.message, type="warning")
        self._refresh()

    def _look_again(self) -> None:
        if self._labels.changes != self._changes:
            self._board.look_again()
            self._refresh()

    def _refresh(self) -> None:
        self._changes = self._labels.changes
        if self._label_filter is not None and self._label_filter.options != self._label_choices():
            self._label_filter.set_options(self._label_choices())
        self._progress.refresh()
        self._scene.refresh()
        self._classes.refresh()


def _view(camera: int, view: View | None) -> None:
    with ui.column().classes("gap-1 w-full"):
        if view is None or view.state == "absent":
            with ui.element("div").classes("view-absent"):
                # Not recorded: switched off, over its hourly limit, its picture lost.
                ui.label("absent" if view else "not recorded").classes("opacity-70")
        else:
            ui.element("img").classes("view-picture").props(
                f'src="{_address(view)}" alt="camera {camera}"'
            )
        ui.label(f"camera {camera}").classes("text-sm opacity-70")


def _address(view: View) -> str:
    """Where the browser finds a view's picture."""
    return f"/view/{view.slot}/{view.camera}"
