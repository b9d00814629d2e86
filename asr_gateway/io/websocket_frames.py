"""What stands before aiohttp's WebSocket parser: nearly all that clients send is so plain that it needs none.

    transport ─► Ears ─► feed_data ──┬─► a plain frame: take_now, where it was read
                                     '─► anything else: aiohttp's parser ─► its queue ─► the client's task

A frame is plain if it is a whole binary message of less than 64 kB, masked. From the first frame on that goes to the
parser, all do, so that their order is kept, until the client's task has seen to what waits. The parser alone decides
what is wrong with a frame, but for one thing that it leaves to us: a client whose first frame is not masked is refused.

Parts of aiohttp that are not public are used as they are in 3.14, which pyproject.toml asks for.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from aiohttp import WebSocketError, WSCloseCode
from aiohttp._websocket.helpers import websocket_mask
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.http_websocket import WebSocketReader
from aiohttp.web import RequestHandler

Bytes: TypeAlias = bytes | bytearray

MAX_FRAMES: Final = 256
"""Whoever sends more frames than that in one read, and has none taken, is left to the parser, which is written in C."""

_PLAIN: Final = 0x82
"""First byte of a whole binary message."""
_MAX_PLAIN: Final = (1 << 16) - 1
_FINAL: Final = 0x80
_CONTROL: Final = 0x08
_MASKED: Final = 0x80
_IS_16: Final = 126
_HEAD: Final = 2
_HEAD_16: Final = 4
_HEAD_64: Final = 10
_MASK: Final = 4
_GO_ON: Final = (False, b"")
_END: Final = (True, b"")


class Frames:
    """Cuts what one client sends into frames; stands in the place of aiohttp's parser.

    Args:
        parser: gets what is not taken.
        messages: the parser's queue.
        max_bytes: of a message; the parser refuses longer ones.
    """

    __slots__ = (
        "_held", "_is_between", "_is_in_pieces", "_is_masked", "_max_bytes", "_messages", "_n_passing", "_parser",
        "feed_data", "feed_eof", "take_now", "was_fed",
    )  # fmt: skip

    def __init__(self, parser: WebSocketReader, messages: WebSocketDataQueue, max_bytes: int) -> None:
        self.take_now: Callable[[bytes, int], bool] | None = None
        """Gets a plain frame, as it came, and where its payload begins; returns whether it took it. Must not raise.

        The client's task sets it when nothing waits in the queue; None while it must not be asked.
        """
        self.feed_data = self._feed
        """Takes in what was read; returns, as the parser does, whether that was the end, and what is left."""
        self.feed_eof = parser.feed_eof
        self.was_fed = False
        """Set by ``Ears`` whenever something was read, be it a piece of a frame; for others to take back."""
        self._parser = parser
        self._messages = messages
        self._max_bytes = min(max_bytes, _MAX_PLAIN)
        self._held = bytearray()
        """The beginning of a plain frame, or of the head of any."""
        self._n_passing = 0
        """Bytes to come of the frame that the parser is reading."""
        self._is_in_pieces = False
        """The frames of a message that was begun follow."""
        self._is_masked = False
        """A client masks all frames or none: only the first is looked at. Source: RFC 6455, 5.1."""
        self._is_between = False
        """Masked, and nothing of the above: a plain frame may come."""

    def _feed(self, data: bytes) -> tuple[bool, bytes]:
        # A read that is one plain frame, as nearly all are, takes the shortest way.
        if self.take_now is not None and self._is_between and len(data) > _HEAD_16 and data[0] == _PLAIN:
            n_bytes, begin = data[1] - _MASKED, _HEAD + _MASK
            if n_bytes == _IS_16:
                n_bytes, begin = data[2] << 8 | data[3], _HEAD_16 + _MASK
            elif not 0 <= n_bytes < _IS_16:  # not masked, or 127: the mark of a length of 64 bits
                return self._cut(data)
            is_all = len(data) == begin + n_bytes
            if is_all and n_bytes <= self._max_bytes and self.take_now(data, begin):
                return _GO_ON
        return self._cut(data)

    def _cut(self, data: bytes) -> tuple[bool, bytes]:
        buffer: Bytes = data
        if self._held:
            self._held += data
            buffer, self._held = self._held, bytearray()
        if not self._is_masked and len(buffer) >= _HEAD:
            self._is_masked = bool(buffer[1] & _MASKED)
            if not self._is_masked:
                error = WebSocketError(WSCloseCode.PROTOCOL_ERROR, "a client must mask its frames")
                self._messages.set_exception(error)
                return _END
        position = 0 if self._n_passing or self._is_in_pieces else self._take_plain(buffer)
        result = self._pass_on(buffer, position) if position < len(buffer) else _GO_ON
        self._is_between = self._is_masked and not (self._held or self._n_passing or self._is_in_pieces)
        return result

    def _take_plain(self, buffer: Bytes) -> int:
        """Have the plain frames at the beginning taken, hold one that is not complete; return how far that went."""
        position = 0
        while position < len(buffer) and buffer[position] == _PLAIN:
            frame = _measure(buffer, position)
            if frame is not None and frame[1] - frame[0] > self._max_bytes:
                break
            if frame is None or frame[1] > len(buffer):
                self._hold(buffer, position)
                return len(buffer)
            begin, end = frame
            if not buffer[position + 1] & _MASKED or self.take_now is None:
                break
            if not self.take_now(bytes(buffer[position:end]), begin - position):
                break
            position = end
        return position

    def _pass_on(self, buffer: Bytes, position: int) -> tuple[bool, bytes]:
        """Give all from ``position`` on to the parser, and note where in a frame that ends."""
        self.take_now = None
        end, n_frames = position + self._n_passing, 0
        while end < len(buffer) and n_frames <= MAX_FRAMES:
            frame = _measure(buffer, end)
            if frame is None:
                self._hold(buffer, end)
                break
            if not buffer[end] & _CONTROL:
                self._is_in_pieces = not buffer[end] & _FINAL
            end, n_frames = frame[1], n_frames + 1
        if n_frames > MAX_FRAMES:
            self.feed_data = self._parser.feed_data
            end = len(buffer)
        self._n_passing = max(0, end - len(buffer))
        return self._parser.feed_data(bytes(buffer[position:end]))

    def _hold(self, buffer: Bytes, position: int) -> None:
        self._held = buffer if position == 0 and isinstance(buffer, bytearray) else bytearray(buffer[position:])


def unmasked(frame: bytes, begin: int) -> bytearray:
    """Return the payload of a masked frame that begins at ``begin``, behind its mask."""
    payload = bytearray(frame)
    del payload[:begin]  # moves nothing
    websocket_mask(frame[begin - _MASK : begin], payload)
    return payload


class Ears:
    """An ``asyncio.Protocol``: what a transport calls from the upgrade on.

    aiohttp's handler is called for all but what was read: what it does there before it asks its parser is for HTTP.
    """

    __slots__ = (
        "_frames", "_handler", "_is_closed", "connection_lost", "eof_received", "pause_writing", "resume_writing",
    )  # fmt: skip

    def __init__(self, handler: RequestHandler, frames: Frames) -> None:
        self._handler = handler
        self._frames = frames
        self._is_closed = False
        self.connection_lost = handler.connection_lost
        self.eof_received = handler.eof_received
        self.pause_writing = handler.pause_writing
        self.resume_writing = handler.resume_writing

    def data_received(self, data: bytes) -> None:
        """Take in what was read."""
        if not self._is_closed:
            self._frames.was_fed = True
            self._is_closed, _ = self._frames.feed_data(data)
            if self._is_closed:
                self._handler.close()


def _measure(buffer: Bytes, position: int) -> tuple[int, int] | None:
    """Return where the payload of the frame at ``position`` begins and ends; None if its length is not there yet."""
    n_there = len(buffer) - position
    if n_there < _HEAD:
        return None
    n_bytes, begin = buffer[position + 1] & ~_MASKED, position + _HEAD
    if n_bytes >= _IS_16:
        begin = position + (_HEAD_16 if n_bytes == _IS_16 else _HEAD_64)
        if begin > len(buffer):
            return None
        n_bytes = int.from_bytes(buffer[position + _HEAD : begin], "big")
    if buffer[position + 1] & _MASKED:
        begin += _MASK
    return begin, begin + n_bytes
