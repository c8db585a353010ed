"""Find mosquitto, and run one on this machine's loopback for development, demo and tests.

`make setup` puts mosquitto into a private folder of the virtual environment when the system has
none (scripts/setup); this module only looks for it.
"""

import contextlib
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from types import TracebackType
from typing import Self

from broker.unpacked import library_env
from ddnn.errors import DdnnError
from ddnn.processes import Child, start_child, stop_children

OLDEST_VERSION = (2, 0, 11)
HOST = "127.0.0.1"

_TEMPLATE = Path(__file__).with_name("local.conf")
_PERSISTENCE_TEMPLATE = Path(__file__).with_name("local-persistence.conf")
# Debian's and Homebrew's place, not on every user's PATH.
_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")
_START_ATTEMPTS = 5
# Below Linux's range for outgoing connections (32768 and up). In that range a client that
# reconnects to a dead broker can be given the broker's own port and block its restart.
_PORTS = range(20000, 32768)


@dataclass(frozen=True)
class Mosquitto:
    """A mosquitto program that runs here.

    Attributes:
        unpacked: the folder that its Debian package was unpacked into; None: it is installed.
    """

    path: Path
    version: tuple[int, int, int]
    unpacked: Path | None = None

    @property
    def env(self) -> dict[str, str]:
        """Variables that it needs to find its shared libraries."""
        return library_env(self.unpacked) if self.unpacked else {}


class _Unusable(Exception):
    """Why a mosquitto candidate cannot be used."""


def find_mosquitto(
    environ: Mapping[str, str] | None = None, private_dir: Path | None = None
) -> Mosquitto:
    """The mosquitto to use: $MOSQUITTO, the private folder, $PATH, /usr/sbin, in this order.

    Args:
        environ: read instead of `os.environ`.
        private_dir: an unpacked Debian package, instead of `mosquitto/` in the virtual environment.

    Raises:
        DdnnError: there is none, or $MOSQUITTO names none; says what to do.
    """
    environ = os.environ if environ is None else environ
    private_dir = Path(sys.prefix, "mosquitto") if private_dir is None else private_dir

    chosen = environ.get("MOSQUITTO")
    if chosen:
        found = shutil.which(chosen, path=environ.get("PATH"))
        if found is None:
            raise DdnnError(f"MOSQUITTO={chosen} is not a program")
        try:
            return _probe(Path(found))
        except _Unusable as reason:
            raise DdnnError(f"MOSQUITTO={chosen} cannot be used: {reason}") from None

    on_path = shutil.which("mosquitto", path=environ.get("PATH", os.defpath))
    candidates = [private_dir / "usr/sbin/mosquitto"]
    candidates += [Path(on_path)] if on_path else []
    candidates += [Path(folder, "mosquitto") for folder in _SYSTEM_FOLDERS]
    rejected = []
    for candidate in dict.fromkeys(candidates):
        if not candidate.is_file():
            continue
        try:
            is_private = candidate.is_relative_to(private_dir)
            return _probe(candidate, private_dir if is_private else None)
        except _Unusable as reason:
            rejected.append(f"  {candidate}: {reason}")
    oldest = ".".join(map(str, OLDEST_VERSION))
    lines = [
        f"no mosquitto {oldest} or later was found; this needs the broker's program.",
        *rejected,
        "  In a checkout on Debian, Ubuntu or Raspberry Pi OS: `make setup` (needs no root).",
        "  Else install it with the system's package manager:",
        "    apt install mosquitto | dnf install mosquitto | apk add mosquitto"
        " | brew install mosquitto",
        "  Or say where it is: MOSQUITTO=/path/to/mosquitto",
    ]
    raise DdnnError("\n".join(lines))


def _probe(path: Path, unpacked: Path | None = None) -> Mosquitto:
    """Ask a program for its version; it fails here when one of its libraries is missing."""
    env = {**os.environ, **(library_env(unpacked) if unpacked else {})}
    try:
        done = subprocess.run(
            [path, "-h"], env=env, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Unusable(f"does not run: {error}") from None
    match = re.search(r"mosquitto version (\d+)\.(\d+)(?:\.(\d+))?", done.stdout)
    if match is None:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise _Unusable(f"does not tell its version but says: {said[0]}")
    version = (int(match[1]), int(match[2]), int(match[3] or 0))
    if version < OLDEST_VERSION:
        raise _Unusable(f"is version {match[0].split()[-1]}, too old")
    return Mosquitto(path, version, unpacked)


def render_config(port: int, persistence_dir: Path | None = None) -> str:
    """The text of mosquitto.conf for a local broker.

    Args:
        port: TCP port on loopback.
        persistence_dir: where the broker saves its state; None keeps it in memory only.

    Raises:
        DdnnError: a folder name that cannot stand in a mosquitto configuration.
    """
    persistence = "# Nothing is kept over a restart.\npersistence false"
    if persistence_dir is not None:
        folder = str(persistence_dir)
        if any(character in folder for character in "\r\n") or folder != folder.strip():
            raise DdnnError(f"{folder!r} cannot be used: mosquitto would read another folder name")
        template = Template(_PERSISTENCE_TEMPLATE.read_text(encoding="utf-8"))
        persistence = template.substitute(directory=folder)
    template = Template(_TEMPLATE.read_text(encoding="utf-8"))
    # mosquitto looks at `user` only when it was started by root.
    return template.substitute(port=port, user="root", persistence=persistence)


class LocalBroker:
    """A mosquitto on this machine's loopback that ends with this process, however it ends.

        with LocalBroker() as broker:
            connect(broker.host, broker.port)

    `kill()` and `start()` in the middle play a broker crash: the same port, the same log, and with
    `persistence_dir` the same retained messages.

    Args:
        port: TCP port; None takes a free one.
        directory: for the configuration and the log; None takes a temporary folder, removed at
            the end of the `with` block.
        persistence_dir: where the broker saves its state; None keeps it in memory only.
        mosquitto: the program; None looks for it.
        config: makes the text of mosquitto.conf for a port; None: a local broker's. It must listen
            on loopback and log to stderr.
        start_timeout_s: for how long to wait until it accepts connections.
    """

    host = HOST

    def __init__(
        self,
        port: int | None = None,
        *,
        directory: Path | None = None,
        persistence_dir: Path | None = None,
        mosquitto: Mosquitto | None = None,
        config: Callable[[int], str] | None = None,
        start_timeout_s: float = 10.0,
    ) -> None:
        self._port = port
        self._config = config
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if directory is None:
            self._temporary = tempfile.TemporaryDirectory(
                prefix="ddnn-broker-", ignore_cleanup_errors=True
            )
            directory = Path(self._temporary.name)
        # mosquitto would read a relative name against its own working directory.
        self._directory = directory.resolve()
        self._persistence_dir = None if persistence_dir is None else persistence_dir.resolve()
        self._mosquitto = mosquitto
        self._start_timeout_s = start_timeout_s
        self._child: Child | None = None
        self.log_path = self._directory / "mosquitto.log"

    @property
    def port(self) -> int:
        """TCP port; stays the same over `kill()` or `stop()` and `start()`."""
        if self._port is None:
            raise DdnnError("the local broker was not started yet, it has no port")
        return self._port

    @property
    def pid(self) -> int:
        """Process id of the mosquitto that was started last."""
        if self._child is None:
            raise DdnnError("the local broker was not started yet, it has no process")
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether the mosquitto process is alive."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start mosquitto and wait until it accepts connections.

        Raises:
            DdnnError: it died or did not answer in time (with its last log lines), the port
                belongs to somebody else, or there is no mosquitto.
        """
        if self.is_running:
            return
        if self._mosquitto is None:
            self._mosquitto = find_mosquitto()
        self._directory.mkdir(parents=True, exist_ok=True)
        if self._persistence_dir is not None:
            self._persistence_dir.mkdir(parents=True, exist_ok=True)
        if self._port is not None:
            self._start_on(self._port)
            return
        # Between choosing a free port and mosquitto's bind another process can take it.
        for attempts_left in reversed(range(_START_ATTEMPTS)):
            port = free_port()
            try:
                self._start_on(port)
            except _PortTakenError:
                if attempts_left == 0:
                    raise
            else:
                self._port = port
                return

    def stop(self, grace_s: float = 5.0) -> None:
        """End mosquitto in good order (it saves its state); SIGKILL after `grace_s` seconds."""
        if self._child is not None:
            stop_children([self._child], grace_s)

    def kill(self) -> None:
        """End mosquitto at once, as a crash would."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def log_tail(self, lines: int = 10) -> str:
        """The last lines of the broker's log."""
        with contextlib.suppress(FileNotFoundError):
            text = self.log_path.read_text(encoding="utf-8", errors="replace")
            return "\n".join(text.splitlines()[-lines:])
        return ""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        self.stop()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _start_on(self, port: int) -> None:
        assert self._mosquitto is not None
        config_path = self._directory / "mosquitto.conf"
        config = self._config or (lambda port: render_config(port, self._persistence_dir))
        config_path.write_text(config(port), encoding="utf-8")
        log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        command = [str(self._mosquitto.path), "-c", str(config_path)]
        self._child = start_child(command, self._mosquitto.env, self.log_path)
        try:
            self._wait_until_ready(self._child, port, log_start)
        except BaseException:
            self.kill()
            raise

    def _wait_until_ready(self, child: Child, port: int, log_start: int) -> None:
        """A connection alone proves nothing: somebody else may listen on that port while this
        mosquitto is about to die of it. Its log tells (or, should a later version word it
        otherwise, that it lives on).
        """
        deadline = time.monotonic() + self._start_timeout_s
        answered: float | None = None
        while True:
            if child.poll() is not None:
                raise self._died(port, child.returncode, log_start)
            now = time.monotonic()
            if _accepts(port):
                answered = now if answered is None else answered
                if self._says_running(log_start) or now - answered > 1.0:
                    return
            if now > deadline:
                raise DdnnError(
                    f"mosquitto did not answer on {HOST}:{port} within"
                    f" {self._start_timeout_s:g} s; its log ends:\n{self.log_tail()}"
                )
            time.sleep(0.01)

    def _new_log(self, log_start: int) -> str:
        with self.log_path.open("rb") as log:
            log.seek(log_start)
            return log.read().decode(errors="replace")

    def _says_running(self, log_start: int) -> bool:
        return re.search(r"mosquitto version \S+ running", self._new_log(log_start)) is not None

    def _died(self, port: int, code: int, log_start: int) -> DdnnError:
        if "Address already in use" in self._new_log(log_start):
            return _PortTakenError(
                f"port {port} on {HOST} is in use by another program; choose another port"
            )
        return DdnnError(
            f"mosquitto ended at its start with code {code}; its log ends:\n{self.log_tail()}"
        )


class _PortTakenError(DdnnError):
    """Somebody else listens on the port."""


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    for port in random.sample(_PORTS, 100):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As mosquitto does; else ports of brokers that just ended would seem taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                return port
    raise DdnnError(f"no free port on {HOST} between {_PORTS.start} and {_PORTS.stop - 1}")


def _accepts(port: int) -> bool:
    """Whether somebody accepts connections on the port."""
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False


if __name__ == "__main__":  # for scripts/setup
    try:
        print(find_mosquitto().path)
    except DdnnError as error:
        sys.exit(f"error: {error}")
