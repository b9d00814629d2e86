"""Reading that may have to wait, in daemon threads: a pipe pauses for as long as it likes.

Who waits inside a C library hears neither Ctrl-C nor the service. A thread that still waits when the command ends is
left behind.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

MAX_AHEAD: Final = 4
"""Pieces that may have been read and not been asked for."""

LAST_READ_S: Final = 0.5
"""How long a thread may take for what it is just reading, once nobody wants it."""

_T = TypeVar("_T")


def waited_for(work: Callable[[], _T]) -> _T:
    """Return what ``work`` returns, or raise what it raises; Ctrl-C ends the wait, but not the work."""
    done: Future[_T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001 - raised again by who waits
            done.set_exception(error)

    threading.Thread(target=run, name="waits", daemon=True).start()
    return done.result()


@dataclass(frozen=True, slots=True)
class _End:
    """Comes after the last piece, or in the place of one that could not be read."""

    error: Exception | None = None


async def read_ahead(pieces: Iterator[_T]) -> AsyncGenerator[_T, None]:
    """Yield what ``pieces`` yields, or raise what it raises; a thread reads a few ahead, until this is closed."""
    loop, room = asyncio.get_running_loop(), threading.Semaphore(MAX_AHEAD)
    found: asyncio.Queue[_T | _End] = asyncio.Queue()
    is_over = False

    def tell(item: _T | _End) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(found.put_nowait, item)

    def read() -> None:
        try:
            for piece in pieces:
                room.acquire()
                if is_over:
                    return
                tell(piece)
        except Exception as error:  # noqa: BLE001 - raised again by who asks for the piece
            tell(_End(error))
        else:
            tell(_End())
        finally:
            if isinstance(pieces, Generator):
                # What it holds would live on in an error's frames, beyond the end of soxr's library.
                pieces.close()

    thread = threading.Thread(target=read, name="reads ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := await found.get(), _End):
            room.release()
            yield item
    finally:
        is_over = True
        room.release()
        # A thread inside a library when Python ends aborts the process. One that waits for a pipe is left to itself.
        thread.join(LAST_READ_S)
    if item.error is not None:
        raise item.error
