"""Become another program that cannot outlive its parent.

    python -m asr_cli.child PARENT_PID PROGRAM ARGUMENT...

The kernel is asked to kill this process when its parent dies, however that dies; then the program takes its place.
"""

import ctypes
import os
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1
"""Source: linux/prctl.h. The setting survives exec."""


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies; only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def bound(*command: str) -> list[str]:
    """Return the command that runs ``command``, a program by its path, and cannot outlive this process."""
    return [sys.executable, "-P", "-m", "asr_cli.child", str(os.getpid()), *command]


def main() -> None:
    """Bind this process's life to its parent's and run the program."""
    parent, *command = sys.argv[1:]
    die_with_parent()
    # The parent may have died before the kernel knew.
    if os.getppid() != int(parent):
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - the supervisor says what to run


if __name__ == "__main__":
    main()
