"""The body of a request, written to a nameless temporary file as it arrives.

At most a quarter of a megabyte of it is in memory. The file has no name: it is gone with its last descriptor, whatever
happens to the process. Writing happens in a thread: a full or slow disk must not stand in the way of live sessions.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, Final, TypeVar

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from asr_gateway.io.threads import NoThreadError, in_thread
from shared.errors import AsrError, BadMessageError, ClientGoneError, MessageTooLargeError, SlowBodyError

_WRITE_BYTES: Final = 256 << 10

_T = TypeVar("_T")


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


class Spool:
    """A nameless temporary file while it is filled.

    Args:
        file: where the bytes go.
        limits: how many they may be.
    """

    def __init__(self, file: IO[bytes], limits: BodyLimits) -> None:
        self.file = file
        self.n_bytes = 0
        self._limits = limits
        self._waiting = bytearray()

    async def add(self, piece: bytes) -> None:
        """Append a piece of the body.

        Raises:
            MessageTooLargeError: it makes the body too long.
            SpoolFullError: the disk cannot hold it.
        """
        self.n_bytes += len(piece)
        if self.n_bytes > self._limits.max_bytes:
            raise _too_large(self._limits.max_bytes)
        self._waiting += piece
        if len(self._waiting) >= _WRITE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Write what is still in memory.

        Raises:
            SpoolFullError: the disk cannot hold it.
        """
        await _write(self.file, bytes(self._waiting))
        self._waiting.clear()


@asynccontextmanager
async def opened_spool(limits: BodyLimits) -> AsyncIterator[Spool]:
    """Make an empty file; it lives as long as the context.

    Raises:
        SpoolFullError: there can be none.
    """
    try:
        file = await _created(limits.folder)
    except OSError as error:
        raise _spool_full(error) from error
    try:
        yield Spool(file, limits)
    finally:
        await _close(file)


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
    async with opened_spool(limits) as spool:
        async with arriving(spool, limits):
            while piece := await next_piece(request.content.readany(), limits):
                await spool.add(piece)
            await spool.flush()
        yield spool.file


@asynccontextmanager
async def arriving(spool: Spool, limits: BodyLimits) -> AsyncIterator[None]:
    """Allow the whole body its time.

    Raises:
        SlowBodyError: it took longer.
    """
    try:
        async with asyncio.timeout(limits.timeout_s):
            yield
    except TimeoutError:
        message = f"the body did not arrive within {limits.timeout_s:g} s ({spool.n_bytes} bytes came)"
        raise SlowBodyError(message) from None


async def next_piece(reading: Awaitable[_T], limits: BodyLimits) -> _T:
    """Return what is being read of a body.

    Raises:
        SlowBodyError: nothing came for too long.
        BadMessageError: what came is malformed.
        ClientGoneError: the client left.
    """
    try:
        async with asyncio.timeout(limits.stall_s):
            return await reading
    except TimeoutError:
        message = f"no byte of the body came for {limits.stall_s:g} s"
        raise SlowBodyError(message) from None
    except HttpProcessingError as error:
        message = f"the body is malformed: {error.message}"
        raise BadMessageError(message) from error
    except (ConnectionError, web.RequestPayloadError) as error:
        message = "the client closed the connection before the body was complete"
        raise ClientGoneError(message) from error


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
