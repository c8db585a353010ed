"""A real PostgreSQL for tests: in a folder of its own, on loopback, ended with the tests.

PostgreSQL refuses to run as root; then it runs as `postgres` or `nobody`, whichever is there.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import pytest

from broker.mosquitto import free_port
from broker.unpacked import library_env

#: Unpacked by `make setup-dev`.
PRIVATE = Path(sys.prefix, "postgresql")


def find_programs() -> Path | None:
    """The folder of `initdb` and `postgres`: of the virtual environment, the system, or None."""
    for root in (PRIVATE / "usr/lib/postgresql", Path("/usr/lib/postgresql")):
        for folder in sorted(root.glob("*/bin"), reverse=True):
            if (folder / "initdb").exists() and (folder / "postgres").exists():
                return folder
    found = shutil.which("initdb")
    return Path(found).parent if found and shutil.which("postgres") else None


class Postgres:
    """One server; `stop()` and `start()` in the middle play an outage."""

    def __init__(self) -> None:
        programs = find_programs()
        if programs is None:
            pytest.skip("no PostgreSQL server here: apt install postgresql")
        self._programs = programs
        self._unpacked = PRIVATE if programs.is_relative_to(PRIVATE) else None
        self._user = _unprivileged()
        # Not pytest's folder: another user must be able to enter every folder above.
        self._folder = Path(tempfile.mkdtemp(prefix="ddnn-postgres-"))
        if self._user:
            shutil.chown(self._folder, self._user)
            if not self._may_run():
                # Unpacked where that user may not look, as in root's home. It finds its own
                # files beside the program, wherever that is.
                self._unpacked = self._folder / "program"
                shutil.copytree(PRIVATE, self._unpacked, symlinks=True)
                self._unpacked.chmod(0o755)
                self._programs = self._unpacked / programs.relative_to(PRIVATE)
        self.port = free_port()
        self._server: subprocess.Popen[bytes] | None = None
        subprocess.run(
            [
                self._programs / "initdb",
                "-D",
                self._data,
                "-A",
                "trust",
                "-U",
                "ddnn",
                "-E",
                "UTF8",
                "--no-sync",
            ],
            check=True,
            capture_output=True,
            env=self._environment,
            user=self._user,
            cwd=self._folder,
            timeout=120,
        )

    def _may_run(self) -> bool:
        try:
            subprocess.run(
                [self._programs / "initdb", "--version"],
                check=True,
                capture_output=True,
                env=self._environment,
                user=self._user,
                cwd=self._folder,
            )
        except PermissionError:
            return False
        return True

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    @property
    def url(self) -> str:
        """For `Records`."""
        return f"postgresql://ddnn@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._folder),
            "shared_buffers": "16MB",
            # These tests end processes and not the machine: the kernel keeps what is written.
            "fsync": "off",
        }
        arguments = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
        self._server = subprocess.Popen(
            [str(self._programs / "postgres"), "-D", self._data, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            user=self._user,
            cwd=self._folder,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, "PostgreSQL does not answer"
                time.sleep(0.1)
            else:
                return

    def stop(self) -> None:
        """End it as a crash would: transactions are cut off."""
        if self._server is not None:
            # Its word for "immediate": no checkpoint, and it takes its children with it.
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(20)
            self._server = None

    def empty(self) -> None:
        """Remove all tables."""
        with psycopg.connect(self.url) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")

    def close(self) -> None:
        """End it and remove its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _environment(self) -> dict[str, str]:
        paths = library_env(self._unpacked, {}) if self._unpacked else {}
        return {"PATH": os.environ["PATH"], "LC_ALL": "C"} | paths


def _unprivileged() -> str | None:
    """A user to become where this is root; None: it is not."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            pwd.getpwnam(name)
            return name
    pytest.skip("PostgreSQL does not run as root, and there is no other user")


if __name__ == "__main__":  # for scripts/setup
    programs = find_programs()
    if programs is None:
        sys.exit("no PostgreSQL server here: tests on it are skipped; apt install postgresql")
    print(programs)
