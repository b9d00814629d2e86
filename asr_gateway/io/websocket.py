"""``GET {path}`` with an upgrade: live transcription over a WebSocket.

One task for each client reads; nothing but that task and the callbacks of ``Listener`` touch the client, all on the
event loop's thread. What is sent is written to the transport at once, as finished WebSocket frames: there is no second
task, and how much the client has left unread is simply how much the transport still holds.

    reading   transport ─► aiohttp's parser ─► dialect.decode ─► Stream        (not while the session is full)
    writing   Listener ─► dialect ─► one frame ─► transport                    (no new frames of audio while it is full)
    ending    Error, Close frame; then what still comes is read and dropped until the client closes, at most one second:
              closing at once would make TCP throw the Error away
"""

import asyncio
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Protocol

import numpy as np
import structlog
from aiohttp import WSCloseCode, WSMsgType, web
from numpy.typing import NDArray

from asr_gateway.core.clocks import ClientClocks, ClockLimits, Verdict
from asr_gateway.core.dialect import (
    Dialect,
    FlushReceived,
    InitReceived,
    MarkerReceived,
    OpusReceived,
    PackPauses,
    ResetReceived,
)
from asr_gateway.core.keys import KeyRing
from asr_gateway.io.dispatch import Dispatch
from asr_gateway.io.http import authenticate
from asr_gateway.io.stream import Stream
from asr_gateway.metrics import GatewayMetrics
from shared.config import GatewayConfig
from shared.errors import AsrError, BadMessageError, IdleClientError, MessageTooLargeError, SlowConsumerError
from shared.log_events import SESSION_CLOSED, SESSION_REFUSED
from shared.messages import EventKind, SessionKind, StepEvent
from shared.units import SAMPLE_RATE

SWEEP_S: Final = 0.25
"""How often the clocks of all clients are looked at."""
GOODBYE_S: Final = 1.0
"""How long a client that was told why may take to close."""
GOODBYE_POLL_S: Final = 0.02
MESSAGES_PER_TURN: Final = 32
"""A client with more to say lets the others have a turn first."""
WRITER_LIMIT: Final = 1 << 14

_BINARY: Final = 0x82
_CLOSE: Final = 0x88
_PING: Final = b"\x89\x00"
_PONG: Final = 0x8A
_SHORT: Final = 126
_LONG: Final = 1 << 16
_LENGTH16: Final = struct.Struct(">BBH")
_LENGTH64: Final = struct.Struct(">BBQ")
_CLOSE_CODE: Final = struct.Struct(">H")
_MAX_REASON_BYTES: Final = 120
_LIVE: Final = "live"
_DONE: Final = "done"


class Socket(web.WebSocketResponse):
    """aiohttp's WebSocket, except for how it ends: ``before_close`` may say goodbye first, in its own way.

    aiohttp closes by itself when the client breaks the protocol or sends too much, and then at once: a client that is
    still sending would never see why.
    """

    before_close: Callable[[int], Awaitable[None]] | None = None

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        """Close, after the goodbye."""
        if self.before_close is not None and not self.closed:
            await self.before_close(code)
        return await super().close(code=code, message=message, drain=drain)


class OpusDecoder(Protocol):
    """Turns the pieces of one Ogg Opus stream into samples."""

    def feed_in_pieces(self, data: bytes) -> Iterator[NDArray[np.float32]]:
        """Yield samples ``[n]`` about a second at a time; raises BadAudioError."""
        ...


class WebSocketRoute:
    """The live route of one module."""

    def __init__(
        self,
        *,
        dispatch: Dispatch,
        module: str,
        dialect: Dialect,
        config: GatewayConfig,
        keys: KeyRing,
        metrics: GatewayMetrics,
        make_opus_decoder: Callable[[], OpusDecoder],
    ) -> None:
        self.dispatch = dispatch
        self.module = module
        self.dialect = dialect
        self.config = config
        self.clock_limits = ClockLimits.of(config)
        self.metrics = metrics
        self.make_opus_decoder = make_opus_decoder
        self._keys = keys
        self._clients: set[WebSocketClient] = set()

    @property
    def n_clients(self) -> int:
        """Connections that have not ended."""
        return len(self._clients)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one client from its upgrade to its end.

        Raises:
            UnauthorizedError: it brought no key that is known.
        """
        key = authenticate(request, self._keys)
        self.metrics.connected()
        socket = Socket(
            timeout=GOODBYE_S,
            autoping=False,
            compress=False,
            max_msg_size=self.config.max_message_bytes,
            writer_limit=WRITER_LIMIT,
        )
        await socket.prepare(request)
        transport = request.transport
        if transport is None:
            return socket
        client = WebSocketClient(route=self, socket=socket, transport=transport, key=key)
        socket.before_close = client.before_close
        self._clients.add(client)
        try:
            await client.run()
        finally:
            self._clients.discard(client)
            client.finish()
        return socket

    async def run(self) -> None:
        """Look at the clocks of all clients until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = asyncio.get_running_loop().time()
            for client in list(self._clients):
                client.tick(now)


class WebSocketClient:
    """One connected client; the ``Listener`` of its stream."""

    def __init__(self, *, route: WebSocketRoute, socket: Socket, transport: asyncio.Transport, key: str) -> None:
        self._route = route
        self._dialect = route.dialect
        self._socket = socket
        self._transport = transport
        self._key = key
        self._loop = asyncio.get_running_loop()
        self._clocks = ClientClocks(route.clock_limits, self._loop.time())
        self._stream: Stream | None = None
        self._opus: OpusDecoder | None = None
        self._is_output_full = False
        self._changed = asyncio.Event()
        """Set whenever a reason not to read may have gone."""
        self._error: AsrError | None = None
        """Why the session ended before its time; from then on nothing more is sent."""
        self._goodbye: asyncio.TimerHandle | None = None
        self._was_ready = False
        self._n_words = 0
        self._reported_samples = 0

    # --- the client's task --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read until the connection ends."""
        try:
            self._stream = self._route.dispatch.open(module=self._route.module, kind=SessionKind.LIVE, listener=self)
        except AsrError as error:
            self.ended(error)
        if self._error is not None:
            # Refused before the stream was known here.
            self._stream = None
        await self._read()

    async def _read(self) -> None:
        n_messages = 0
        while True:
            await self._wait_for_room()
            message = await self._socket.receive()
            now = self._loop.time()
            match message.type:
                case WSMsgType.BINARY:
                    if self._stream is not None and self._error is None:
                        await self._take(self._stream, message.data, now)
                case WSMsgType.PING:
                    self._clocks.heard(now)
                    self._write(_frame(_PONG, message.data))
                case WSMsgType.PONG | WSMsgType.TEXT:
                    self._clocks.heard(now)
                case _:
                    return
            n_messages += 1
            if n_messages % MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _take(self, stream: Stream, data: bytes, now: float) -> None:
        try:
            event = self._dialect.decode(data)
            self._clocks.understood(now)
            if isinstance(event, np.ndarray):
                stream.audio(event)
            else:
                await self._take_rare(stream, event)
        except AsrError as error:
            self._end(error)

    async def _take_rare(
        self, stream: Stream, event: OpusReceived | MarkerReceived | FlushReceived | ResetReceived | InitReceived
    ) -> None:
        match event:
            case OpusReceived():
                await self._take_opus(stream, event.data)
            case MarkerReceived():
                stream.marker(event.id)
            case FlushReceived():
                stream.flush(event.id)
            case ResetReceived():
                stream.reset(event.id)
            case InitReceived():
                self._opus = None
                stream.init()

    async def _take_opus(self, stream: Stream, data: bytes) -> None:
        if self._opus is None:
            self._opus = self._route.make_opus_decoder()
        for pcm in self._opus.feed_in_pieces(data):
            stream.audio(pcm)
            # A few bytes of Opus can stand for minutes.
            await self._wait_for_room()
            if self._error is not None:
                return

    async def _wait_for_room(self) -> None:
        while self._error is None and (self._is_output_full or not (self._stream is None or self._stream.may_read())):
            self._clocks.pause(self._loop.time())
            self._changed.clear()
            await self._changed.wait()
        self._clocks.resume(self._loop.time())

    # --- clocks -------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Look at the clocks."""
        if self._error is not None:
            return
        if self._is_output_full and self._unread_bytes() <= self._route.config.output_buffer_bytes // 2:
            self._set_output_full(now, is_full=False)
        self._report_audio()
        is_busy = self._stream is not None and self._stream.session.is_busy
        match self._clocks.check(now, is_busy=is_busy):
            case Verdict.NOTHING:
                pass
            case Verdict.PING:
                self._write(_PING)
            case Verdict.SILENT:
                # Nobody is there to be told. aiohttp would leave the socket as it is, with all that it still holds.
                self._abort(IdleClientError("nothing was heard from the client"))
            case Verdict.SLOW:
                self._abort(SlowConsumerError("slow consumer"))
            case Verdict.IDLE:
                limit_s = self._route.config.idle_client_s
                self._end(IdleClientError(f"no message for {limit_s:g} s"))

    def _end(self, error: AsrError) -> None:
        if self._stream is not None:
            self._route.dispatch.close(self._stream, code=error.code)
        self.ended(error)

    def _abort(self, error: AsrError) -> None:
        self._end(error)
        self._transport.abort()

    # --- Listener -----------------------------------------------------------------------------------------

    @property
    def pack_pauses(self) -> PackPauses | None:
        """How this client's dialect encodes pauses."""
        return self._dialect.pack_pauses

    def ready(self) -> None:
        """Send Ready."""
        self._was_ready = True
        self._send(self._dialect.ready())

    def step(self, step_idx: int, packed_pauses: bytes, buffered_pcm: int) -> None:
        """Send Step."""
        self._send(self._dialect.step(step_idx, packed_pauses, buffered_pcm))

    def event(self, event: StepEvent) -> None:
        """Send a word, the end of one, or an answer."""
        self._n_words += event.kind is EventKind.WORD
        self._send(self._dialect.event(event))

    def has_room(self) -> None:
        """Read again."""
        self._changed.set()

    def ended(self, error: AsrError) -> None:
        """Send Error and Close; ``_read`` drops what still comes."""
        if self._error is not None:
            return
        self._send(self._dialect.error(error))
        reason = str(error).encode()[:_MAX_REASON_BYTES].decode(errors="ignore").encode()
        self._write(_frame(_CLOSE, _CLOSE_CODE.pack(error.close_code) + reason))
        self._error = error
        self._changed.set()
        self._goodbye = self._loop.call_later(GOODBYE_S, self._transport.abort)

    # --- writing ------------------------------------------------------------------------------------------

    def _send(self, payload: bytes) -> None:
        self._write(_frame(_BINARY, payload))

    def _write(self, frame: bytes) -> None:
        if self._error is not None or self._transport.is_closing():
            return
        self._transport.write(frame)
        now = self._loop.time()
        self._clocks.sent(now)
        if not self._is_output_full and self._unread_bytes() > self._route.config.output_buffer_bytes:
            self._set_output_full(now, is_full=True)

    def _unread_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    def _set_output_full(self, now: float, *, is_full: bool) -> None:
        self._is_output_full = is_full
        if is_full:
            self._clocks.fill_output(now)
        else:
            self._clocks.drain_output()
            self._changed.set()
        if self._stream is not None:
            self._stream.fill_output(is_full=is_full)

    async def before_close(self, code: int) -> None:
        """Tell the client why, if it is not the one who closes; then see to it that aiohttp says nothing more.

        ``code`` is what aiohttp would close with: 1000 unless the client broke the protocol.
        """
        if code != WSCloseCode.OK and self._error is None:
            limit = self._route.config.max_message_bytes
            is_too_large = code == WSCloseCode.MESSAGE_TOO_BIG
            too_large = MessageTooLargeError(f"a message may have at most {limit} bytes")
            self._end(too_large if is_too_large else BadMessageError("this is not the WebSocket protocol"))
            for _ in range(int(GOODBYE_S / GOODBYE_POLL_S)):
                if self._transport.is_closing():
                    break
                await asyncio.sleep(GOODBYE_POLL_S)
        if self._error is not None:
            self._transport.close()

    # --- the end ------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Give the slot back and leave one line in the log."""
        if self._goodbye is not None:
            self._goodbye.cancel()
        code = _DONE if self._error is None else self._error.code
        log = structlog.get_logger()
        if self._stream is not None:
            self._route.dispatch.close(self._stream)
            self._report_audio()
        if not self._was_ready:
            log.info(SESSION_REFUSED, kind=_LIVE, code=code)
            return
        log.info(
            SESSION_CLOSED,
            kind=_LIVE,
            code=code,
            client=self._key,
            audio_s=round(self._reported_samples / SAMPLE_RATE, 2),
            words_count=self._n_words,
        )

    def _report_audio(self) -> None:
        if self._stream is not None and self._stream.session.samples_received > self._reported_samples:
            n_samples = self._stream.session.samples_received - self._reported_samples
            self._reported_samples += n_samples
            self._route.metrics.audio_received(n_samples / SAMPLE_RATE, key=self._key)


def _frame(opcode: int, payload: bytes) -> bytes:
    """Return one WebSocket frame from a server: final, not masked, not compressed (RFC 6455, section 5.2)."""
    n_bytes = len(payload)
    if n_bytes < _SHORT:
        return bytes((opcode, n_bytes)) + payload
    if n_bytes < _LONG:
        return _LENGTH16.pack(opcode, 126, n_bytes) + payload
    return _LENGTH64.pack(opcode, 127, n_bytes) + payload
