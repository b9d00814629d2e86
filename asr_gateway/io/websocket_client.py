"""One client of the live route: the ``Listener`` of its stream.

One task reads; nothing but that task and the callbacks of ``Listener`` touch the client, all on the event loop's
thread. What is sent is written to the transport at once, as finished WebSocket frames: there is no second task, and
how much the client has left unread is simply how much the transport still holds.

    reading   transport ─► aiohttp's parser ─► dialect.decode ─► Stream       (not while the session is full)
    writing   Listener ─► dialect ─► one frame ─► transport                   (while it is full, no audio goes out)
    ending    Error, Close frame; then what still comes is read and dropped until the client closes, at most one
              second: closing at once would make TCP throw the Error away
"""

import asyncio
from dataclasses import replace
from typing import Final

import numpy as np
import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from asr_gateway.core.clocks import ClientClocks, Verdict
from asr_gateway.core.dialect import (
    ClientEvent,
    FlushReceived,
    InitReceived,
    MarkerReceived,
    OpusReceived,
    PackPauses,
    ResetReceived,
)
from asr_gateway.io import server_frames
from asr_gateway.io.dispatch import DONE
from asr_gateway.io.live_service import LiveService, OpusDecoder, Usage
from asr_gateway.io.stream import Stream
from shared.errors import AsrError, BadMessageError, IdleClientError, MessageTooLargeError, SlowConsumerError
from shared.log_events import SESSION_CLOSED, SESSION_REFUSED
from shared.messages import EventKind, SessionKind, StepEvent
from shared.units import SAMPLE_RATE

GOODBYE_S: Final = 1.0
"""How long a client that was told why may take to close."""
GOODBYE_POLL_S: Final = 0.02
BIG_MESSAGE_BYTES: Final = 1 << 17
"""From here on, messages are decoded in turn: 1.3 s of float32 samples."""
MESSAGES_PER_TURN: Final = 32
"""A client with more to say lets the others have a turn first."""

_LIVE: Final = SessionKind.LIVE.name.lower()


class WebSocketClient:
    """One connected client; the ``Listener`` of its stream."""

    def __init__(
        self,
        *,
        service: LiveService,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport,
        key: str,
        has_silence_prefix: bool,
    ) -> None:
        self._service = service
        self._dialect = service.dialect
        self._socket = socket
        self._transport = transport
        self._key = key
        self._has_silence_prefix = has_silence_prefix
        self._loop = asyncio.get_running_loop()
        self._clocks = ClientClocks(service.clock_limits, self._loop.time())
        self._stream: Stream | None = None
        self._opus: OpusDecoder | None = None
        self._is_output_full = False
        self._changed = asyncio.Event()
        """Set whenever a reason not to read may have gone."""
        self._error: AsrError | None = None
        """Why the session ended before its time; from then on nothing more is sent."""
        self._goodbye: asyncio.TimerHandle | None = None
        self._was_ready = False
        self._used = Usage()
        self._reported = Usage()

    # --- the client's task --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read until the connection ends."""
        try:
            self._stream = self._service.dispatch.open(
                module=self._service.module,
                kind=SessionKind.LIVE,
                listener=self,
                has_silence_prefix=self._has_silence_prefix,
            )
        except AsrError as error:
            self.ended(error)
        if self._error is not None:
            # Refused before the stream was known here.
            self._stream = None
        await self._read()

    async def _read(self) -> None:
        n_messages = 0
        while True:
            if not self._may_read():
                await self._wait_for_room()
            message = await self._socket.receive()
            now = self._loop.time()
            match message.type:
                case WSMsgType.BINARY:
                    self._used.received_bytes += len(message.data)
                    if self._stream is not None and self._error is None:
                        await self._take(self._stream, message.data, now)
                case WSMsgType.PING:
                    self._clocks.heard(now)
                    self._write(server_frames.pong(message.data))
                case WSMsgType.PONG | WSMsgType.TEXT:
                    self._clocks.heard(now)
                case _:
                    return
            n_messages += 1
            if n_messages % MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _take(self, stream: Stream, data: bytes, now: float) -> None:
        try:
            event = self._dialect.decode(data) if len(data) < BIG_MESSAGE_BYTES else await self._decode_big(data)
            self._clocks.understood(now)
            if self._error is not None:
                return
            if isinstance(event, np.ndarray):
                stream.audio(event)
            else:
                await self._take_rare(stream, event)
        except AsrError as error:
            self.fail(error)

    async def _decode_big(self, data: bytes) -> ClientEvent:
        # An array of a million integers takes 50 ms; a hundred clients that send one must not stop the rest for 5 s.
        async with self._service.big_messages:
            event = self._dialect.decode(data)
            await asyncio.sleep(0)
        return event

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
            self._opus = self._service.make_opus_decoder()
        for pcm in self._opus.feed_in_pieces(data):
            stream.audio(pcm)
            # A few bytes of Opus can stand for minutes.
            if not self._may_read():
                await self._wait_for_room()
            if self._error is not None:
                return

    def _may_read(self) -> bool:
        if self._error is not None:
            return True
        return not self._is_output_full and (self._stream is None or self._stream.may_read())

    async def _wait_for_room(self) -> None:
        self._clocks.pause(self._loop.time())
        while not self._may_read():
            self._changed.clear()
            await self._changed.wait()
        self._clocks.resume(self._loop.time())

    # --- clocks -------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Look at the clocks."""
        if self._error is not None:
            return
        if self._is_output_full and self._unread_bytes() <= self._service.config.output_buffer_bytes // 2:
            self._set_output_full(now, is_full=False)
        self._report()
        is_busy = self._stream is not None and self._stream.session.is_busy
        match self._clocks.check(now, is_busy=is_busy):
            case Verdict.NOTHING:
                pass
            case Verdict.PING:
                self._write(server_frames.PING)
            case Verdict.SILENT:
                # Nobody is there to be told. aiohttp would leave the socket as it is, with all that it still holds.
                self._abort(IdleClientError("nothing was heard from the client"))
            case Verdict.SLOW:
                self._abort(SlowConsumerError("slow consumer"))
            case Verdict.IDLE:
                limit_s = self._service.config.idle_client_s
                self.fail(IdleClientError(f"no message for {limit_s:g} s"))

    def fail(self, error: AsrError) -> None:
        """End the session and tell the client why."""
        if self._stream is not None:
            self._service.dispatch.close(self._stream, code=error.code)
        self.ended(error)

    def _abort(self, error: AsrError) -> None:
        self.fail(error)
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
        self._used.words += event.kind is EventKind.WORD
        self._send(self._dialect.event(event))

    def has_room(self) -> None:
        """Read again."""
        self._changed.set()

    def ended(self, error: AsrError) -> None:
        """Send Error and Close; ``_read`` drops what still comes."""
        if self._error is not None:
            return
        self._send(self._dialect.error(error))
        self._write(server_frames.close(error.close_code, str(error)))
        # Without its traceback: that would keep the message that it complains of.
        self._error = error.with_traceback(None)
        self._changed.set()
        self._goodbye = self._loop.call_later(GOODBYE_S, self._transport.abort)

    # --- writing ------------------------------------------------------------------------------------------

    def _send(self, payload: bytes) -> None:
        self._write(server_frames.binary(payload))

    def _write(self, frame: bytes) -> None:
        if self._error is not None or self._transport.is_closing():
            return
        self._transport.write(frame)
        self._used.sent_bytes += len(frame)
        now = self._loop.time()
        self._clocks.sent(now)
        if not self._is_output_full and self._unread_bytes() > self._service.config.output_buffer_bytes:
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
            limit = self._service.config.max_message_bytes
            is_too_large = code == WSCloseCode.MESSAGE_TOO_BIG
            too_large = MessageTooLargeError(f"a message may have at most {limit} bytes")
            self.fail(too_large if is_too_large else BadMessageError("this is not the WebSocket protocol"))
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
        code = DONE if self._error is None else self._error.code
        log = structlog.get_logger()
        if self._stream is not None:
            self._service.dispatch.close(self._stream)
        self._report()
        if not self._was_ready:
            log.info(SESSION_REFUSED, kind=_LIVE, code=code)
            return
        log.info(
            SESSION_CLOSED,
            kind=_LIVE,
            code=code,
            client=self._key,
            audio_s=round(self._used.samples / SAMPLE_RATE, 2),
            words_count=self._used.words,
        )

    def _report(self) -> None:
        """Add to the metrics what was used since the last report."""
        used, before, metrics = self._used, self._reported, self._service.metrics
        if self._stream is not None:
            used.samples = self._stream.session.samples_received
        if used == before:
            return
        metrics.audio_received((used.samples - before.samples) / SAMPLE_RATE, key=self._key)
        metrics.words_sent(used.words - before.words)
        metrics.bytes_received(used.received_bytes - before.received_bytes)
        metrics.bytes_sent(used.sent_bytes - before.sent_bytes)
        self._reported = replace(used)
