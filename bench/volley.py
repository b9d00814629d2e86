"""Clients that send as fast as a server reads, in volleys: what one turn of a full server's loop looks like.

    volley    one message of each of ``at_once`` sessions, then a ping on a connection of its own
    pong      the server has read them: the next ``at_once`` sessions have their turn

So every message is read by itself, as at real time, and a turn of the server's loop finds ``at_once`` of them; how fast
the machine is and what else it does changes nothing. No session is ever more than ``MAX_AHEAD`` frames ahead of its
Steps. Frames are masked ahead; what the clients cost is not the server's time.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import urlsplit

from bench.packets import Packets
from bench.websocket import BINARY, PING, masked
from shared.units import FRAME_SAMPLES

MAX_AHEAD: Final = 2
PATIENCE_S: Final = 20.0
_BINARY, _PONG = 0x82, 0x8A
_READY: Final = b"\x81\xa4type\xa5Ready"
_STEP: Final = b"\x84\xa4type\xa4Step"
_ERROR: Final = b"\xa5Error"
_AUDIO: Final = (b"\x82\xa4type\xa5Audio", b"\x82\xa4type\xa7OggOpus")
"""How a client's own messages begin, if a server sends them back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volleys:
    """What the clients do."""

    url: str
    """``http://host:port/path``"""
    key: str
    n_clients: int
    at_once: int
    n_frames: int
    """Of each session."""


class _Socket(asyncio.Protocol):
    """One connection; counts what it hears. ``per_frame`` of its own messages, sent back, count as a Step."""

    def __init__(self, heard: asyncio.Event, per_frame: int) -> None:
        self._heard = heard
        self._per_frame = per_frame
        self._n_echoes = 0
        self._buffer = b""
        self._is_open = False
        self.transport: asyncio.Transport
        self.is_ready = False
        self.n_steps = self.n_pongs = 0
        self.error: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses.
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.error = self.error or f"the connection was closed: {error}"
        self._heard.set()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        if not self._is_open:
            head, end, buffer = buffer.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            self._is_open = b" 101 " in head
            if not self._is_open:
                self.error = head.decode(errors="replace")
        while (n_head := 2 if len(buffer) < 2 or buffer[1] < 126 else 4) <= len(buffer):
            n_bytes = buffer[1] if n_head == 2 else int.from_bytes(buffer[2:4], "big")
            if len(buffer) < n_head + n_bytes:
                break
            self._hear(buffer[0], buffer[n_head : n_head + n_bytes])
            buffer = buffer[n_head + n_bytes :]
        self._buffer = buffer
        self._heard.set()

    def _hear(self, opcode: int, payload: bytes) -> None:
        if payload.startswith(_STEP):
            self.n_steps += 1
        elif payload.startswith(_AUDIO):
            self._n_echoes += 1
            self.n_steps = self._n_echoes // self._per_frame
        elif opcode == _PONG:
            self.n_pongs += 1
        elif payload == _READY:
            self.is_ready = True
        elif _ERROR in payload or opcode != _BINARY:
            self.error = repr(payload)


async def run_volleys(volleys: Volleys, packets: Packets, meter: Callable[[], float]) -> float:
    """Run all sessions to their last Step; return by how much ``meter`` went on for each of their frames.

    Connecting is not counted.

    Raises:
        RuntimeError: a session ended before its time.
    """
    crowd = _Crowd(volleys, packets)
    try:
        await crowd.connect()
        before = meter()
        for i in range(crowd.n_messages):
            await crowd.send_all(i)
        await crowd.steps(crowd.clients, volleys.n_frames - 1)
        return (meter() - before) / sum(client.n_steps for client in crowd.clients)
    finally:
        crowd.leave()


class _Crowd:
    """All clients, and the connection that asks whether they have been read."""

    def __init__(self, volleys: Volleys, packets: Packets) -> None:
        self._volleys = volleys
        self._packets = packets
        self._per_frame = FRAME_SAMPLES // packets.n_samples
        self.n_messages = volleys.n_frames * self._per_frame
        # Opus comes as pages with numbers: as many as are needed. Floats repeat.
        self._frames = [masked(BINARY, packets.message(i)) for i in range(min(self.n_messages, len(packets.loop)))]
        self._ping = masked(PING, b"")
        self._n_pings = 0
        self._heard = asyncio.Event()
        self._sockets: list[_Socket] = []
        self.clients: list[_Socket] = []

    async def connect(self) -> None:
        """Open all sessions."""
        for _ in range(self._volleys.n_clients + 1):
            self._sockets.append(await _connect(self._volleys, self._heard, self._per_frame))
        self.clients = self._sockets[1:]
        await self._until(lambda: all(socket.is_ready for socket in self._sockets))
        for message in self._packets.head:
            for client in self.clients:
                client.transport.write(masked(BINARY, message))
        await self._are_read()

    def leave(self) -> None:
        """Drop all connections."""
        for socket in self._sockets:
            socket.transport.abort()

    async def send_all(self, i: int) -> None:
        """Have every session send its message ``i``, so many at once."""
        at_once, frame = self._volleys.at_once, self._frames[i % len(self._frames)]
        for first in range(0, len(self.clients), at_once):
            volley = self.clients[first : first + at_once]
            await self.steps(volley, i // self._per_frame - MAX_AHEAD)
            for client in volley:
                client.transport.write(frame)
            await self._are_read()

    async def steps(self, clients: list[_Socket], n_steps: int) -> None:
        """Wait until each of them has heard so many Steps."""
        await self._until(lambda: all(client.n_steps >= n_steps for client in clients))

    async def _are_read(self) -> None:
        control = self._sockets[0]
        control.transport.write(self._ping)
        self._n_pings += 1
        await self._until(lambda: control.n_pongs == self._n_pings)

    async def _until(self, is_done: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_done():
                for socket in self._sockets:
                    if socket.error is not None:
                        raise RuntimeError(socket.error)
                self._heard.clear()
                await self._heard.wait()


async def _connect(volleys: Volleys, heard: asyncio.Event, per_frame: int) -> _Socket:
    url = urlsplit(volleys.url)
    loop = asyncio.get_running_loop()
    _, socket = await loop.create_connection(lambda: _Socket(heard, per_frame), url.hostname or "", url.port or 80)
    lines = (
        f"GET {url.path} HTTP/1.1",
        f"Host: {url.netloc}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        f"kyutai-api-key: {volleys.key}",
    )
    socket.transport.write("".join(f"{line}\r\n" for line in (*lines, "")).encode())
    return socket
