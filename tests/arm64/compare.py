"""Sections on emulated arm64 processors against this machine. Called by `make test-arm64`.

    python -m tests.arm64.compare ROOT FOLDER

ROOT is what `scripts/fetch-arm64` made. Bundles of random weights are made here, the reference
bundle joins them where there is one; both sides run `run_sections.py` on them. Exit status 1
where anything differs.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from ddnn.store import write_folder
from tests.arm64.bundles import bundles

REPOSITORY = Path(__file__).resolve().parents[2]
#: What is emulated: a Raspberry Pi 4, a Pi 5 (dot products), and everything the emulator knows.
PROCESSORS = ("cortex-a72", "cortex-a76", "max")
TIMEOUT_S = 1800


def prepare(folder, root):
    """Bundles into `folder`; these and the programs that read them into the root."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, bundle in bundles().items():
        write_folder(folder / name, bundle)
    reference = REPOSITORY / "models" / "reference"
    if reference.is_dir():
        shutil.copytree(reference, folder / "reference")
    inside = root / "work"
    shutil.rmtree(inside, ignore_errors=True)
    shutil.copytree(folder, inside / "bundles")
    shutil.copytree(
        REPOSITORY / "ddnn", inside / "ddnn", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(Path(__file__).with_name("run_sections.py"), inside)


def here(folder):
    """Report of this machine."""
    program = Path(__file__).with_name("run_sections.py")
    return _report([sys.executable, str(program), str(folder)], {"PYTHONPATH": str(REPOSITORY)})


def emulated(root, processor):
    """Report of an emulated processor; in a root of its own, without /sys, mounting nothing."""
    interpreter = (root / "interpreter").read_text().strip()
    change_root = ["chroot", str(root)]
    if os.geteuid():  # a namespace in which we are root
        change_root = ["unshare", "--map-root-user", f"--root={root}"]
    command = [*change_root, "/qemu", "-cpu", processor, f"/usr/bin/{interpreter}"]
    return _report(
        [*command, "/work/run_sections.py", "/work/bundles"],
        {"PYTHONPATH": "/site:/work", "PYTHONDONTWRITEBYTECODE": "1"},
    )


def _report(command, more):
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"} | more
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode:
        sys.exit(
            f"failed with status {done.returncode}: {' '.join(command)}\n{done.stderr[-3000:]}"
        )
    return json.loads(done.stdout)


def main():
    root, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    prepare(folder, root)
    expected = here(folder)
    if expected["machine"] not in ("x86_64", "AMD64"):
        sys.exit(f"this machine is {expected['machine']}: nothing to compare with")
    different = 0
    for processor in PROCESSORS:
        begin = time.monotonic()
        got = emulated(root, processor)
        if got["machine"] != "aarch64" or got["versions"] != expected["versions"]:
            sys.exit(f"{processor}: ran on {got['machine']} with {got['versions']}")
        if got["results"].keys() != expected["results"].keys():
            sys.exit(f"{processor}: did not run the same sections")
        wrong = [key for key, value in expected["results"].items() if got["results"][key] != value]
        different += len(wrong)
        print(
            f"{processor}: {len(expected['results']) - len(wrong)} of {len(expected['results'])} "
            f"results are those of x86-64 ({time.monotonic() - begin:.0f} s)"
        )
        for key in wrong:
            print(f"  differs: {key}")
    if different:
        sys.exit(1)
    print(
        f"aarch64 and x86-64 agree in every byte: {', '.join(sorted(map(str, versions(expected))))}"
    )


def versions(report):
    """`name version` of what ran."""
    return (f"{name} {version}" for name, version in report["versions"].items())


if __name__ == "__main__":
    main()
