"""Programs of Debian packages that were unpacked into a folder and not installed.

`scripts/fetch-debs` unpacks them where the system has none, as anybody and without a trace in the
system. What an installed program finds by itself, an unpacked one must be told: its libraries.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path


def library_env(folder: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables with which a program of `folder` finds its libraries, before all others.

    Debian's are in `lib` or `usr/lib`, in a folder named for the processor; some packages
    (pulseaudio, systemd) keep their own one folder below.

    Args:
        folder: what packages were unpacked into; empty or missing: there is nothing to tell.
        environ: what `LD_LIBRARY_PATH` is added to, instead of `os.environ`.
    """
    environ = os.environ if environ is None else environ
    places = ("lib/*/*.so*", "usr/lib/*/*.so*", "lib/*/*/*.so*", "usr/lib/*/*/*.so*")
    folders = sorted({found.parent for place in places for found in folder.glob(place)})
    if not folders:
        return {}
    inherited = environ.get("LD_LIBRARY_PATH")
    paths = [*map(str, folders), *([inherited] if inherited else [])]
    return {"LD_LIBRARY_PATH": os.pathsep.join(paths)}


def find_program(name: str, package: str) -> tuple[str, dict[str, str]] | None:
    """A program and the variables that it needs: unpacked, or else the system's.

    Args:
        package: the folder in the virtual environment that it is unpacked into where the system
            has none.
    """
    folder = Path(sys.prefix, package)
    if (private := folder / "usr/bin" / name).exists():
        return str(private), library_env(folder)
    found = shutil.which(name)
    return (found, {}) if found else None


if __name__ == "__main__":  # for scripts/setup
    print(library_env(Path(sys.argv[1])).get("LD_LIBRARY_PATH", ""))
