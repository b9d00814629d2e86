import asyncio

import pytest
from aiohttp import web

from asr_gateway.io.listener import listening_socket
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
