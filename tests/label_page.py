"""The labelling page in a browser, for tests: the process that serves it, and a person's keys."""

import subprocess
import sys


class Labelling:
    """A data set and the command that serves its page."""

    def __init__(self, folder, *args):
        self.folder = folder
        self.args = args

    def __enter__(self):
        command = [sys.executable, "-m", "ddnn", "label", str(self.folder), "--port", "0"]
        self.process = subprocess.Popen(
            [*command, *self.args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.address, self.said = None, []
        for line in self.process.stdout:
            self.said.append(line)
            if "label at " in line:
                self.address = line.split()[2]
                break
        assert self.address, "".join(self.said)
        self.host = self.address.removeprefix("http://").rstrip("/")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()

    def open(self, visit):
        visit.page.goto(self.address)
        visit.page.wait_for_selector("[data-slot]", timeout=20_000)
        return visit.page


def shown(page):
    return int(page.get_attribute("[data-slot]", "data-slot"))


def press(page, key):
    """Press a key and wait for the next slot, as a person does."""
    before = shown(page)
    page.keyboard.press(key)
    page.wait_for_function(
        "before => document.querySelector('[data-slot]')?.dataset.slot !== before", arg=str(before)
    )
    return before
