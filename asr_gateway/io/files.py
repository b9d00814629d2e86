"""A whole audio file in, its words out: ``POST {path}``, and forms as OpenAI has them (``file_routes.py``).

    key, headers ──► body to disk ──► decoder started ──► slot ──────► audio, Flush ──► words ──► answer
    401, 415, 503     404, 408, 413      400, 413, 422     503 (turn)      503 (worker lost)

What can be refused without the body is refused before it; a file that is no audio is refused before it waits for a
slot. A slot is held only while audio flows, and the decoder waits while the worker is busy: neither the file nor its
samples are ever in memory. A client that leaves takes its slot, its decoder and its file with it.

While the gateway drains, a file that comes is refused by its headers; those that have come go on, until ``end_all``.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import structlog
from aiohttp import HttpVersion11, web

from asr_gateway.audio.files import FileDecoder, FileLimits, open_decoder
from asr_gateway.core.keys import KeyRing
from asr_gateway.io.dispatch import Dispatch
from asr_gateway.io.file_routes import FileRoute, Heard, Upload
from asr_gateway.io.file_stream import FileStream
from asr_gateway.io.http import authenticate
from asr_gateway.io.spool import BodyLimits
from asr_gateway.io.threads import NoThreadError, in_thread
from asr_gateway.metrics import GatewayMetrics
from shared.config import GatewayConfig
from shared.errors import AsrError, ClientGoneError, NoFreeSlotError, UnsupportedEncodingError
from shared.log_events import FILE_REFUSED, FILE_TRANSCRIBED, UNEXPECTED_ERROR_CAUGHT
from shared.messages import EventKind, SessionKind
from shared.units import SAMPLE_RATE

MAX_STARTING: Final = 4
"""Files of a module that may have a decoder and no slot: each takes 40 MB, and starting one takes CPU time."""
START_WITHIN_S: Final = 5.0
"""What starting decoders, its own and those before it, may add to a file's wait for a slot."""
ORDER_WAIT_S: Final = 2.0
"""How long a file waits for those before it to ask for their slots."""
_GONE_CHECK_S: Final = 0.25
_FILE: Final = SessionKind.FILE.name.lower()

_T = TypeVar("_T")


class _Line:
    """The files of one module that have no slot yet."""

    def __init__(self) -> None:
        self.starting = asyncio.Semaphore(MAX_STARTING)
        self.newest_turn = asyncio.Event()
        """Set once the file that came last has asked for its slot, or never will."""
        self.newest_turn.set()


@dataclass(slots=True)
class _Post:
    """One request, as far as it got."""

    key: str = ""
    """Label of its key, once that is known."""
    stream: FileStream | None = None
    """Once it has asked for a slot."""

    def place(self) -> dict[str, int | str]:
        """Return what lines of the log say of where it was transcribed."""
        return {} if self.stream is None else self.stream.place()


class FileTranscriber:
    """Answers the POST requests of one gateway process.

    Args:
        dispatch: where sessions come from.
        config: limits.
        keys: who may send files.
        metrics: where requests are counted.
    """

    def __init__(self, *, dispatch: Dispatch, config: GatewayConfig, keys: KeyRing, metrics: GatewayMetrics) -> None:
        self._dispatch = dispatch
        self._config = config
        self._keys = keys
        self._metrics = metrics
        self._log = structlog.get_logger()
        self._n_waiting = 0
        self._n_requests = 0
        self._ended: asyncio.Future[AsrError] = asyncio.get_running_loop().create_future()
        """Why no request may go on any longer, once that is so."""
        self._lines: defaultdict[str, _Line] = defaultdict(_Line)
        """By module: files that wait for one must not hold up another's."""
        self._body_limits = BodyLimits(
            max_bytes=config.max_body_bytes, timeout_s=config.body_timeout_s, folder=config.spool_dir
        )
        self._file_limits = FileLimits(max_audio_s=config.max_file_s, decode_timeout_s=config.decode_timeout_s)

    @property
    def n_requests(self) -> int:
        """Files that are uploaded, wait or are transcribed."""
        return self._n_requests

    def end_all(self, error: AsrError) -> None:
        """Answer every request with an error."""
        self._ended.set_result(error)

    async def expect(self, request: web.Request, route: FileRoute) -> web.Response | None:
        """Answer ``Expect: 100-continue``: refuse what can be refused, or ask for the body."""
        try:
            self._check_headers(request, route)
            self._check_line()
        except AsrError as error:
            return self._refused(error, route, _Post())
        if request.version >= HttpVersion11 and request.headers["Expect"].lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # What was written is no part of the answer.
            request.writer.output_size = 0
        return None

    async def handle(self, request: web.Request, route: FileRoute) -> web.Response:
        """Answer one request of a route."""
        post = _Post()
        try:
            post.key = self._check_headers(request, route)
            with ExitStack() as waiting:
                # Taken before anything is waited for: requests that come together all find the same number waiting.
                waiting.enter_context(self._in_line())
                heard, answer = await self._unless_ended(request, self._transcribe(request, route, post, waiting))
        except AsrError as error:
            return self._refused(error, route, post)
        except Exception as error:  # noqa: BLE001 the top of a request: whatever broke, the others live on
            self._log.exception(UNEXPECTED_ERROR_CAUGHT, **post.place(), error=type(error).__name__)
            return self._refused(AsrError("the gateway has failed; its log says why"), route, post)
        self._metrics.post_answered(200)
        self._metrics.words_sent(sum(event.kind is EventKind.WORD for event in heard.events))
        self._metrics.bytes_sent(answer.content_length or 0)
        return answer

    def _refused(self, error: AsrError, route: FileRoute, post: _Post) -> web.Response:
        self._metrics.post_answered(error.http_status)
        if post.stream is None or not post.stream.has_slot:
            # Else the dispatch has counted the session as one that ended.
            self._metrics.session_refused(_FILE, code=error.code)
        self._log.info(FILE_REFUSED, code=error.code, **post.place(), reason=str(error))
        return route.refusal(error)

    def _check_headers(self, request: web.Request, route: FileRoute) -> str:
        """Return the label of the request's key.

        Raises:
            AsrError: the request can be refused without its body.
        """
        key = authenticate(request, self._keys)
        self._dispatch.check_not_draining(SessionKind.FILE)
        encoding = request.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            message = f"Content-Encoding {encoding[:40]!r}: send the file as it is, or in a compressed audio format"
            raise UnsupportedEncodingError(message)
        route.check(request)
        self._body_limits.check_announced(request.content_length)
        return key

    def _check_line(self) -> None:
        if self._n_waiting >= self._config.file_queue_length:
            message = f"{self._n_waiting} files are waiting already, and at most {self._config.file_queue_length} may"
            raise NoFreeSlotError(message)

    async def _transcribe(
        self, request: web.Request, route: FileRoute, post: _Post, waiting: ExitStack
    ) -> tuple[Heard, web.Response]:
        async with AsyncExitStack() as stack:
            upload = await stack.enter_async_context(route.received(request, self._body_limits))
            self._metrics.bytes_received(upload.file.tell())
            decoder, stream = await self._get_turn(stack, upload, post)
            waiting.close()
            clock = asyncio.get_running_loop().time
            begun, audio_s = clock(), 0.0
            try:
                async for pcm in decoder.chunks():
                    await stream.push(pcm)
                    audio_s += len(pcm) / SAMPLE_RATE
                await stream.finish()
                events = [event async for event in stream]
            finally:
                self._metrics.audio_received(audio_s, key=post.key)
        wall_s = clock() - begun
        facts = {"audio_s": round(audio_s, 2), "wall_s": round(wall_s, 2)}
        self._log.info(FILE_TRANSCRIBED, client=post.key, **post.place(), **facts)
        heard = Heard(events, audio_s)
        return heard, await _made(partial(upload.answer, heard))

    async def _unless_ended(self, request: web.Request, work: Coroutine[Any, Any, _T]) -> _T:
        """Return what ``work`` returns, but give it up when the client closes the connection, or at ``end_all``.

        Raises:
            ClientGoneError: the client did.
            AsrError: what ``end_all`` was given.
        """
        task = asyncio.create_task(work)
        ends: set[asyncio.Future[Any]] = {task, self._ended}
        self._n_requests += 1
        try:
            while not task.done():
                await asyncio.wait(ends, timeout=_GONE_CHECK_S, return_when=asyncio.FIRST_COMPLETED)
                if task.done():
                    break
                if self._ended.done():
                    # Without its traceback: every request raises this one.
                    raise self._ended.result().with_traceback(None)
                if request.transport is None or request.transport.is_closing():
                    message = "the client closed the connection while its file was transcribed"
                    raise ClientGoneError(message)
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._n_requests -= 1

    @contextmanager
    def _in_line(self) -> Iterator[None]:
        """Count a request from its headers to its slot or its end: so many may lie on the disk and wait.

        Raises:
            NoFreeSlotError: there are as many already.
        """
        self._check_line()
        self._n_waiting += 1
        self._metrics.file_queue_changed(self._n_waiting)
        try:
            yield
        finally:
            self._n_waiting -= 1
            self._metrics.file_queue_changed(self._n_waiting)

    async def _get_turn(self, stack: AsyncExitStack, upload: Upload, post: _Post) -> tuple[FileDecoder, FileStream]:
        """Start the decoder, see that there is audio, then wait for a slot: first come, first served.

        Raises:
            AsrError: the file is no audio, or there was no slot in time.
        """
        line = self._lines[upload.module]
        turn_before, turn = line.newest_turn, asyncio.Event()
        line.newest_turn = turn
        try:
            # The wait for a slot is the fleet's to end: none at all is enough for a file that finds one free.
            async with asyncio.timeout(self._config.file_wait_s + START_WITHIN_S), line.starting:
                decoder = await stack.enter_async_context(open_decoder(upload.file, self._file_limits))
                await decoder.begin()
                await _wait_briefly(turn_before)
                # Whoever waits for this turn wakes up after open_file() has taken its place in the queue.
                turn.set()
                post.stream = self._dispatch.open_file(upload.module)
                stream = await stack.enter_async_context(post.stream)
        except TimeoutError:
            message = f"no slot became free within {self._config.file_wait_s:g} s"
            raise NoFreeSlotError(message) from None
        finally:
            turn.set()
        return decoder, stream


async def _made(make: Callable[[], web.Response]) -> web.Response:
    # Of two hours of speech it takes a tenth of a second or two.
    try:
        return await in_thread(make)
    except NoThreadError:
        return make()


async def _wait_briefly(turn: asyncio.Event) -> None:
    # Decoders start side by side and not equally fast; only one that is in trouble takes longer than this.
    with suppress(TimeoutError):
        async with asyncio.timeout(ORDER_WAIT_S):
            await turn.wait()
