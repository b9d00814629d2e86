"""aiohttp's WebSocket, but for who reads its frames first and for how it ends.

Waking a task for each message costs more than all else about it, hence ``websocket_frames.py``. What is queued for the
task is bounded by aiohttp, which then stops reading the transport.

Parts of aiohttp that are not public are used as they are in 3.14, which pyproject.toml asks for.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, cast

from aiohttp import WSCloseCode, web
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_websocket import WebSocketReader, WebSocketWriter

from asr_gateway.io.websocket_frames import Ears, Frames

QUEUE_BYTES: Final = 1 << 16
"""aiohttp stops reading at twice as much."""


class Socket(web.WebSocketResponse):
    """aiohttp's WebSocket, except for what stands before its parser and for how it ends.

    ``before_close`` may say goodbye first. aiohttp closes by itself when the client breaks the protocol or sends too
    much, and then at once: a client that is still sending would never see why.
    """

    before_close: Callable[[int], Awaitable[None]] | None = None
    frames: Frames | None = None
    """There once the socket is prepared."""

    def _post_start(self, request: web.BaseRequest, protocol: str | None, writer: WebSocketWriter) -> None:
        # As aiohttp does it, but with Frames before its parser: it offers no other way to bring them in.
        self._ws_protocol = protocol
        self._writer = writer
        owner: BaseProtocol = request.protocol
        self._reader = WebSocketDataQueue(owner, QUEUE_BYTES, loop=asyncio.get_running_loop())
        self._parser = WebSocketReader(self._reader, self._max_msg_size, compress=False, decode_text=True)
        self.frames = Frames(self._parser, self._reader, self._max_msg_size - 1)
        # Told of it, although nothing is read through it: it has kept what came behind the request.
        request.protocol.set_parser(self.frames)  # type: ignore[arg-type]
        request.protocol.keep_alive(False)
        if request.transport is not None:
            request.transport.set_protocol(cast("asyncio.Protocol", Ears(request.protocol, self.frames)))

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        """Close, after the goodbye."""
        if self.before_close is not None and not self.closed:
            await self.before_close(code)
        return await super().close(code=code, message=message, drain=drain)
