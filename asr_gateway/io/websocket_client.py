"""One client of the live route: the ``Listener`` of its stream.

One task reads; nothing but that task, the transport's callbacks and those of ``Listener`` touch the client, all on the
event loop's thread.

    reading   websocket_frames.py ─► websocket_reader.py ─► Stream             (not while the session is full)
    writing   Listener ─► dialect ─► websocket_writer.py ─► transport         (while it is full, no audio goes out)
    ending    Error, Close frame; then what still comes is read and dropped until the client closes, at most one
              second: closing at once would make TCP throw the Error away. Nor has a client that closed longer to read.
              One that does not read at all is cut off without a word
"""

import asyncio
from typing import Final

import structlog
from aiohttp import WSCloseCode

from asr_gateway.core.clocks import ClientClocks, Verdict
from asr_gateway.core.dialect import PackPauses
from asr_gateway.io import server_frames
from asr_gateway.io.aiohttp_socket import Socket
from asr_gateway.io.live_service import LiveService, Usage
from asr_gateway.io.stream import Stream
from asr_gateway.io.websocket_reader import WebSocketReader
from asr_gateway.io.websocket_writer import WebSocketWriter
from asr_gateway.metrics import DONE
from shared.errors import (
    AsrError,
    BadProtocolError,
    ClientGoneError,
    IdleClientError,
    MessageTooLargeError,
    SlowConsumerError,
)
from shared.log_events import SESSION_CLOSED, SESSION_REFUSED
from shared.messages import EventKind, SessionKind, StepEvent
from shared.units import SAMPLE_RATE

GOODBYE_S: Final = 1.0
"""How long a client that was told why may take to close, and one that closed to read what is left."""
GOODBYE_POLL_S: Final = 0.02

_LIVE: Final = SessionKind.LIVE.name.lower()


class WebSocketClient:
    """One connected client; the ``Listener`` of its stream."""

    __slots__ = (
        "_clocks", "_dialect", "_error", "_goodbye", "_has_silence_prefix", "_hold", "_is_text", "_key", "_loop",
        "_pack_step", "_read_until", "_reader", "_reported", "_service", "_transport", "_used", "_was_ready", "_writer",
        "is_over", "pack_pauses", "stream", "told",
    )  # fmt: skip

    def __init__(
        self,
        *,
        service: LiveService,
        socket: Socket,
        transport: asyncio.Transport,
        key: str,
        has_silence_prefix: bool,
    ) -> None:
        self._service = service
        self._dialect = service.make_dialect()
        self._is_text = self._dialect.is_text
        self._transport = transport
        self._key = key
        self._has_silence_prefix = has_silence_prefix
        self._loop = asyncio.get_running_loop()
        self._clocks = ClientClocks(service.clock_limits, self._loop.time())
        self._reader = WebSocketReader(
            service=service, dialect=self._dialect, socket=socket, clocks=self._clocks, client=self
        )
        self._writer = WebSocketWriter(
            transport=transport,
            clocks=self._clocks,
            limit_bytes=service.config.output_buffer_bytes,
            on_change=self._output_changed,
        )
        # Of ``Listener``, and what its methods call for each step:
        self.pack_pauses: PackPauses | None = self._dialect.pack_pauses
        """How this client's dialect encodes pauses."""
        self.told = self._writer.send_held
        self._hold = self._writer.hold
        self._pack_step = self._dialect.step
        self.stream: Stream | None = None
        self._error: AsrError | None = None
        """Why the session ended before its time; from then on nothing more is sent."""
        self.is_over = False
        self._goodbye: asyncio.TimerHandle | None = None
        self._read_until = 0.0
        """Until when a client that we have closed on may read what it was sent."""
        self._was_ready = False
        self._used = Usage()
        self._reported = Usage()

    async def run(self) -> None:
        """Serve until the connection ends."""
        try:
            self.stream = self._service.dispatch.open(
                module=self._service.module,
                kind=SessionKind.LIVE,
                listener=self,
                has_silence_prefix=self._has_silence_prefix,
            )
        except AsrError as error:
            self.ended(error)
        if self.is_over:
            # Refused before the stream was known here.
            self.stream = None
        await self._reader.run()

    # --- clocks -------------------------------------------------------------------------------------------

    def excuse(self, stall_s: float, now: float) -> None:
        """Let the clocks pass over a time in which this process itself stood still."""
        self._clocks.excuse(stall_s, now)

    def tick(self, now: float) -> None:
        """Look at the clocks."""
        if self.is_over:
            return
        self._reader.look(now)
        self._writer.look()
        is_busy = self.stream is not None and self.stream.session.is_busy
        match self._clocks.check(now, is_busy=is_busy):
            case Verdict.NOTHING:
                pass
            case Verdict.PING:
                self._writer.write(server_frames.PING)
            case Verdict.SILENT:
                # Told in case that somebody is there after all. aiohttp would leave the socket with all that it holds.
                self.fail(self._silent(now))
                self._transport.abort()
            case Verdict.SLOW:
                self._cut(self._slow())
            case Verdict.IDLE:
                limit_s = self._service.config.idle_client_s
                self.fail(IdleClientError(f"no message for {limit_s:g} s"))

    def fail(self, error: AsrError) -> None:
        """End the session and tell the client why."""
        if self.stream is not None:
            self._service.dispatch.close(self.stream, code=error.code)
        self.ended(error)

    def _cut(self, error: AsrError) -> None:
        # Without an Error: it would lie behind all that the client does not read, and be thrown away with it.
        if self.stream is not None:
            self._service.dispatch.close(self.stream, code=error.code)
        self._end(error)
        self._transport.abort()

    def _silent(self, now: float) -> IdleClientError:
        silent_s, limit_s = now - self._clocks.heard_at, self._service.config.silent_client_s
        return IdleClientError(
            f"nothing was heard from the client for {silent_s:.1f} s, at most {limit_s:g} s may pass"
        )

    def _slow(self) -> SlowConsumerError:
        config, n_bytes = self._service.config, self._transport.get_write_buffer_size()
        limit = f"more than {config.output_buffer_bytes} may wait for at most {config.slow_consumer_s:g} s"
        return SlowConsumerError(f"the client left {n_bytes} bytes of output unread, {limit}")

    # --- Listener -----------------------------------------------------------------------------------------

    def ready(self) -> None:
        """Send Ready."""
        self._was_ready = True
        self._say_ready()

    def _say_ready(self) -> None:
        stream = self.stream
        assert stream is not None, "it is known before its slot can be granted"
        if message := self._dialect.ready(stream.session.id, stream.delay_frames):
            self._send(message)

    def step(self, step_idx: int, packed_pauses: bytes, buffered_pcm: int) -> None:
        """Send Step, once ``told``."""
        self._hold(self._framed(self._pack_step(step_idx, packed_pauses, buffered_pcm)))

    def event(self, event: StepEvent) -> None:
        """Send a word, the end of one, or an answer, once ``told``."""
        self._used.words += event.kind is EventKind.WORD
        self._hold(self._framed(self._dialect.event(event)))
        if event.kind is EventKind.FLUSHED and self._dialect.is_finished:
            self._close()

    def has_room(self) -> None:
        """Read again."""
        self._reader.look_again()

    def ended(self, error: AsrError) -> None:
        """Send Error and Close; what still comes is dropped."""
        if self.is_over:
            return
        self._send(self._dialect.error(error))
        self._writer.write(server_frames.close(error.close_code, str(error)))
        self._end(error)

    def _close(self) -> None:
        """All was said, and the client waits for us to close."""
        self._writer.send_held()
        self._writer.write(server_frames.close(WSCloseCode.OK, ""))
        if self.stream is not None:
            self._service.dispatch.close(self.stream, code=DONE)
        # It does all right, and may have a slow line: what it has not read yet is waited for as at any other time.
        self._read_until = self._loop.time() + self._service.config.slow_consumer_s
        self._end(None)

    def _end(self, error: AsrError | None) -> None:
        # Without its traceback: that would keep the message that it complains of.
        self._error = None if error is None else error.with_traceback(None)
        self.is_over = self._writer.is_closed = True
        self._reader.look_again()
        self._abort_soon()

    # --- what the reader and the writer need --------------------------------------------------------------

    @property
    def is_output_full(self) -> bool:
        """Whether the client has left too much unread."""
        return self._writer.is_full

    def answer_ping(self, payload: bytes) -> None:
        """Send a pong."""
        self._writer.write(server_frames.pong(payload))

    def introduced(self) -> None:
        """Send Ready, if it waited for this."""
        if self._was_ready and not self.is_over:
            self._say_ready()

    def _send(self, payload: bytes) -> None:
        self._writer.write(self._framed(payload))

    def _framed(self, payload: bytes) -> bytes:
        return server_frames.text(payload) if self._is_text else server_frames.binary(payload)

    def _output_changed(self) -> None:
        self._reader.look_again()
        if self.stream is not None:
            self.stream.fill_output(is_full=self._writer.is_full)

    # --- the end ------------------------------------------------------------------------------------------

    async def before_close(self, code: int) -> None:
        """Tell the client why, if it is not the one who closes; then see to it that aiohttp says nothing more.

        ``code`` is what aiohttp would close with: 1000 unless the client broke the protocol.
        """
        if code != WSCloseCode.OK and not self.is_over:
            limit = self._service.config.max_message_bytes
            is_too_large = code == WSCloseCode.MESSAGE_TOO_BIG
            too_large = MessageTooLargeError(f"a message may have at most {limit} bytes")
            self.fail(too_large if is_too_large else BadProtocolError("this is not the WebSocket protocol"))
            for _ in range(int(GOODBYE_S / GOODBYE_POLL_S)):
                if self._transport.is_closing():
                    break
                await asyncio.sleep(GOODBYE_POLL_S)
        if self.is_over:
            self._transport.close()

    def finish(self) -> None:
        """Give the slot back and leave one line in the log."""
        self._abort_soon()
        code = self._end_code()
        reason = {} if self._error is None else {"reason": str(self._error)}
        log = structlog.get_logger()
        place = {} if self.stream is None else self.stream.place()
        if self.stream is not None:
            self._service.dispatch.close(self.stream, code=code)
        self.report()
        if not self._was_ready:
            log.info(SESSION_REFUSED, kind=_LIVE, code=code, **place, **reason)
            return
        log.info(
            SESSION_CLOSED,
            kind=_LIVE,
            code=code,
            client=self._key,
            **place,
            audio_s=round(self._used.samples / SAMPLE_RATE, 2),
            words_count=self._used.words,
            **reason,
        )

    def _end_code(self) -> str:
        if self._error is not None:
            return self._error.code
        return DONE if self._was_ready else ClientGoneError.code

    def _abort_soon(self) -> None:
        # Never cancelled: a transport that was closed waits for ever for a client that does not read what is left.
        if self._goodbye is None:
            self._goodbye = self._loop.call_later(GOODBYE_S, self._abort)

    def _abort(self) -> None:
        if self._transport.get_write_buffer_size() and self._loop.time() < self._read_until:
            self._goodbye = self._loop.call_later(GOODBYE_S, self._abort)
        else:
            self._transport.abort()

    def report(self) -> None:
        """Add to the metrics what was used since the last report."""
        used, before, metrics = self._used, self._reported, self._service.metrics
        used.received_bytes, used.sent_bytes = self._reader.received_bytes, self._writer.sent_bytes
        if self.stream is not None:
            used.samples = self.stream.session.samples_received
        if used == before:
            return
        metrics.audio_received((used.samples - before.samples) / SAMPLE_RATE, key=self._key)
        metrics.words_sent(used.words - before.words)
        metrics.bytes_received(used.received_bytes - before.received_bytes)
        metrics.bytes_sent(used.sent_bytes - before.sent_bytes)
        before.samples, before.words = used.samples, used.words
        before.received_bytes, before.sent_bytes = used.received_bytes, used.sent_bytes
