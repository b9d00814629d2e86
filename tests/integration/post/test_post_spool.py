"""Bodies over real sockets: whole, in chunks, too long, too slow, broken, cut off."""

import asyncio
import resource
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest
from aiohttp import web

from asr_gateway.io.http import error_response
from asr_gateway.io.spool import BodyLimits, spooled_body
from shared.errors import AsrError

LIMITS = BodyLimits(max_bytes=1_000_000, timeout_s=0.6, stall_s=0.2)
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"


class SpoolServer:
    """Answers with the length and the sum of the bytes of a body; keeps what it refused."""

    def __init__(self) -> None:
        self.limits = LIMITS
        self.outcomes: asyncio.Queue[str] = asyncio.Queue()
        self.port = 0

    async def handle(self, request: web.Request) -> web.Response:
        try:
            async with spooled_body(request, self.limits) as file:
                file.seek(0)
                data = file.read()
                self.outcomes.put_nowait("done")
                return web.json_response([len(data), sum(data)])
        except AsrError as error:
            self.outcomes.put_nowait(error.code)
            return error_response(error)

    async def talk(self, *pieces: bytes, pause_s: float = 0.0) -> bytes:
        """Send the pieces and return all that comes back."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answer = asyncio.create_task(reader.read())
        for piece in pieces:
            writer.write(piece)
            if pause_s:
                await asyncio.wait({answer}, timeout=pause_s)
        received = await answer
        await closed(writer)
        return received


@pytest.fixture
async def spool() -> AsyncIterator[SpoolServer]:
    spool = SpoolServer()
    app = web.Application()
    app.router.add_post("/", spool.handle)
    runner = web.AppRunner(app, lingering_time=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    spool.port = runner.addresses[0][1]
    yield spool
    await runner.cleanup()


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def sized(body: bytes, *, announced: int | None = None) -> bytes:
    length = len(body) if announced is None else announced
    return HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % length + body


def chunked(*chunks: bytes) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + body


async def test_a_body_with_a_length_arrives_whole(spool: SpoolServer) -> None:
    assert (await spool.talk(sized(b"\1" * 700_000))).endswith(b"[700000, 700000]")


async def test_a_body_in_chunks_arrives_whole(spool: SpoolServer) -> None:
    assert (await spool.talk(chunked(b"\1" * 3, b"\2" * 500_000, b""))).endswith(b"[500003, 1000003]")


async def test_an_empty_body_is_an_empty_file(spool: SpoolServer) -> None:
    assert (await spool.talk(sized(b""))).endswith(b"[0, 0]")


async def test_a_body_that_says_it_is_too_long_is_refused_unread(spool: SpoolServer) -> None:
    answer = await spool.talk(sized(b"", announced=1_000_001))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'{"error": "the body is longer than 1000000 bytes", "code": "too_large"}' in answer


async def test_a_body_in_too_many_chunks_is_refused(spool: SpoolServer) -> None:
    assert (await spool.talk(chunked(*[b"x" * 100_000] * 11))).startswith(b"HTTP/1.1 413 ")


async def test_a_body_that_stalls_is_refused(spool: SpoolServer) -> None:
    answer = await spool.talk(sized(b"abc", announced=100))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"no byte of the body came for 0.2 s" in answer


async def test_a_body_that_drips_is_refused(spool: SpoolServer) -> None:
    spool.limits = BodyLimits(max_bytes=100, timeout_s=0.5, stall_s=5)
    answer = await spool.talk(sized(b"abc", announced=100), *[b"x"] * 50, pause_s=0.05)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not arrive within 0.5 s" in answer


async def test_a_malformed_chunk_is_refused(spool: SpoolServer) -> None:
    """By aiohttp itself."""
    assert b" 400 Bad Request" in await spool.talk(chunked(b"abc"), b"zz\r\n")


async def test_a_client_that_leaves_amid_its_body_is_noticed(spool: SpoolServer) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", spool.port)
    writer.write(sized(b"abc", announced=100))
    await writer.drain()
    await closed(writer)
    assert await asyncio.wait_for(spool.outcomes.get(), 2) == "client_gone"


async def test_a_folder_that_cannot_be_written_is_a_503(spool: SpoolServer, tmp_path: Path) -> None:
    spool.limits = BodyLimits(max_bytes=10, timeout_s=1, folder=str(tmp_path / "missing"))
    answer = await spool.talk(sized(b"abc"))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 5" in answer
    assert b'"code": "spool_full"' in answer


async def test_no_thread_to_write_in_is_a_503(spool: SpoolServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(_: threading.Thread) -> NoReturn:
        message = "can't start new thread"
        raise RuntimeError(message)

    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", no_thread)
        answer = await spool.talk(sized(b"abc"))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"(no thread can be started); please try again later" in answer
    assert (await spool.talk(sized(b"\1" * 3))).endswith(b"[3, 3]")


async def test_a_full_disk_is_a_503(spool: SpoolServer) -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
        answer = await spool.talk(sized(b"x" * 500_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"cannot be kept for its turn" in answer
