"""What `make deploy` ships to a host, installed by pip into a folder of this machine."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "deploy"))
import wheels  # noqa: E402 what `make deploy` collects packages with


def install(extra, machine, python, target, more=()):
    """The wheel of this checkout and what `ddnn[extra]` needs, into an emptied `target`.

    Args:
        machine, python: whose packages, for example `aarch64` and `3.11`.
        more: further wheels.

    Returns:
        Names and versions of the packages.
    """
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [*pip, "wheel", "--no-deps", "--wheel-dir", folder, str(REPOSITORY)],
            check=True,
            env=os.environ | {"SOURCE_DATE_EPOCH": "315532800"},
        )
        (wheel,) = Path(folder).glob("ddnn-*.whl")
        house = wheels.collect(wheel, extra, machine, python, REPOSITORY / "build" / "wheels")
    found = [*sorted(house.iterdir()), *more]
    names = ["==".join(path.name.split("-")[:2]) for path in found]
    platforms = [f"--platform={name}_{machine}" for name in wheels.PLATFORMS[machine]]
    links = [f"--find-links={folder}" for folder in {path.parent for path in found}]
    shutil.rmtree(target, ignore_errors=True)
    # pip would compare what packages ask for with this Python and not with that one.
    subprocess.run(
        [
            *pip, "install", "--no-index", "--no-deps", "--no-compile", "--only-binary=:all:",
            "--ignore-requires-python", "--root-user-action=ignore", *links, f"--target={target}",
            *platforms,
            "--implementation=cp", f"--python-version={python}", *names,
        ],
        check=True,
    )  # fmt: skip
    return names
