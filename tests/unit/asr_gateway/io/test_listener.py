import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from asr_gateway.io.listener import Connection, is_of_tiny_chunks, listening_socket
from shared.errors import ConfigError


def test_a_port_that_is_taken_is_a_wrong_setting() -> None:
    with listening_socket("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1: Address already in use"):
            listening_socket("127.0.0.1", port)


@pytest.mark.parametrize("host", ["two..dots", "x" * 64, "no such.host"])
def test_so_is_a_host_that_cannot_be_looked_up(host: str) -> None:
    with pytest.raises(ConfigError, match=f"host '{host}': "):
        listening_socket(host, 0)


async def test_a_connection_may_not_outlast_its_keep_alive_by_half_a_request() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="well")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, keepalive_timeout=0.2)
    await runner.setup()
    with listening_socket("127.0.0.1", 0) as listener:
        await web.SockSite(runner, listener).start()
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"well")
        writer.write(b"GET / HTTP/1.1\r\nX-Slow: 1\r\n")

        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await runner.cleanup()


@asynccontextmanager
async def talking_to(
    app: web.Application, **options: Any
) -> AsyncIterator[tuple[web.Server, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A server of ``Connection`` and a client of it; its end of the line is as short as it can be."""
    runner = web.AppRunner(app)
    await runner.setup()
    assert runner.server is not None
    loop = asyncio.get_running_loop()
    make = partial(Connection, runner.server, loop=loop, logger=logging.getLogger("unit"), **options)
    async with await loop.create_server(make, "127.0.0.1", 0) as server:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_024)
        raw.setblocking(False)
        await loop.sock_connect(raw, server.sockets[0].getsockname())
        reader, writer = await asyncio.open_connection(sock=raw, limit=1_024)
        yield runner.server, reader, writer
        writer.transport.abort()
        await runner.cleanup()


async def answer_of(app: web.Application, request: bytes) -> tuple[int, list[str], dict[str, Any]]:
    """Status, headers and body of the answer to ``request``, after which the connection is closed."""
    async with talking_to(app) as (_, reader, writer):
        writer.write(request)
        head, _, body = (await asyncio.wait_for(reader.read(), 5)).decode().partition("\r\n\r\n")
    status, *headers = head.split("\r\n")
    return int(status.split()[1]), headers, json.loads(body)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (b"hello\r\n\r\n", "Invalid method encountered"),
        (b"GET / HTTP/1.1\r\nkyutai-api-key : hidden-7f3a\r\n\r\n", "Invalid header token"),
        (b"GET / HTTP/9.9\r\n\r\n", "Bad status line: Invalid HTTP version"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", "Got more than 8190 bytes"),
        (b"\x16\x03\x01\r\n\r\n", "Received HTTPS traffic on an HTTP port"),
    ],
)
async def test_what_is_no_http_is_told_as_all_our_errors_are(request_: bytes, reason: str) -> None:
    status, headers, body = await answer_of(web.Application(), request_)
    error = f"the request is no HTTP that can be read: {reason}"
    assert (status, body) == (400, {"error": error, "code": "bad_message"})
    assert [header for header in headers if header.startswith("Server")] == ["Server: asr-gateway"]


async def test_a_fault_of_our_own_is_told_without_what_it_is() -> None:
    async def fail(_: web.Request) -> web.Response:
        message = "inside"
        raise ValueError(message)

    app = web.Application()
    app.router.add_get("/", fail)
    status, headers, body = await answer_of(app, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, body["code"]) == (500, "internal_error")
    assert not any("aiohttp" in line or "inside" in line for line in (*headers, body["error"]))


ANSWER_BYTES = 100_000
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def app_that_tells_much(unread_bytes: list[int]) -> web.Application:
    """Notes how much is unread whenever it is asked."""

    async def tell(request: web.Request) -> web.Response:
        assert request.transport is not None
        unread_bytes.append(request.transport.get_write_buffer_size())
        return web.Response(body=bytes(ANSWER_BYTES))

    app = web.Application()
    app.router.add_get("/", tell)
    return app


async def test_who_reads_no_answer_is_dropped() -> None:
    unread_bytes: list[int] = []
    async with talking_to(app_that_tells_much(unread_bytes), unread_s=0.3) as (server, _, writer):
        writer.write(GET * 300)
        async with asyncio.timeout(10):
            while not unread_bytes or server.connections:  # noqa: ASYNC110 (the server tells nobody)
                await asyncio.sleep(0.01)
    assert set(unread_bytes) == {0}, "no answer is begun before the one before it is out"


async def test_who_reads_late_but_in_time_gets_every_answer() -> None:
    unread_bytes: list[int] = []
    async with talking_to(app_that_tells_much(unread_bytes), unread_s=5) as (_, reader, writer):
        writer.write(GET * 100)
        while len(unread_bytes) < 2:  # noqa: ASYNC110 (the server tells nobody)
            await asyncio.sleep(0.01)
        async with asyncio.timeout(30):
            for _ in range(100):
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(ANSWER_BYTES)


async def test_a_websocket_is_left_to_its_own_clocks() -> None:
    told = asyncio.Event()

    async def tell(request: web.Request) -> web.StreamResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        assert request.transport is not None
        request.transport.write(bytes(16 << 20))
        told.set()
        await websocket.receive()
        return websocket

    app = web.Application()
    app.router.add_get("/", tell)
    async with talking_to(app, unread_s=0.1) as (server, _, writer):
        writer.write(GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")
        writer.write(b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
        await asyncio.wait_for(told.wait(), 5)
        await asyncio.sleep(0.5)
        assert len(server.connections) == 1


def chunked(*sizes: int) -> bytes:
    return b"".join(b"%x\r\n" % size + b"Z" * size + b"\r\n" for size in sizes)


def test_many_tiny_chunks_at_once_are_told_from_what_clients_send() -> None:
    assert is_of_tiny_chunks(chunked(*[1] * 1_000))
    assert is_of_tiny_chunks(b"a\r\n" + chunked(*[20] * 1_000))
    assert is_of_tiny_chunks(chunked(200, *[1] * 1_000))
    assert is_of_tiny_chunks(b"001\r\nZ\r\n" * 1_000)
    assert is_of_tiny_chunks(b"1;x=y\r\na\r\n" * 1_000)
    assert not is_of_tiny_chunks(chunked(*[1] * 100))
    assert not is_of_tiny_chunks(chunked(*[100] * 1_000))
    assert not is_of_tiny_chunks(chunked(60_000))
    assert not is_of_tiny_chunks(b"\r\n" * 4_000)
    assert not is_of_tiny_chunks(bytes(range(256)) * 256)


@pytest.mark.parametrize("pause_s", [0.0, 0.1])
async def test_a_body_of_known_length_may_hold_what_looks_like_chunks(pause_s: float) -> None:
    async def take(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    app, body = web.Application(), chunked(*[1] * 2_000)
    app.router.add_post("/", take)
    async with talking_to(app) as (_, reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        await asyncio.sleep(pause_s)
        writer.write(body)
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(5) == b"%d" % len(body)


@pytest.mark.parametrize("pause_s", [None, 0.1])
async def test_who_sends_a_body_byte_by_byte_is_dropped_and_nobody_else_waits(pause_s: float | None) -> None:
    taken = 0

    async def take(request: web.Request) -> web.Response:
        nonlocal taken
        async for piece in request.content.iter_any():
            taken += len(piece)
        return web.Response(text="well")

    app = web.Application()
    app.router.add_post("/", take)
    async with talking_to(app) as (_, reader, writer):
        head, body = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", chunked(*[1] * 20_000)
        if pause_s is None:
            writer.write(head + body)
        else:
            writer.write(head)
            await asyncio.sleep(pause_s)
            writer.write(body)
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
    assert taken < 20_000
