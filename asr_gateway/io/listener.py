"""The listening socket and its connections: small buffers, deadlines for headers and readers, errors of our own."""

import asyncio
import logging
import re
import resource
import socket
from collections.abc import Callable
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_websocket import WebSocketReader

from asr_gateway.io.http import error_response
from shared.errors import AsrError, BadMessageError, ConfigError

RECEIVE_BUFFER_BYTES: Final = 128 << 10
SEND_BUFFER_BYTES: Final = 64 << 10
BACKLOG: Final = 1_024
MAX_DESCRIPTORS: Final = 1 << 16
UNREAD_S: Final = 30.0
"""How long an answer, or a piece of a long one, may wait for its client to read it."""

_MANY_BYTES: Final = 4_096
_CHUNK_BYTES: Final = 64
_TINY_CHUNK: Final = re.compile(rb"\r\n0*[0-9A-Fa-f]{1,2}(?:;[^\r\n]*)?\r\n")
"""The head of a chunk of less than 256 bytes, behind another."""


def is_of_tiny_chunks(data: bytes) -> bool:
    """Return whether what was read at once are chunks of a few bytes, far more than anybody needs.

    Each costs the parser some 50 us, and a read of 64 kB may hold ten thousand: all others would wait half a second.
    """
    # The first count takes nothing, and is enough for audio.
    if len(data) < _MANY_BYTES or data.count(b"\r\n") * _CHUNK_BYTES <= len(data):
        return False
    return len(_TINY_CHUNK.findall(data)) * _CHUNK_BYTES > len(data)


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a bound socket; connections inherit its buffer sizes.

    Raises:
        ConfigError: the address cannot be bound.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        message = f"host {host!r}: {error.strerror if isinstance(error, OSError) else error}"
        raise ConfigError(message) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Before listen: TCP settles how large the window can become in the handshake.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        listener.bind(address)
        # Here and not later: of two processes that were both let bind, only one may listen, and the other says so.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        message = f"port {port} of {host}: {error.strerror}"
        raise ConfigError(message) from None
    listener.setblocking(False)
    return listener


def raise_descriptor_limit() -> None:
    """Let the process open as many connections as the system allows it to; shells set a soft limit of 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def http_logger() -> logging.Logger:
    """Return what aiohttp's server logs to: nothing of requests that are no HTTP; it would quote them, keys and all.

    Nor what WebSockets ask for as subprotocols: some browsers' clients send keys in that place.
    """
    logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)
    logger = logging.getLogger("asr_gateway.http")
    logger.addFilter(_is_no_foreign_fault)
    return logger


def _is_no_foreign_fault(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


class Connection(web.RequestHandler):
    """One connection; of what goes wrong before or behind our own code it tells as that does.

    aiohttp quotes the bytes that it cannot read, and names its version.

    Nor has it a deadline for the client's reading. Here an answer is begun when the kernel has taken all of the one
    before it, and who lets one wait for longer than ``unread_s`` is dropped. A WebSocket is left to its own clocks.
    """

    __slots__ = ("_drop", "_unread", "_unread_s")

    def __init__(self, manager: web.Server, *, unread_s: float = UNREAD_S, **options: Any) -> None:
        super().__init__(manager, **options)
        self._unread_s: float | None = unread_s
        self._unread: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Take in what was read; who sends a body byte by byte, many at once, is dropped."""
        if is_of_tiny_chunks(data) and self._is_chunked(data):
            self._drop()
            return
        super().data_received(data)

    def _is_chunked(self, data: bytes) -> bool:
        request = self._current_request
        if request is None:
            # Its headers are in here, too.
            return b"chunked" in data.lower()
        return "chunked" in request.headers.get("Transfer-Encoding", "").lower()

    # --- what is unread -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep nothing back for the client but what the kernel does not take at once."""
        super().connection_made(transport)
        wire = cast("asyncio.Transport", transport)
        wire.set_write_buffer_limits(high=0)
        # Not by way of self.transport, which is None once the connection is closed: it may still wait to be read then.
        self._drop = wire.abort

    def pause_writing(self) -> None:
        """The kernel takes no more: the client does not read."""
        super().pause_writing()
        if self._unread_s is not None:
            self._unread = self._loop.call_later(self._unread_s, self._drop)

    def resume_writing(self) -> None:
        """The kernel has taken all."""
        super().resume_writing()
        self._stop_waiting()

    def connection_lost(self, exc: BaseException | None) -> None:
        """There is nobody to read."""
        super().connection_lost(exc)
        self._stop_waiting()

    def set_parser(self, parser: WebSocketReader, data_received_cb: Callable[[], None] | None = None) -> None:
        """Become a WebSocket."""
        super().set_parser(parser, data_received_cb)
        self._unread_s = None
        self._stop_waiting()
        if self.transport is not None:
            self.transport.set_write_buffer_limits()

    def _stop_waiting(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    # --- what goes wrong ----------------------------------------------------------------------------------

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer to a request that is no HTTP, or that a fault of our own has ended."""
        super().handle_error(request, status, exc, message)  # logs it; its answer is thrown away
        if status == web.HTTPBadRequest.status_code:
            said = (message or "").partition("\n\n")[0].partition(" when reading")[0]
            reason = f"the request is no HTTP that can be read: {' '.join(said.split())}".rstrip(": ")
            response = error_response(BadMessageError(reason))
        else:
            response = error_response(AsrError("the gateway has failed; its log says why"))
        # Else aiohttp writes what it is: an application is not asked before such an answer goes.
        response.headers["Server"] = "asr-gateway"
        return response


class HeaderDeadline:
    """Drops connections that bring no complete first request in time.

    A later request has as long as its connection may idle: aiohttp's timer for that runs on until the headers are
    complete, so who sends them slowly holds no more than who sends nothing.

    ``arrived`` must be called for each request, before anything else: then its headers are complete.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._timers: dict[asyncio.BaseProtocol, asyncio.TimerHandle] = {}

    def watching(self, make_protocol: Callable[[], web.RequestHandler]) -> Callable[[], asyncio.Protocol]:
        """Return a factory of protocols, each of which is watched from its making."""

        def make() -> asyncio.Protocol:
            protocol = make_protocol()
            loop = asyncio.get_running_loop()
            self._timers[protocol] = loop.call_later(self._timeout_s, self._drop, protocol)
            return protocol

        return make

    def arrived(self, request: web.Request) -> None:
        """The headers of a request are complete."""
        timer = self._timers.pop(request.protocol, None)
        if timer is not None:
            timer.cancel()

    def _drop(self, protocol: web.RequestHandler) -> None:
        self._timers.pop(protocol, None)
        if protocol.transport is not None:
            protocol.transport.abort()
