"""Hosts for pyinfra, from HOSTS="pi@cam0 pi@cam1:2222" (user and port as in ssh)."""

import os
import re


def parse(
    text: str | None, key: str | None = None, known_hosts: str | None = None
) -> list[tuple[str, dict[str, str | int]]]:
    """`user@host:port ...` -> pyinfra's (name, data) pairs.

    Raises:
        ValueError: something that is not of that form.
    """
    found = []
    for one in (text or "").split():
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


hosts = parse(*map(os.environ.get, ("HOSTS", "SSH_KEY", "SSH_KNOWN_HOSTS")))
