"""Standard output, which may be a full disk or a pipe that nobody reads, and names that are no text."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asr_cli.usage import UsageError


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
