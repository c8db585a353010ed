"""A real, headless Chromium for tests of pages.

Found in this order: $CHROMIUM, `chromium/` in the virtual environment (unpacked by `make
setup-dev`), $PATH. `python -m tests.browser` prints the program, or says what to do.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from broker.unpacked import library_env

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Nothing of its own shall call home, and a test machine has no GPU.
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
#: Where the tests keep pictures of pages, for people and CI to look at.
SCREENSHOTS = Path(__file__).resolve().parents[1] / "build" / "screenshots"

_running: list[Browser] = []


class Chromium(NamedTuple):
    """A Chromium that is there, and the variables that it needs."""

    path: Path
    env: dict[str, str]


class NoBrowser(Exception):
    """There is no Chromium here; says what to do."""


def find_chromium(
    environ: Mapping[str, str] | None = None, private_dir: Path | None = None
) -> Chromium:
    """The Chromium to use.

    Args:
        environ: read instead of `os.environ`.
        private_dir: unpacked Debian packages, instead of `chromium/` in the virtual environment.

    Raises:
        NoBrowser: there is none, or $CHROMIUM names none.
    """
    environ = os.environ if environ is None else environ
    private_dir = Path(sys.prefix, "chromium") if private_dir is None else private_dir
    if chosen := environ.get("CHROMIUM"):
        found = shutil.which(chosen, path=environ.get("PATH"))
        if found is None:
            raise NoBrowser(f"CHROMIUM={chosen} is not a program")
        return Chromium(Path(found), {})
    # Debian's launcher looks for its parts in /usr/lib; unpacked, the program itself is run.
    private = private_dir / "usr/lib/chromium/chromium"
    if private.is_file():
        return Chromium(private, _private_env(private_dir, environ))
    for name in PROGRAMS:
        if found := shutil.which(name, path=environ.get("PATH", os.defpath)):
            return Chromium(Path(found), {})
    raise NoBrowser(
        "no Chromium was found: `make setup-dev` unpacks Debian's; else install one, or say where "
        "it is: CHROMIUM=/path/to/chromium"
    )


def _private_env(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Where unpacked packages have their libraries and fonts."""
    env = library_env(folder, environ)
    if not Path("/etc/fonts/fonts.conf").is_file():
        env["FONTCONFIG_PATH"] = str(folder / "etc/fonts")
    return env


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running browser; it is ended with everything that it has opened.

    Without a sandbox: root has none, nor have most containers, and it only visits our own pages.
    One that runs already is used again: Playwright starts once in a thread.

    Raises:
        NoBrowser: there is none.
    """
    if _running:
        yield _running[-1]
        return
    program = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program.path,
            args=list(FLAGS),
            env={**os.environ, **program.env},
            chromium_sandbox=False,
        )
        _running.append(browser)
        try:
            yield browser
        finally:
            _running.clear()
            browser.close()


class Visit:
    """A browser window of its own (cookies and all), and what its pages asked for and said.

    Args:
        size: of the window, in CSS pixels.
        dark: what the system prefers.
        touch: a phone's finger instead of a mouse.

    Attributes:
        page: the window's page.
        requests: addresses of everything that was loaded, websockets included.
        errors: what was written to the console as an error, or raised by a script.
    """

    def __init__(
        self,
        browser: Browser,
        *,
        size: tuple[int, int] = (1280, 900),
        dark: bool = False,
        touch: bool = False,
    ) -> None:
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.context: BrowserContext = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
            has_touch=touch,
            is_mobile=touch,
            reduced_motion="reduce",
        )
        self.page: Page = self.context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("websocket", lambda socket: self.requests.append(socket.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "console",
            lambda said: self.errors.append(said.text) if said.type == "error" else None,
        )

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def foreign_requests(self, host: str) -> list[str]:
        """Addresses on any other host (`name:port`) than the page's own."""
        inline = ("data:", "blob:")
        return [
            url
            for url in self.requests
            if not url.startswith(inline) and urlsplit(url).netloc != host
        ]

    def screenshot(self, name: str, *, full_page: bool = True) -> Path:
        """Keep a picture of the page as `build/screenshots/NAME.png`."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=path, full_page=full_page, animations="disabled")
        return path


if __name__ == "__main__":
    try:
        print(find_chromium().path)
    except NoBrowser as error:
        sys.exit(str(error))
