"""What aiohttp's WebSocket parser has read and nobody has taken yet; most messages pass it by.

    transport ─► aiohttp's parser ─► feed_data ──┬─► take_now(message): at once, where it was read
                                                 '─► queue ─► receive(): the client's task, one turn of the loop later

Waking a task for each message costs more than aiohttp's parser does. A message may only be taken at once while none
is queued, so that their order is kept; what is queued is bounded by aiohttp, which then stops reading the transport.

Parts of aiohttp that are not public are used as they are in 3.14, which pyproject.toml asks for.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import WebSocketError, WSCloseCode, WSMsgType, web
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_websocket import WebSocketReader, WebSocketWriter

QUEUE_BYTES: Final = 1 << 16
"""aiohttp stops reading at twice as much."""
_HEAD_BYTES: Final = 2
_IS_MASKED: Final = 0x80


class MessageQueue(WebSocketDataQueue):
    """aiohttp's queue, which lets ``take_now`` have a binary message first."""

    take_now: Callable[[bytes], bool] | None = None
    """Returns whether it took the message; must not raise."""

    def feed_data(self, data: Any, size: int) -> None:
        """Take in what the parser has read: the message and its length in bytes."""
        take_now = self.take_now
        if take_now is None or self._buffer or data[0] is not WSMsgType.BINARY or not take_now(data[1]):
            super().feed_data(data, size)


class MaskCheck:
    """Stands before aiohttp's parser until it has seen whether the client masks what it sends, as it must.

    A client masks all frames or none: only the first is looked at, the rest costs nothing. Source: RFC 6455, 5.1.
    """

    def __init__(self, parser: WebSocketReader, messages: MessageQueue) -> None:
        self._parser = parser
        self._messages = messages
        self._head = b""
        self.feed_data = self._look
        self.feed_eof = parser.feed_eof

    def _look(self, data: bytes) -> tuple[bool, bytes]:
        """Pass ``data`` on; return, as the parser does, whether that was the end, and what is left."""
        self._head += data
        if len(self._head) < _HEAD_BYTES:
            return False, b""
        if not self._head[1] & _IS_MASKED:
            self._messages.set_exception(WebSocketError(WSCloseCode.PROTOCOL_ERROR, "a client must mask its frames"))
            return True, b""
        self.feed_data = self._parser.feed_data
        return self.feed_data(self._head)


class Socket(web.WebSocketResponse):
    """aiohttp's WebSocket, except for its queue and for how it ends: ``before_close`` may say goodbye first.

    aiohttp closes by itself when the client breaks the protocol or sends too much, and then at once: a client that is
    still sending would never see why.
    """

    before_close: Callable[[int], Awaitable[None]] | None = None
    messages: MessageQueue | None = None
    """There once the socket is prepared."""

    def _post_start(self, request: web.BaseRequest, protocol: str | None, writer: WebSocketWriter) -> None:
        # As aiohttp does it, but with our queue: it offers no other way to bring one in.
        self._ws_protocol = protocol
        self._writer = writer
        owner: BaseProtocol = request.protocol
        self._reader = self.messages = MessageQueue(owner, QUEUE_BYTES, loop=asyncio.get_running_loop())
        self._parser = WebSocketReader(self._reader, self._max_msg_size, compress=False, decode_text=True)
        request.protocol.set_parser(MaskCheck(self._parser, self.messages))  # type: ignore[arg-type]
        request.protocol.keep_alive(False)

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        """Close, after the goodbye."""
        if self.before_close is not None and not self.closed:
            await self.before_close(code)
        return await super().close(code=code, message=message, drain=drain)
