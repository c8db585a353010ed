"""Child processes that never outlive this one, not even after its SIGKILL.

On Linux each child asks the kernel for SIGKILL at its parent's death (`die_with_parent.py`).
The kernel counts the death of the *thread* that made the child, so all children are made by one
thread that lives as long as the process: `start_child` may be called from any thread, also from
one that ends soon. Elsewhere (macOS) children only end by `stop_children`.

Each child leads a session of its own: Ctrl-C reaches this process alone, which then stops its
children in the order it wants. What a child starts in turn is the child's responsibility.
"""

import contextlib
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from ddnn.errors import DdnnError

Child = subprocess.Popen[bytes]

_SHIM = Path(__file__).with_name("die_with_parent.py")


class _Spawner:
    """The thread that makes all children of this process."""

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[tuple[Callable[[], Child], Future[Child]]]
        self._requests = queue.SimpleQueue()
        # A daemon: it must still be alive while `atexit` handlers stop children in good order.
        threading.Thread(target=self._run, name="child-spawner", daemon=True).start()

    def spawn(self, make_child: Callable[[], Child]) -> Child:
        future: Future[Child] = Future()
        self._requests.put((make_child, future))
        return future.result()

    def _run(self) -> None:
        while True:
            make_child, future = self._requests.get()
            try:
                future.set_result(make_child())
            except BaseException as error:  # raised again in the caller
                future.set_exception(error)


_spawner: _Spawner | None = None
_spawner_lock = threading.Lock()


def _forget_spawner() -> None:
    """A forked process has none of its parent's threads."""
    global _spawner, _spawner_lock
    _spawner, _spawner_lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_spawner)


def _get_spawner() -> _Spawner:
    global _spawner
    with _spawner_lock:
        if _spawner is None:
            _spawner = _Spawner()
        return _spawner


def start_child(args: Sequence[str], env: Mapping[str, str], log_path: Path) -> Child:
    """Start a program that dies with this process.

    Args:
        args: the program and its arguments.
        env: variables added to this process's environment.
        log_path: file that the child's stdout and stderr are appended to.

    Raises:
        DdnnError: the program does not exist.
    """
    program = shutil.which(args[0])
    if program is None:
        raise DdnnError(f"cannot run {args[0]!r}: no such program")
    command = [sys.executable, "-I", "-S", str(_SHIM), str(os.getpid()), program, *args[1:]]

    def make_child() -> Child:
        with log_path.open("ab") as log:
            return subprocess.Popen(
                command,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    return _get_spawner().spawn(make_child)


def stop_children(children: Iterable[Child], grace_s: float = 5.0) -> list[Child]:
    """End all children: SIGTERM to all, then SIGKILL to those alive after `grace_s` seconds.

    All share one grace period. A second Ctrl-C cuts it short and kills at once.

    Returns:
        The children that had to be killed.
    """
    children = list(children)
    killed = []
    try:
        for child in children:
            child.terminate()
        deadline = time.monotonic() + grace_s
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                killed.append(child)
        for child in killed:
            child.wait()
    return killed
