import asyncio
import json
import logging
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from asr_gateway.io.listener import Connection, listening_socket
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


async def answer_of(app: web.Application, request: bytes) -> tuple[int, list[str], dict[str, Any]]:
    """Status, headers and body of the answer to ``request``, after which the connection is closed."""
    runner = web.AppRunner(app)
    await runner.setup()
    assert runner.server is not None
    loop = asyncio.get_running_loop()
    make = partial(Connection, runner.server, loop=loop, logger=logging.getLogger("unit"))
    async with await loop.create_server(make, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(request)
        head, _, body = (await asyncio.wait_for(reader.read(), 5)).decode().partition("\r\n\r\n")
        writer.close()
        await runner.cleanup()
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
