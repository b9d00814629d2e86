"""What a supervisor says on its terminal, from a thread of its own.

A terminal may be gone, the file behind it full, or halted by Ctrl-S. That costs lines, never a session.
"""

import os
import queue
import sys
import threading
from contextlib import suppress
from typing import Final, TextIO

MAX_WAITING: Final = 100
"""Lines that may wait for a terminal that takes none; more are dropped."""
LAST_WORDS_S: Final = 1.0


class Terminal:
    """Says lines on ``stream``, standard output unless given; close it to have the last ones said."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="terminal", daemon=True)

    def start(self) -> None:
        """Begin to say what is to be said."""
        self._thread.start()

    def say(self, line: str) -> None:
        """Tell the operator; never waits."""
        with suppress(queue.Full):
            self._lines.put_nowait(f"asr: {line}\n")

    def close(self) -> None:
        """Say what waits, unless that takes too long."""
        with suppress(queue.Full):
            self._lines.put_nowait(None)
            self._thread.join(LAST_WORDS_S)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            stream = self._stream or sys.stdout
            # None: it was closed before we were started.
            if stream is not None:
                with suppress(OSError, ValueError):
                    _write(line, stream)


def _write(line: str, stream: TextIO) -> None:
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # no file, but something in memory
        stream.write(line)
        stream.flush()
    else:
        # Past the stream's buffer: what cannot be written would stay there, and make the end of the process a failure.
        os.write(descriptor, line.encode(stream.encoding or "utf-8", "backslashreplace"))
