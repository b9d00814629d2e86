"""The floors of a gateway: a bare aiohttp server that reads the same bytes and answers.

    python -m bench.echo --port 9000                what it was sent: an echo
    python -m bench.echo --port 9000 --every 4      a Step for every four messages, as many bytes as a gateway's

It decodes nothing and knows no worker. Run by ``bench.gateway``.
"""

import argparse
import asyncio

import msgpack
import uvloop
from aiohttp import WSMsgType, web

from bench.processes import PATH

STEP = msgpack.packb(
    {"type": "Step", "step_idx": 1000, "prs": [0.1, 0.2, 0.3, 0.4], "buffered_pcm": 0}, use_single_float=True
)
READY = msgpack.packb({"type": "Ready"})
SHORT_BYTES = 40
"""A Marker is shorter, audio is longer."""


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--every", type=int, help="messages for each Step; default: each message is sent back")
    options = parser.parse_args()
    application = web.Application()

    async def talk(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=0, compress=False)
        await socket.prepare(request)
        await socket.send_bytes(READY)
        n = 0
        async for message in socket:
            if message.type is not WSMsgType.BINARY:
                continue
            if options.every is None or (len(message.data) < SHORT_BYTES and b"Marker" in message.data):
                await socket.send_bytes(message.data)
                continue
            n += 1
            if n % options.every == 0:
                await socket.send_bytes(STEP)
        return socket

    async def ready(_request: web.Request) -> web.Response:
        return web.Response()

    application.add_routes([web.get(PATH, talk), web.get("/readyz", ready)])
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    web.run_app(application, host="127.0.0.1", port=options.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
