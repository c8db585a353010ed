"""How the pages look, and the few elements that NiceGUI has no own name for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

#: Of every page.
CSS = Path(__file__).with_name("pages.css").read_text(encoding="utf-8")


class Text(TextElement):
    """Any HTML element that holds text; whatever the text is, it is shown as it is.

    Args:
        tag: for example `h2`.
        classes: of CSS.
        attributes: of HTML, `aria_label` being `aria-label`.
    """

    def __init__(self, tag: str, text: str = "", classes: str = "", **attributes: object) -> None:
        super().__init__(tag=tag, text=text)
        self._look = classes
        self.classes(classes)
        for name, value in attributes.items():
            self.props[name.replace("_", "-")] = value

    def show(self, text: str, classes: str | None = None) -> None:
        """Another text, and perhaps other classes; what is the same is not sent again."""
        self.text = text
        if classes is not None and classes != self._look:
            self._look = classes
            self.classes(replace=classes)


class Box(ui.element):
    """Any HTML element that holds others."""

    def __init__(self, tag: str, classes: str = "", **attributes: object) -> None:
        super().__init__(tag)
        self._look = classes
        self.classes(classes)
        for name, value in attributes.items():
            self.props[name.replace("_", "-")] = value

    def look(self, classes: str) -> None:
        """Other classes; what is the same is not sent again."""
        if classes != self._look:
            self._look = classes
            self.classes(replace=classes)

    def attribute(self, name: str, value: object) -> None:
        """Another value of an attribute; what is the same is not sent again."""
        if self.props.get(name) != value:
            self.props[name] = value


class Field(Box):
    """A plain input or choice: the browser's own, which every keyboard and screen reader knows.

    Args:
        tag: `input` or `select`.
        changed: called with the field's text.
        event: `change` when it is left or let go, `input` at each step.
    """

    HANDLER = "(event) => emit(event.target.value)"

    def __init__(
        self,
        tag: str,
        changed: Callable[[str], object],
        classes: str = "field",
        event: str = "change",
        **attributes: object,
    ) -> None:
        super().__init__(tag, classes, **attributes)
        self.on(
            event,
            lambda said: changed(str(said.args)[:200]),
            throttle=0.05,
            js_handler=self.HANDLER,
        )

    def name_it(self, label: Text) -> None:
        """`label` names this field."""
        label.props["for"] = self.html_id


class Slider(Field):
    """A slider over numbered choices, in the browser's own way.

    Nothing of it is sent again: a slider that is told its value jumps back to where it was. What a
    choice means to those who do not see it goes with it beforehand.

    Args:
        name: of the slider.
        choices: in words.
        chosen: number of the first one.
    """

    HANDLER = """(event) => {
      const said = event.target.dataset.said.split("|")[event.target.value];
      event.target.setAttribute("aria-valuetext", said);
      emit(event.target.value);
    }"""

    def __init__(
        self, name: str, choices: Sequence[str], chosen: int, moved: Callable[[str], object]
    ) -> None:
        super().__init__(
            "input", moved, "slider", "input", type="range", min="0", max=str(len(choices) - 1),
            aria_label=name, aria_valuetext=choices[chosen],
            data_said="|".join(choice.replace("|", " ") for choice in choices),
        )  # fmt: skip
        # "^": an attribute, which a browser begins with. Vue writes a property at every turn.
        self.props["^value"] = str(chosen)


class Button(Text):
    """A plain button, which every keyboard and screen reader knows."""

    def __init__(self, text: str, classes: str = "button", **attributes: object) -> None:
        super().__init__("button", text, classes, type="button", **attributes)

    def enable(self, enabled: bool) -> None:
        """Whether it can be pressed."""
        if self.props.get("disabled", False) == enabled:
            self.props["disabled"] = not enabled


class Card(Box):
    """A section with a heading, which names it.

    Args:
        name: for its id; the heading's text is `title`.
    """

    def __init__(self, name: str, title: str, classes: str = "") -> None:
        super().__init__("section", f"card {classes}", id=name, aria_labelledby=f"{name}-title")
        with self:
            self.title = Text("h2", title, id=f"{name}-title")


class Stats(Box):
    """Numbers with names: a description list."""

    def __init__(self, *names: str) -> None:
        super().__init__("dl", "stats")
        self._values: dict[str, tuple[Text, Text]] = {}
        with self:
            for name in names:
                with Box("div"):
                    Text("dt", name)
                    self._values[name] = Text("dd", "–"), Text("dd", "", "small-dd")

    def show(self, name: str, value: str, more: str = "") -> None:
        """A number and what is to be said with it."""
        first, second = self._values[name]
        first.show(value)
        second.show(more)
