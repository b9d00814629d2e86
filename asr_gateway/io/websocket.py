"""``GET {path}`` with an upgrade: live transcription over a WebSocket. See ``websocket_client.py`` for one client."""

import asyncio
import itertools
from typing import Final

import structlog
from aiohttp import web

from asr_gateway.core.keys import KeyRing
from asr_gateway.io.aiohttp_socket import Socket
from asr_gateway.io.http import authenticate
from asr_gateway.io.live_service import LiveService
from asr_gateway.io.websocket_client import GOODBYE_S, WebSocketClient
from shared.errors import AsrError, BadMessageError, RestartingError
from shared.log_events import SESSION_REFUSED, UNEXPECTED_ERROR_CAUGHT
from shared.messages import SessionKind

SWEEP_S: Final = 0.25
"""How often the clocks of all clients are looked at."""
MAX_LAG_S: Final = 0.5
"""If this loop itself stood still for longer, that time counts against nobody: what came in it is still unread."""
SWEEPS_PER_REPORT: Final = 4
"""What clients have used is added to the metrics so much more rarely."""
WRITER_LIMIT: Final = 1 << 14
_REASON_CHARS: Final = 200
_LIVE: Final = SessionKind.LIVE.name.lower()
SILENCE_PREFIX_QUERY: Final = "silence_prefix"
"""``?silence_prefix=1`` asks for the module's ``silence_prefix_s`` of silence before the client's audio."""


class WebSocketRoute:
    """The live route of one module."""

    def __init__(self, service: LiveService, keys: KeyRing) -> None:
        self._service = service
        self._keys = keys
        self._clients: set[WebSocketClient] = set()
        self._log = structlog.get_logger()

    @property
    def n_clients(self) -> int:
        """Connections that have not ended."""
        return len(self._clients)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one client from its upgrade to its end.

        Raises:
            UnauthorizedError: it brought no key that is known, or needs none but comes from a stranger's page.
            BadMessageError: what asks for a WebSocket is not what asks for one in RFC 6455.
            RestartingError: the gateway drains. Said before the upgrade: a proxy can still ask another gateway.
        """
        try:
            key = authenticate(request, self._keys)
            self._service.dispatch.check_not_draining(SessionKind.LIVE)
            self._service.metrics.connected()
            socket = await self._upgraded(request)
        except ConnectionError:  # it left before we answered; sending this instead, aiohttp finds that out for itself
            return web.Response()
        except AsrError as error:
            self._refused(error)
            raise
        transport = request.transport
        if transport is None:
            return socket
        client = WebSocketClient(
            service=self._service,
            socket=socket,
            transport=transport,
            key=key,
            has_silence_prefix=request.query.get(SILENCE_PREFIX_QUERY) == "1",
        )
        socket.before_close = client.before_close
        self._clients.add(client)
        try:
            await client.run()
        except Exception as error:  # noqa: BLE001 the top of a connection: whatever broke, the others live on
            self._log.exception(UNEXPECTED_ERROR_CAUGHT, error=type(error).__name__)
            client.fail(AsrError("internal error"))
        finally:
            self._clients.discard(client)
            client.finish()
        return socket

    async def _upgraded(self, request: web.Request) -> Socket:
        socket = Socket(
            timeout=GOODBYE_S,
            autoping=False,
            compress=False,
            max_msg_size=self._service.config.max_message_bytes + 1,  # aiohttp refuses from there on
            writer_limit=WRITER_LIMIT,
        )
        try:
            await socket.prepare(request)
        except web.HTTPBadRequest as error:
            raise BadMessageError(f"this is no WebSocket handshake: {error.text}"[:_REASON_CHARS]) from None
        except ValueError:  # aiohttp reads this header as if it could hold ASCII only
            message = "this is no WebSocket handshake: Sec-WebSocket-Key must be 16 bytes in base64"
            raise BadMessageError(message) from None
        return socket

    def _refused(self, error: AsrError) -> None:
        """Note what never became a client: a browser's page cannot tell it from a service that is down."""
        if not isinstance(error, RestartingError):  # else the dispatch has counted it
            self._service.metrics.session_refused(_LIVE, code=error.code)
        self._log.info(SESSION_REFUSED, kind=_LIVE, code=error.code, reason=str(error))

    async def run(self) -> None:
        """Look at the clocks of all clients until cancelled."""
        clock = asyncio.get_running_loop().time
        for n_sweeps in itertools.count(1):
            due = clock() + SWEEP_S
            await asyncio.sleep(SWEEP_S)
            now = clock()
            for client in list(self._clients):
                if now - due > MAX_LAG_S:
                    client.excuse(now - due, now)
                client.tick(now)
                if n_sweeps % SWEEPS_PER_REPORT == 0:
                    client.report()
