"""Standard output, which may be a full disk or a pipe that nobody reads, and names that are no text."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asr_cli.usage import UsageError


def open_closed_streams() -> None:
    """Open what was closed when we were started (``>&-``): Python has None there, and a file of ours took its number.

    As gnulib's stdopen does it: of what is read or written in vain the system says so. Complaints have no place to go.
    """
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_WRONLY), "r")
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


@contextmanager
def printing() -> Iterator[None]:
    """Print in here what must not be lost in silence.

    Raises:
        UsageError: standard output cannot be written; says why.
        BrokenPipeError: its reader has gone, as ``| head`` does; nothing is worth saying.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except UnicodeEncodeError as error:
        message = f"standard output: cannot be written: {error}"
        raise UsageError(message) from error
    except OSError as error:
        abandon_output()
        message = f"standard output: cannot be written: {error.strerror}"
        raise UsageError(message) from error


def flush_output() -> None:
    """Bring out what was printed, if there is a standard output at all.

    Raises:
        UsageError, BrokenPipeError: as ``printing()``.
    """
    with printing():
        print(end="", flush=True)


def abandon_output() -> None:
    """Print nothing from here on: Python would complain again when it flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def shown(path: Path | str) -> str:
    """Return a path as text that can be printed and sent: bytes of it that are no text are shown as numbers."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
