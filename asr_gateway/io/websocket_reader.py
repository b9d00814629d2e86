"""What one client sends, from its WebSocket into its stream. Nothing is read while the session is full.

Audio of a session that has room is taken in right where it was read, in the callback of the transport. Whatever may
have to wait (a full session, a big message, its turn) goes to the client's task instead, and everything behind it too:

    frame ─► take_now ──┬─► dialect.decode ─► Stream                   or dialect.samples_of: as it lies in the frame
                        '─► parser, queue ─► run: waits until there is room ─► dialect.decode ─► Stream
"""

import asyncio
from collections.abc import Iterator
from typing import Final, Protocol

import numpy as np
from aiohttp import WSMsgType
from numpy.typing import NDArray

from asr_gateway.core.clocks import ClientClocks
from asr_gateway.core.dialect import (
    ClientEvent,
    Dialect,
    FlushReceived,
    InitReceived,
    MarkerReceived,
    OpusReceived,
    PiecesReceived,
    ResetReceived,
    SetupReceived,
)
from asr_gateway.io.aiohttp_socket import Socket
from asr_gateway.io.live_service import LiveService, OpusDecoder
from asr_gateway.io.stream import Stream
from asr_gateway.io.websocket_frames import unmasked
from shared.errors import AsrError
from shared.units import SAMPLE_RATE

BIG_MESSAGE_BYTES: Final = 1 << 17
"""From here on, messages are decoded in turn: 1.3 s of float32 samples."""
LONG_PIECE_SAMPLES: Final = SAMPLE_RATE
"""From here on, pieces of one Opus message are decoded in turn: a second of it takes one to two milliseconds."""
MESSAGES_PER_TURN: Final = 32
"""A client with more to say lets the others have a turn first."""
_TURN_S: Final = 0.001
_ARRAY: Final = np.ndarray


class ReadingClient(Protocol):
    """Whose messages these are. Once ``is_over``, they are dropped."""

    @property
    def stream(self) -> Stream | None:
        """Where audio goes."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether the session has ended."""
        ...

    @property
    def is_output_full(self) -> bool:
        """Whether the client leaves too much unread to be listened to."""
        ...

    def fail(self, error: AsrError) -> None:
        """The client broke a rule."""
        ...

    def answer_ping(self, payload: bytes) -> None:
        """The client asks whether we live."""
        ...

    def introduced(self) -> None:
        """The client has said what it is."""
        ...


class WebSocketReader:
    """Reads one client; ``run`` is the client's task."""

    __slots__ = (
        "_begun", "_changed", "_client", "_clocks", "_decode", "_frames", "_is_text", "_loop", "_n_in_turn", "_opus",
        "_samples_of", "_service", "_socket", "_stream", "_turn_began", "received_bytes",
    )  # fmt: skip

    def __init__(
        self, *, service: LiveService, dialect: Dialect, socket: Socket, clocks: ClientClocks, client: ReadingClient
    ) -> None:
        assert socket.frames is not None, "the socket is prepared"
        self._service = service
        self._decode = dialect.decode
        self._samples_of = dialect.samples_of
        self._is_text = dialect.is_text
        self._socket = socket
        self._frames = socket.frames
        self._clocks = clocks
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._opus: OpusDecoder | None = None
        self._changed = asyncio.Event()
        self.received_bytes = 0
        # Of ``take_now``:
        self._stream: Stream | None = None
        """Where messages go at once."""
        self._turn_began = 0.0
        self._n_in_turn = 0
        self._begun: Iterator[NDArray[np.float32]] | Exception | None = None
        """What is left of the message that is next in the queue: the rest of its audio, or what went wrong with it."""

    def look_again(self) -> None:
        """A reason not to read may have come or gone."""
        self._changed.set()
        if self._client.is_over or not self._may_read():
            self._take_no_more()

    def look(self, now: float) -> None:
        """See whether anything was read; call now and then.

        A message is told of only when all of it is there, and in its midst a client cannot answer a ping.
        """
        if self._frames.was_fed:
            self._frames.was_fed = False
            self._clocks.heard_some(now)

    # --- at once ------------------------------------------------------------------------------------------

    def _take_no_more(self) -> None:
        self._frames.take_now = None

    def _take_now(self, frame: bytes, begin: int) -> bool:
        stream = self._stream
        assert stream is not None, "it is known before anything may be taken"
        now = self._loop.time()
        if now - self._turn_began > _TURN_S:
            self._turn_began, self._n_in_turn = now, 0
        elif self._n_in_turn == MESSAGES_PER_TURN:
            return False
        self._n_in_turn += 1
        try:
            event = self._event_of(frame, begin)
            clocks = self._clocks
            clocks.heard_at = clocks.understood_at = now
            if isinstance(event, _ARRAY):
                if not stream.audio(event):
                    self._take_no_more()
            elif isinstance(event, OpusReceived):
                self._take_pieces_now(stream, self._opus_pieces(event.data))
            elif isinstance(event, PiecesReceived):
                self._take_pieces_now(stream, event.pieces)
            else:
                self._take_rare(stream, event)
        except AsrError as error:
            self._client.fail(error)
        except Exception as error:  # noqa: BLE001  (raised again in the client's task, which others can see fail)
            self._begun = error
        if self._begun is not None:
            return False
        self.received_bytes += len(frame) - begin
        return True

    def _event_of(self, frame: bytes, begin: int) -> ClientEvent:
        if self._samples_of is not None:
            samples = self._samples_of(frame, begin)
            if samples is not None:
                return samples
        return self._decode(unmasked(frame, begin))

    def _take_pieces_now(self, stream: Stream, pieces: Iterator[NDArray[np.float32]]) -> None:
        for pcm in pieces:
            # Behind a long piece may come a minute of them, which takes longer to decode than others should wait.
            if not stream.audio(pcm) or len(pcm) >= LONG_PIECE_SAMPLES:
                self._take_no_more()
                self._begun = pieces
                return

    # --- the client's task --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read until the connection ends."""
        n_messages = 0
        while True:
            await self._wait_for_room()
            self._stream = self._client.stream
            if self._stream is not None and not self._client.is_over:
                self._frames.take_now = self._take_now
            message = await self._socket.receive()
            self._take_no_more()
            match message.type:
                case WSMsgType.BINARY:
                    self.received_bytes += len(message.data)
                    await self._take(message.data)
                case WSMsgType.TEXT if self._is_text:
                    data = message.data.encode()
                    self.received_bytes += len(data)
                    await self._take(data)
                case WSMsgType.PING:
                    self._clocks.heard(self._loop.time())
                    self._client.answer_ping(bytes(message.data))  # a bytearray came
                case WSMsgType.PONG | WSMsgType.TEXT:
                    self._clocks.heard(self._loop.time())
                case _:
                    return
            n_messages += 1
            if n_messages % MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _take(self, data: bytes) -> None:
        stream = self._client.stream
        if stream is None or self._client.is_over:
            return
        begun, self._begun = self._begun, None
        if isinstance(begun, Exception):
            raise begun
        try:
            if begun is not None:
                await self._take_pieces(stream, begun)
                return
            # The session may have become full while this task waited for a message.
            await self._wait_for_room()
            event = self._decode(data) if len(data) < BIG_MESSAGE_BYTES else await self._decode_big(data)
            self._clocks.understood(self._loop.time())
            if self._client.is_over:
                return
            if isinstance(event, _ARRAY):
                stream.audio(event)
            elif isinstance(event, OpusReceived):
                await self._take_pieces(stream, self._opus_pieces(event.data))
            elif isinstance(event, PiecesReceived):
                await self._take_pieces(stream, event.pieces)
            else:
                self._take_rare(stream, event)
        except AsrError as error:
            self._client.fail(error)

    async def _decode_big(self, data: bytes) -> ClientEvent:
        # An array of a million integers takes 50 ms; a hundred clients that send one must not stop the rest for 5 s.
        async with self._service.big_messages:
            event = self._decode(data)
            await asyncio.sleep(0)
        return event

    def _take_rare(
        self, stream: Stream, event: MarkerReceived | FlushReceived | ResetReceived | InitReceived | SetupReceived
    ) -> None:
        match event:
            case MarkerReceived():
                stream.marker(event.id)
            case FlushReceived():
                if event.samples is not None:
                    stream.audio(event.samples)
                stream.flush(event.id)
            case ResetReceived():
                stream.reset(event.id)
            case InitReceived():
                self._opus = None
                stream.init()
            case SetupReceived():
                self._client.introduced()

    def _opus_pieces(self, data: bytes) -> Iterator[NDArray[np.float32]]:
        if self._opus is None:
            self._opus = self._service.make_opus_decoder()
        return self._opus.feed_in_pieces(data)

    async def _take_pieces(self, stream: Stream, pieces: Iterator[NDArray[np.float32]]) -> None:
        # A few bytes of Opus, or of a telephone's audio, can stand for minutes.
        await self._wait_for_room()
        for pcm in pieces:
            if self._client.is_over:
                return
            stream.audio(pcm)
            await self._wait_for_room()
            if len(pcm) >= LONG_PIECE_SAMPLES:
                # As with big messages: of all clients one decodes in a turn of the loop.
                async with self._service.big_messages:
                    await asyncio.sleep(0)

    def _may_read(self) -> bool:
        client = self._client
        if client.is_over:
            return True
        return not client.is_output_full and (client.stream is None or client.stream.may_read())

    async def _wait_for_room(self) -> None:
        if self._may_read():
            return
        self._clocks.pause(self._loop.time())
        while not self._may_read():
            self._changed.clear()
            await self._changed.wait()
        self._clocks.resume(self._loop.time())
