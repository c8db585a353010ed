"""The real picamera2 with libcamera's virtual camera. Called by `make test-picamera2`.

    python -m tests.picamera2.run ROOT

ROOT is what `scripts/fetch-picamera2` made. The wheel of this checkout and what its extra `device`
needs are installed there; `in_root.py` runs what the agent does with the camera, and then the
agent itself runs with a broker of this machine. Exit status 1 where anything is wrong.
"""

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from PIL import Image

from broker.mosquitto import LocalBroker
from ddnn import topics, wire
from ddnn.mqtt import Client
from ddnn.processes import start_child, stop_children
from ddnn.store import read_folder
from tests.picamera2.in_root import PICTURES
from tests.wheelhouse import install
from training.publish import publish_bundle

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]

SITE, WANTED = "s1", 30
PRELOAD = "/opt/test/fake_dma.so"
#: In mount namespaces of their own, so that nothing of them is left behind.
ENTER = """
mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"
"""
ENVIRONMENT = {
    "PYTHONPATH": "/opt/test:/opt/site",
    "FAKE_FRAME_US": "50000", "LIBCAMERA_LOG_LEVELS": "*:WARN", "LC_ALL": "C.UTF-8",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1",
}  # fmt: skip


def prepare(root):
    """The agent, as `make deploy` would, and this test's files."""
    python = next((root / "usr" / "bin").glob("python3.*")).name.removeprefix("python")
    site, test = root / "opt" / "site", root / "opt" / "test"
    install("device", "x86_64", python, site, sorted((root / "opt" / "wheels").iterdir()))
    shutil.rmtree(test, ignore_errors=True)
    test.mkdir()
    for name in ("sitecustomize.py", "in_root.py"):
        shutil.copy(HERE / name, test)
    subprocess.run(
        ["gcc", "-O1", "-shared", "-fPIC", "-o", test / "fake_dma.so", HERE / "fake_dma.c", "-ldl"],
        check=True,
    )
    shutil.copy(HERE / "virtual.yaml", root / "usr/share/libcamera/pipeline/virtual")


def paint(root, count):
    """Pictures that the virtual camera shows in turn."""
    folder = root / "srv" / "frames"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, (corner, rest) in enumerate(PICTURES[:count]):
        picture = Image.new("RGB", (640, 480), rest)
        picture.paste(corner, (0, 0, 320, 240))
        picture.save(folder / f"{number}.jpg", quality=95)


def command(root, *args):
    enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, str(root)]
    return [*enter, "/usr/bin/env", f"LD_PRELOAD={PRELOAD}", "/usr/bin/python3", *args]


def run_agent(root, folder):
    """The agent with the camera: how many summaries came."""
    came, enough = [], threading.Event()

    def on_summary(message):
        came.append(wire.decode(message.payload))
        if len(came) == WANTED:
            enough.set()

    with LocalBroker(directory=folder / "broker") as broker:
        client = Client(broker.host, broker.port, "test")
        client.subscribe(topics.summary(SITE, 0), on_summary)
        client.start()
        client.wait_connected(10)
        publish_bundle(client, SITE, read_folder(REPOSITORY / "models" / "reference"), 10)
        args = ["-m", "ddnn", "device", "--site", SITE, "--camera", "0", "--broker", broker.host]
        args += ["--port", str(broker.port), "--source", "picamera2:0"]
        # The virtual camera says of a picture when it was asked for it, some pictures before.
        args += ["--frame-age-s", "2"]
        log = folder / "agent.log"
        agent = start_child(command(root, *args), ENVIRONMENT, log)
        begin = time.monotonic()
        try:
            enough.wait(60)
        finally:
            stop_children([agent])
            client.stop()
    if len(came) < WANTED:
        sys.exit(f"WRONG: {len(came)} summaries came in 60 s:\n{log.read_text()[-3000:]}")
    if any(frame.flags or len(frame.body) != 3 for frame in came):
        sys.exit(f"WRONG: {came}")
    slots = [frame.slot for frame in came]
    if slots != sorted(set(slots)):
        sys.exit(f"WRONG: slots {slots}")
    if agent.returncode:
        sys.exit(f"WRONG: the agent ended with {agent.returncode}:\n{log.read_text()[-3000:]}")
    print(
        f"ok     the agent sends a summary per slot: {WANTED} in {time.monotonic() - begin:.0f} s"
    )


def main():
    root = Path(sys.argv[1]).resolve()
    prepare(root)
    for name, count in (("moving", len(PICTURES)), ("frozen", 1)):
        paint(root, count)
        inside = command(root, "/opt/test/in_root.py", name)
        done = subprocess.run(
            inside, env=ENVIRONMENT, stdout=None, stderr=subprocess.PIPE, text=True, timeout=180,
            check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(done.stderr[-3000:])
    paint(root, len(PICTURES))
    with tempfile.TemporaryDirectory() as folder:
        run_agent(root, Path(folder))


if __name__ == "__main__":
    main()
