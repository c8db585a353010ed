"""Make the pictures of docs/own-cameras.md (`python -m scripts.own_cameras_images FOLDER`).

The built-in data set's scenes are recorded as six cameras would have, collected, labelled with the
truth, and trained on for a moment. FOLDER keeps all of it.
"""

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from device_agent.recording import Shelf, png
from tests.browser import Visit, chromium
from tests.label_page import Labelling, press
from training.datasets.load import load

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
SCENES = 300
#: A scene every 20 s, from one afternoon on.
FIRST_S, EVERY_S = 1_770_040_800, 20


def main(folder: Path) -> None:
    """Write the pictures."""
    data = load("generated")
    slots = [FIRST_S + EVERY_S * number for number in range(SCENES)]
    for camera in range(data.cameras):
        shelf = Shelf(folder / "cameras", camera, 10**9)
        for number, slot in enumerate(slots):
            when = datetime.fromtimestamp(slot, UTC)
            if data.seen[number, camera]:
                shelf.put(slot, when, png(data.images[number, camera]), None, ("every", 0))
            else:
                shelf.note(slot, when, ("absent", 0))
    recordings = folder / "recordings"
    print(ddnn("collect", folder / "cameras", "--out", recordings))
    (recordings / "classes.txt").write_text("".join(f"{name}\n" for name in data.classes))
    with chromium() as browser:
        command = ("--bundle", str(ROOT / "models" / "reference"))
        with Labelling(recordings, *command) as page, Visit(browser, size=(1000, 540)) as visit:
            opened = page.open(visit)
            for key in "000":
                press(opened, key)
            visit.page.wait_for_timeout(1500)
            keep(visit, "own-cameras-label")
        rows = (f"{s},{data.classes[k]},\n" for s, k in zip(slots, data.labels, strict=False))
        (recordings / "labels.csv").write_text("slot,label,time\n" + "".join(rows))
        said = ddnn("train", recordings, "--site", "yard", "--epochs", 30)
        report = re.search(r"is it good enough\? (.+)", said)
        assert report is not None, said
        with Visit(browser, size=(900, 1000)) as visit:
            visit.page.goto(f"file://{report[1]}")
            keep(visit, "own-cameras-report")


def ddnn(*args: object) -> str:
    """Run a command; what it printed."""
    command = [sys.executable, "-m", "ddnn", *map(str, args)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def keep(visit: Visit, name: str) -> None:
    """A small picture of the page, for the documents."""
    shot = Image.open(visit.screenshot(name, full_page=False)).convert("RGB")
    shot.quantize(128, dither=Image.Dither.NONE).save(IMAGES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
