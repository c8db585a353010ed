"""A host to deploy to: Debian with systemd in a container, reached by real ssh on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from broker.unpacked import library_env
from ddnn.processes import start_child

ROOT = Path(__file__).resolve().parents[2]
#: What `scripts/fetch-host` made; what is booted is a copy of its `debian`.
FOLDER = ROOT / "build" / "deploy-host"
#: Boots a folder on a machine whose own init is not systemd and whose cgroups are of the old kind,
#: too: the container gets the new kind in a mount namespace of its own.
BOOT = """
set -e
unified=/sys/fs/cgroup
[ "$(stat -f -c %T $unified)" = cgroup2fs ] || unified=/sys/fs/cgroup/unified
mkdir -p $unified/ddnn-deploy
echo $$ > $unified/ddnn-deploy/cgroup.procs
exec unshare --mount --propagation private bash -c '
    if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then
        umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup
    fi
    exec "$0" -D "$1" -M ddnn-deploy -b --register=no --keep-unit --console=pipe' "$1" "$2"
"""

#: What marks tests that need it.
CONTAINER = [
    pytest.mark.faults,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        os.environ.get("DDNN_TEST_DEPLOY") != "1", reason="boots a container: make test-deploy"
    ),
]


def wait(condition: Callable[[], object], what: str, timeout_s: float) -> None:
    """Wait for it; an assertion fails when it does not come in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def main_pid(host: Host, unit: str) -> int:
    """Process of a service there; 0: it does not run."""
    return int(host.say(f"systemctl show --property=MainPID --value {unit}") or 0)


class Host:
    """The container, from entering to leaving: fresh, with a picture in `/srv/pictures`.

    It ends with this process, however that ends, and what runs left on its disk is of no matter.

    Args:
        work: for keys and logs.
    """

    def __init__(self, work: Path) -> None:
        self.work = work
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.name = f"pi@127.0.0.1:{self.port}"
        self.root = FOLDER / "rootfs"

    def __enter__(self) -> Host:
        shutil.rmtree(self.root, ignore_errors=True)
        subprocess.run(["cp", "-a", "--reflink=auto", FOLDER / "debian", self.root], check=True)
        pictures = self.root / "srv" / "pictures"
        pictures.mkdir()
        Image.new("RGB", (64, 48), (90, 120, 60)).save(pictures / "0.png")
        os.chmod(pictures / "0.png", 0o644)
        key = self.work / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        (self.work / "known_hosts").touch()
        ssh = self.root / "home" / "pi" / ".ssh"
        ssh.mkdir(mode=0o700)
        shutil.copy(f"{key}.pub", ssh / "authorized_keys")
        for path in (ssh, ssh / "authorized_keys"):
            os.chown(path, 1000, 1000)
        drop_in = self.root / "etc" / "ssh" / "sshd_config.d" / "test.conf"
        drop_in.write_text(f"Port {self.port}\nListenAddress 127.0.0.1\n")
        nspawn = FOLDER / "nspawn" / "usr" / "bin" / "systemd-nspawn"
        self._boot = start_child(
            ["bash", "-c", BOOT, "boot", str(nspawn), str(self.root)],
            library_env(FOLDER / "nspawn"),
            self.work / "boot.log",
        )
        deadline = time.monotonic() + 60
        while self.run("true").returncode:
            if time.monotonic() > deadline or self._boot.poll() is not None:
                log_text = (self.work / "boot.log").read_text(errors="replace")
                raise RuntimeError(f"the container does not come up:\n{log_text[-1500:]}")
            time.sleep(0.5)
        return self

    def __exit__(self, *_: object) -> None:
        self.run("sudo systemctl poweroff")
        try:
            self._boot.wait(40)
        except subprocess.TimeoutExpired:
            self._boot.kill()

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command there by ssh."""
        options = ["-q", "-i", self.work / "key", "-p", str(self.port), "-o", "BatchMode=yes"]
        options += ["-o", "StrictHostKeyChecking=no", "-o", "ConnectTimeout=5"]
        options += ["-o", f"UserKnownHostsFile={self.work / 'known_hosts'}"]
        return subprocess.run(
            ["ssh", *options, "pi@127.0.0.1", command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def say(self, command: str) -> str:
        """What a command there says."""
        return self.run(command).stdout.strip()

    def programs(self) -> Path:
        """A folder with an `ssh` that finds this host: what a user's ~/.ssh/config would say."""
        folder = self.work / "programs"
        folder.mkdir(exist_ok=True)
        options = f"-q -i {self.work / 'key'} -p {self.port} -o StrictHostKeyChecking=no"
        options += f" -o UserKnownHostsFile={self.work / 'known_hosts'}"
        (folder / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} {options} "$@"\n')
        (folder / "ssh").chmod(0o755)
        return folder

    def make(self, target: str, **variables: object) -> subprocess.CompletedProcess[str]:
        """`make deploy` and its like, as a user calls them but for the key."""
        return subprocess.run(
            ["make", "--no-print-directory", target, *(f"{k}={v}" for k, v in variables.items())],
            cwd=ROOT,
            env=os.environ
            | {
                "PATH": f"{self.programs()}:{os.environ['PATH']}",
                "SSH_KEY": str(self.work / "key"),
                "SSH_KNOWN_HOSTS": str(self.work / "known_hosts"),
            },
            capture_output=True,
            text=True,
            timeout=850,
            check=False,
        )
