"""The body of a request, written to a nameless temporary file as it arrives.

At most a quarter of a megabyte of it is in memory. The file has no name: it is gone with its last descriptor, whatever
happens to the process. Writing happens in a thread: a full or slow disk must not stand in the way of live sessions.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, Final

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from asr_gateway.io.threads import NoThreadError, in_thread
from shared.errors import AsrError, BadMessageError, ClientGoneError, MessageTooLargeError, SlowBodyError

_WRITE_BYTES: Final = 256 << 10


class SpoolFullError(AsrError):
    """The disk for uploaded files is full, or cannot be written, or there is no thread to write it in."""

    code = "spool_full"
    retry = True
    http_status = 503


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """What a body may be."""

    max_bytes: int
    timeout_s: float
    """For all of it."""
    stall_s: float = 10.0
    """For the next piece of it."""
    folder: str = ""
    """Where it is kept; empty: the system's temporary folder."""

    def check_announced(self, n_bytes: int | None) -> None:
        """Refuse a body that says that it is too long.

        Raises:
            MessageTooLargeError: it does.
        """
        if n_bytes is not None and n_bytes > self.max_bytes:
            raise _too_large(self.max_bytes)


@asynccontextmanager
async def spooled_body(request: web.Request, limits: BodyLimits) -> AsyncIterator[IO[bytes]]:
    """Take in the whole body; the file lives as long as the context.

    Raises:
        MessageTooLargeError: the body is too long.
        SlowBodyError: it did not arrive in time.
        BadMessageError: it is broken (chunked encoding).
        ClientGoneError: the client left.
        SpoolFullError: the disk cannot hold it.
    """
    limits.check_announced(request.content_length)
    try:
        file = await _created(limits.folder)
    except OSError as error:
        raise _spool_full(error) from error
    try:
        await _fill(file, request.content, limits)
        yield file
    finally:
        await _close(file)


async def _created(folder: str) -> IO[bytes]:
    making = in_thread(partial(_create, folder))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        # The thread cannot be cancelled, and its file has no other owner.
        making.add_done_callback(lambda made: made.exception() or made.result().close())
        raise


def _create(folder: str) -> IO[bytes]:
    return tempfile.TemporaryFile(dir=folder or None)


async def _fill(file: IO[bytes], body: StreamReader, limits: BodyLimits) -> None:
    waiting = bytearray()
    n_bytes = 0
    try:
        async with asyncio.timeout(limits.timeout_s):
            while piece := await _next_piece(body, limits):
                n_bytes += len(piece)
                if n_bytes > limits.max_bytes:
                    raise _too_large(limits.max_bytes)
                waiting += piece
                if len(waiting) >= _WRITE_BYTES:
                    await _write(file, bytes(waiting))
                    waiting.clear()
            await _write(file, bytes(waiting))
    except TimeoutError:
        message = f"the body did not arrive within {limits.timeout_s:g} s ({n_bytes} bytes came)"
        raise SlowBodyError(message) from None


async def _next_piece(body: StreamReader, limits: BodyLimits) -> bytes:
    try:
        async with asyncio.timeout(limits.stall_s):
            return await body.readany()
    except TimeoutError:
        message = f"no byte of the body came for {limits.stall_s:g} s"
        raise SlowBodyError(message) from None
    except HttpProcessingError as error:
        message = f"the body is malformed: {error.message}"
        raise BadMessageError(message) from error
    except (ConnectionError, web.RequestPayloadError) as error:
        message = "the client closed the connection before the body was complete"
        raise ClientGoneError(message) from error


async def _write(file: IO[bytes], data: bytes) -> None:
    try:
        await in_thread(partial(_write_through, file, data))
    except OSError as error:
        raise _spool_full(error) from error


async def _close(file: IO[bytes]) -> None:
    try:
        # In a thread as well: giving back a long file's blocks takes time.
        await in_thread(file.close)
    except NoThreadError:
        # Rather here than not at all: nobody else closes it.
        file.close()


def _write_through(file: IO[bytes], data: bytes) -> None:
    file.write(data)
    # The child reads the file through a descriptor of its own.
    file.flush()


def _too_large(max_bytes: int) -> MessageTooLargeError:
    return MessageTooLargeError(f"the body is longer than {max_bytes} bytes")


def _spool_full(error: OSError) -> SpoolFullError:
    return SpoolFullError(f"the file cannot be kept for its turn ({error.strerror}); please try again later")
