"""Threads that the system may not give: what limits a container's processes counts them, too.

Python then raises RuntimeError, as it does for faults of our own. Here it is an error of the system: it passes.
"""

import asyncio
import errno
import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


class NoThreadError(OSError):
    """No thread can be started now; later one may."""

    def __init__(self) -> None:
        super().__init__(errno.EAGAIN, "no thread can be started")


def start_thread(work: Callable[[], None], name: str) -> None:
    """Let a daemon thread of its own do ``work``.

    Raises:
        NoThreadError: the system gives none.
    """
    try:
        threading.Thread(target=work, name=name, daemon=True).start()
    except RuntimeError as error:
        raise NoThreadError from error


def in_thread(work: Callable[[], _T]) -> asyncio.Future[_T]:
    """Let a thread of the loop's pool do ``work``, and return what to wait for.

    Raises:
        NoThreadError: the pool needs another one, and the system gives none.
    """
    is_given_up = False

    def unless_given_up() -> _T:
        # The pool keeps what it has no thread for, and would do it once there is one.
        if is_given_up:
            raise NoThreadError
        return work()

    try:
        return asyncio.get_running_loop().run_in_executor(None, unless_given_up)
    except RuntimeError as error:
        is_given_up = True
        raise NoThreadError from error
