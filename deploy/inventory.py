"""Hosts for pyinfra, from HOSTS="pi@cam0 pi@cam1:2222" (user and port as in ssh) or SITE."""

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from pyinfra.api.exceptions import PyinfraError

sys.path.insert(0, str(Path(__file__).resolve().parent))
import nodes


def parse(
    hosts: Iterable[str], key: str | None = None, known_hosts: str | None = None
) -> list[tuple[str, dict[str, str | int]]]:
    """`user@host:port ...` -> pyinfra's (name, data) pairs.

    Raises:
        ValueError: something that is not of that form.
    """
    found = []
    for one in hosts:
        match = re.fullmatch(r"(?:([\w.-]+)@)?([\w.-]+|\[[0-9a-fA-F:]+\])(?::(\d+))?", one)
        if match is None:
            raise ValueError(f"{one!r} is not user@host or user@host:port")
        user, host, port = match.groups()
        data: dict[str, str | int] = {"ssh_hostname": host.strip("[]")}
        if user:
            data["ssh_user"] = user
        if port:
            data["ssh_port"] = int(port)
        if key:
            data["ssh_key"] = key
        if known_hosts:
            data["ssh_known_hosts_file"] = known_hosts
        found.append((one, data))
    return found


def wanted() -> list[str]:
    """The hosts that are meant; only a deployment asks what shall run there."""
    if os.environ.get("DDNN_TASK") != "deploy" and not os.environ.get("SITE"):
        return os.environ.get("HOSTS", "").split()
    try:
        return list(nodes.place(os.environ))
    except nodes.DeployError as error:
        raise PyinfraError(str(error)) from error


hosts = parse(wanted(), *map(os.environ.get, ("SSH_KEY", "SSH_KNOWN_HOSTS")))
