"""A WebSocket as seen by a load generator: it costs little, so that the machine is left to the server it measures.

What arrives is stamped where it is read, before any other client of the same loop has its turn; what is sent was masked
ahead. Messages that come in several WebSocket frames are put together; pings are answered.
"""

import asyncio
import os
import time
from collections.abc import Callable
from typing import Final, cast
from urllib.parse import urlsplit

import numpy as np

BINARY: Final = 0x2
PING: Final = 0x9
_CLOSE: Final = 0x8
_PONG: Final = 0xA
_FINAL: Final = 0x80
_MASKED: Final = 0x80
_LENGTH_IN_2: Final = 126
_LENGTH_IN_8: Final = 127


def masked(opcode: int, payload: bytes) -> bytes:
    """Return a client's WebSocket frame (RFC 6455, section 5.2)."""
    mask = os.urandom(4)
    n_bytes = len(payload)
    if n_bytes < _LENGTH_IN_2:
        head = bytes((_FINAL | opcode, _MASKED | n_bytes))
    elif n_bytes < 1 << 16:
        head = bytes((_FINAL | opcode, _MASKED | _LENGTH_IN_2)) + n_bytes.to_bytes(2, "big")
    else:
        head = bytes((_FINAL | opcode, _MASKED | _LENGTH_IN_8)) + n_bytes.to_bytes(8, "big")
    key = np.frombuffer(mask * (n_bytes // 4 + 1), np.uint8)[:n_bytes]
    return head + mask + (np.frombuffer(payload, np.uint8) ^ key).tobytes()


class WebSocket(asyncio.Protocol):
    """One connection.

    Args:
        hear: called with each message and when it was read (``time.perf_counter``).
        end: called once, with why the connection is over.
    """

    def __init__(self, hear: Callable[[bytes, float], None], end: Callable[[str], None]) -> None:
        self._hear = hear
        self._end = end
        self._buffer = b""
        self._message = b""
        self._transport: asyncio.Transport
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_over = False

    async def open(self, url: str, headers: dict[str, str]) -> None:
        """Ask for the upgrade on a connection just made; return once it is granted.

        Raises:
            ConnectionError: it is not.
        """
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = (
            f"GET {target} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            *(f"{name}: {value}" for name, value in headers.items()),
        )
        self._transport.write("".join(f"{line}\r\n" for line in (*lines, "")).encode())
        await self._opened

    async def send(self, frame: bytes) -> None:
        """Send what ``masked`` has made; wait while the server leaves too much unread."""
        self._transport.write(frame)
        if not self._has_room.is_set():
            await self._has_room.wait()

    def close(self) -> None:
        """Say goodbye and disconnect."""
        self._is_over = True
        self._transport.write(masked(_CLOSE, (1000).to_bytes(2, "big")))
        self._transport.close()

    # --- asyncio.Protocol ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's transports are no subclasses.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        """End."""
        self._over(f"the connection was lost: {error}" if error else "the server closed the connection")

    def pause_writing(self) -> None:
        """The server does not read."""
        self._has_room.clear()

    def resume_writing(self) -> None:
        """It does again."""
        self._has_room.set()

    def data_received(self, data: bytes) -> None:
        """Hand out the messages that are complete."""
        now = time.perf_counter()
        buffer = self._buffer + data if self._buffer else data
        if not self._opened.done():
            head, end, rest = buffer.partition(b"\r\n\r\n")
            if not end:
                self._buffer = buffer
                return
            status, buffer = head.partition(b"\r\n")[0].decode(errors="replace"), rest
            if status.split()[1:2] != ["101"]:
                self._over(f"the server answered {status!r}")
                self._transport.abort()
                return
            self._opened.set_result(None)
        while (n_head := _head_bytes(buffer)) <= len(buffer):
            n_bytes = buffer[1] if n_head == 2 else int.from_bytes(buffer[2:n_head], "big")
            if len(buffer) < n_head + n_bytes:
                break
            self._take(buffer[0], buffer[n_head : n_head + n_bytes], now)
            buffer = buffer[n_head + n_bytes :]
        self._buffer = buffer

    def _take(self, first: int, payload: bytes, now: float) -> None:
        opcode = first & 0xF
        if opcode == PING:
            self._transport.write(masked(_PONG, payload))
        elif opcode == _CLOSE:
            self._over(f"the server closed with {int.from_bytes(payload[:2], 'big')}")
        elif opcode != _PONG:
            message = self._message + payload if self._message else payload
            self._message = b"" if first & _FINAL else message
            if first & _FINAL:
                self._hear(message, now)

    def _over(self, reason: str) -> None:
        if not self._opened.done():
            self._opened.set_exception(ConnectionError(reason))
        elif not self._is_over:
            self._end(reason)
        self._is_over = True
        self._has_room.set()


def _head_bytes(buffer: bytes) -> int:
    """Return how long the head of a server's frame is; it has no mask."""
    if len(buffer) < 2 or buffer[1] < _LENGTH_IN_2:
        return 2
    return 4 if buffer[1] == _LENGTH_IN_2 else 10


async def connect(
    url: str, headers: dict[str, str], hear: Callable[[bytes, float], None], end: Callable[[str], None]
) -> WebSocket:
    """Return an open connection to ``ws://host:port/path`` or ``wss://host/path``.

    Raises:
        OSError: there is none to be had.
    """
    parts = urlsplit(url)
    is_secret = parts.scheme in {"wss", "https"}
    port = parts.port or (443 if is_secret else 80)
    loop = asyncio.get_running_loop()
    _, socket = await loop.create_connection(
        lambda: WebSocket(hear, end), parts.hostname or "", port, ssl=True if is_secret else None
    )
    await socket.open(url, headers)
    return socket
