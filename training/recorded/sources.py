"""Where recordings are fetched from: folders on this machine, or Pis over ssh."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from ddnn.errors import ConfigError, DdnnError

#: Where an installed agent records (deploy/).
ON_A_PI = "/var/lib/ddnn/device/recordings"
_HOST = re.compile(r"(?:[\w.-]+@)?(?P<host>[\w.-]+|\[[0-9a-fA-F:]+\])(?::(?P<port>\d{1,5}))?")
#: rsync's own word for files that went away while it looked: a camera makes room.
VANISHED = 24


class Host(NamedTuple):
    """A machine that ssh reaches.

    Attributes:
        name: user@host.
        port: None: ssh's own choice.
    """

    name: str
    port: int | None


def parse(text: str) -> Host | Path:
    """A source as the command line has it: a folder that exists, or `user@host[:port]`.

    Raises:
        ConfigError: neither.
    """
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder
    match = _HOST.fullmatch(text)
    if match is None or text.startswith("-"):
        raise ConfigError(f"{text!r} is no folder here and no host such as pi@cam0 or pi@cam0:2222")
    if match["port"] is None:
        return Host(text, None)
    return Host(text.rpartition(":")[0], int(match["port"]))


def fetch(source: Host | Path, target: Path, recordings: str, *, sudo: bool = True) -> None:
    """Bring every file of `source` that `target` does not have; nothing is deleted anywhere.

    Each file is there whole or not at all, so that a fetch that was interrupted goes on.

    Args:
        target: the data set's folder of pictures; made if it is not there.
        recordings: their folder on a host.
        sudo: read them on a host as root: they belong to the service's user.

    Raises:
        DdnnError: they cannot be fetched, and why.
    """
    target.mkdir(parents=True, exist_ok=True)
    if isinstance(source, Path):
        _copy(source, target)
        return
    rsync = shutil.which("rsync")
    if rsync is None:
        raise DdnnError("rsync is not installed here: apt install rsync")
    ssh = "ssh -o BatchMode=yes -o ConnectTimeout=10"
    if source.port is not None:
        ssh += f" -p {source.port}"
    command = [rsync, "-rt", "--exclude=.*", f"--rsh={ssh}"]
    if sudo:
        command.append("--rsync-path=sudo -n rsync")
    if sys.stdout.isatty():
        command.append("--info=progress2")
    command += ["--", f"{source.name}:{recordings.rstrip('/')}/", f"{target}/"]
    result = subprocess.run(
        command, stderr=subprocess.PIPE, text=True, errors="replace", check=False
    )
    if result.returncode not in (0, VANISHED):
        said = (result.stderr.strip().splitlines() or ["it said nothing"])[0]
        raise DdnnError(f"{source.name}: rsync ended with {result.returncode}: {said}")


def _copy(source: Path, target: Path) -> None:
    """A folder on this machine: a mounted SD card, an agent that runs here."""
    try:
        for path in sorted(source.rglob("*")):
            relative = path.relative_to(source)
            if any(part.startswith(".") for part in relative.parts) or not path.is_file():
                continue
            own = target / relative
            if own.exists() and own.stat().st_size == path.stat().st_size:
                continue
            own.parent.mkdir(parents=True, exist_ok=True)
            fresh = own.with_name(f".{own.name}.new")
            shutil.copy2(path, fresh)
            fresh.replace(own)
    except OSError as error:
        raise DdnnError(f"{source} cannot be copied: {error}") from error
