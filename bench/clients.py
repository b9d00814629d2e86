"""Paced clients of any server that speaks the Kyutai protocol, in as many processes as the load needs.

A client sends its packets when they are due, whatever the server does, and notes when answers come:

    lag            from when a frame's last sample was due to be sent, to its Step (the client's own delay included)
    first word     from when a word began in the audio, to the first Word
    marker         from a Marker, to its echo, while audio goes on; for servers of ours also Flush to Flushed

Models without pause heads send no Steps: then lags are those of words, from where they begin in the audio.
Steps are counted, not read: moshi-server's ``step_idx`` counts the steps of all sessions together.
"""

import asyncio
import gc
import multiprocessing
import queue
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgpack
import uvloop

from bench.packets import Packets, make_packets
from bench.websocket import BINARY, WebSocket, connect, masked
from shared.units import FRAME_RATE, FRAME_SAMPLES

CONNECT_S = 20.0
MARKER_ID, FLUSH_ID = 1, 2
MARKER_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the clients do."""

    url: str
    """``ws://host:port/path``"""
    key: str
    n_clients: int
    packing: str
    seconds: float
    audio: Path | None = None
    has_flush: bool = False
    """End with Flush too: our extension."""
    spread_s: float = 1.0
    """Clients begin at random moments within this time."""


@dataclass(slots=True)
class Session:
    """What one client saw. Times are seconds since its first packet was due."""

    lags_s: list[float] = field(default_factory=list)
    """Of each frame, in order."""
    late_s: list[float] = field(default_factory=list)
    """How late the client itself sent each packet."""
    word_lags_s: list[float] = field(default_factory=list)
    """Of each word, in order: from when it began in the audio to its Word."""
    marker_s: float | None = None
    flush_s: float | None = None
    error: str | None = None

    @property
    def first_word_s(self) -> float | None:
        """From when the first word began to its Word; None without words."""
        return self.word_lags_s[0] if self.word_lags_s else None


def run_clients(load: Load, n_processes: int) -> list[Session]:
    """Run the clients to their end; return what each saw."""
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.queues.Queue[list[Session]] = context.Queue()
    # All processes begin together, once the slowest of them has imported what it needs.
    start_s = time.time() + 1.2 + 0.5 * n_processes
    shares = [len(range(i, load.n_clients, n_processes)) for i in range(n_processes)]
    processes = [
        context.Process(target=_process, args=(load, share, start_s, i, answers), daemon=True)
        for i, share in enumerate(shares)
        if share
    ]
    for process in processes:
        process.start()
    sessions: list[Session] = []
    patience_s = load.seconds + CONNECT_S + 2 * MARKER_PATIENCE_S + 30
    for process in processes:
        try:
            sessions += answers.get(timeout=patience_s)
        except queue.Empty:
            message = f"a process of clients did not end within {patience_s:.0f} s (exit code {process.exitcode})"
            raise TimeoutError(message) from None
    for process in processes:
        process.join(10)
    return sessions


def _process(
    load: Load, n_clients: int, start_s: float, seed: int, answers: "multiprocessing.queues.Queue[list[Session]]"
) -> None:
    packets = make_packets(load.packing, load.audio, minutes=load.seconds / 60)
    answers.put(uvloop.run(_run_all(load, packets, n_clients, start_s, random.Random(seed))))


async def _run_all(load: Load, packets: Packets, n_clients: int, start_s: float, draw: random.Random) -> list[Session]:
    frames = [masked(BINARY, message) for message in packets.loop]
    starts = [start_s + load.spread_s * draw.random() for _ in range(n_clients)]
    # What is there now stays: no client waits for it to be collected.
    gc.collect()
    gc.freeze()
    return list(await asyncio.gather(*(_Client(load, packets, frames, at).run() for at in starts)))


class _Client:
    """One session from connecting to its last answer."""

    def __init__(self, load: Load, packets: Packets, frames: list[bytes], start_s: float) -> None:
        self._load = load
        self._packets = packets
        self._frames = frames
        """The messages of ``packets``, masked."""
        self._start_s = start_s
        self._zero = 0.0
        self._session = Session()
        self._is_ready = asyncio.Event()
        self._marker_sent = self._flush_sent = 0.0
        self._marked, self._flushed = asyncio.Event(), asyncio.Event()

    async def run(self) -> Session:
        """Return what was seen; an error ends the session and is named in it."""
        await asyncio.sleep(max(0.0, self._start_s - time.time() - 0.5))
        try:
            async with asyncio.timeout(CONNECT_S):
                headers = {"kyutai-api-key": self._load.key} if self._load.key else {}
                socket = await connect(self._load.url, headers, self._hear, self._fail)
            try:
                await asyncio.wait_for(self._is_ready.wait(), CONNECT_S)
                if self._session.error is None:
                    await self._talk(socket)
            finally:
                socket.close()
        except (TimeoutError, OSError) as error:
            self._session.error = self._session.error or f"{type(error).__name__}: {error}"
        return self._session

    async def _talk(self, socket: WebSocket) -> None:
        packets = self._packets
        for message in packets.head:
            await socket.send(masked(BINARY, message))
        self._zero = time.perf_counter() + max(0.0, self._start_s - time.time())
        n_packets = int(self._load.seconds / packets.period_s)
        for i in range(n_packets):
            await self._send_due(socket, i)
        self._marker_sent = time.perf_counter()
        await socket.send(masked(BINARY, msgpack.packb({"type": "Marker", "id": MARKER_ID})))
        # The server waits for D more frames before it echoes: audio goes on.
        give_up = n_packets + int(MARKER_PATIENCE_S / packets.period_s)
        for i in range(n_packets, give_up):
            if self._marked.is_set() or self._session.error is not None:
                break
            await self._send_due(socket, i)
        if not self._marked.is_set():
            self._fail(f"the marker did not come back within {MARKER_PATIENCE_S:g} s")
        if self._load.has_flush and self._session.error is None:
            self._flush_sent = time.perf_counter()
            await socket.send(masked(BINARY, msgpack.packb({"type": "Flush", "id": FLUSH_ID})))
            await asyncio.wait_for(self._flushed.wait(), MARKER_PATIENCE_S)

    async def _send_due(self, socket: WebSocket, i: int) -> None:
        # A packet is due when its last sample was spoken.
        due = self._zero + (i + 1) * self._packets.period_s
        wait_s = due - time.perf_counter()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        self._session.late_s.append(time.perf_counter() - due)
        await socket.send(self._frames[i % len(self._frames)])

    def _hear(self, data: bytes, now: float) -> None:
        session = self._session
        message = msgpack.unpackb(data)
        match message:
            case {"type": "Step"}:
                session.lags_s.append(now - self._zero - (len(session.lags_s) + 1) / FRAME_RATE)
            case {"type": "Word", "start_time": float(start_s)}:
                session.word_lags_s.append(now - self._zero - start_s)
            case {"type": "Ready"}:
                self._is_ready.set()
            case {"type": "Marker"}:
                session.marker_s = now - self._marker_sent
                self._marked.set()
            case {"type": "Flushed"}:
                session.flush_s = now - self._flush_sent
                self._flushed.set()
            case {"type": "Error"}:
                self._fail(str(message.get("message")))
            case _:
                pass

    def _fail(self, reason: str) -> None:
        self._session.error = self._session.error or reason
        for event in (self._is_ready, self._marked, self._flushed):
            event.set()


def n_frames_of(load: Load) -> int:
    """Return how many Steps each session should have seen before its marker."""
    return int(load.seconds * FRAME_RATE * FRAME_SAMPLES) // FRAME_SAMPLES


def steady_lags(sessions: list[Session], first_share: float, last_share: float) -> Iterator[float]:
    """Yield the lags of the frames between two shares of each session; of its words if the server sent no Steps."""
    for session in sessions:
        lags_s = session.lags_s or session.word_lags_s
        n = len(lags_s)
        yield from lags_s[int(first_share * n) : int(last_share * n)]
