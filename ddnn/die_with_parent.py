"""Become another program that the kernel kills when the parent process dies.

Run as a script by `ddnn.processes`, never imported:

    python -I -S die_with_parent.py PARENT_PID PROGRAM [ARGUMENT ...]

It asks for the death signal here, after fork and exec, and not in a `preexec_fn`: Python code
between fork and exec can deadlock when the parent has threads. The request survives the exec of
PROGRAM unless that program changes its user (so a broker started by root must stay root).
Only the standard library: it starts before every child, and without site-packages (-I -S).
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent_pid, argv = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        # SIGKILL: a child that hangs or ignores SIGTERM must go as well.
        if libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0) != 0:
            sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    # The parent may have died before the request; no signal would ever come.
    if os.getppid() != parent_pid:
        sys.exit("the parent process is gone")
    # Python ignores these two, and an ignored signal stays ignored across exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        sys.exit(f"cannot run {argv[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
