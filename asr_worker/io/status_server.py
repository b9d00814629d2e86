"""``--metrics-port``: /metrics, /healthz and /readyz over HTTP, by threads beside the loop.

At most a few connections are served at once, each within seconds; more are closed unanswered. What is asked comes from
callables that only read.
"""

import contextlib
import http.server
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self

from shared.errors import ConfigError
from shared.exposition import CONTENT_TYPE

MAX_CONNECTIONS: Final = 8
REQUEST_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What can be asked: the metrics as text, whether a new session could be served, and whether none ever will be."""

    metrics: Callable[[], bytes]
    is_ready: Callable[[], bool]
    is_stuck: Callable[[], bool]


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = REQUEST_TIMEOUT_S
    server: "_Server"

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/metrics":
                self._answer(HTTPStatus.OK, self.server.status.metrics(), CONTENT_TYPE)
            case "/healthz" if self.server.status.is_stuck():
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, b"stuck\n")
            case "/healthz":
                self._answer(HTTPStatus.OK, b"ok\n")
            case "/readyz" if self.server.status.is_ready():
                self._answer(HTTPStatus.OK, b"ready\n")
            case "/readyz":
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, b"not ready\n")
            case _:
                self._answer(HTTPStatus.NOT_FOUND, b"not found\n")

    def version_string(self) -> str:
        """Return what the header ``Server`` says: not which Python runs here."""
        return "asr-worker"

    def log_message(self, *_: Any) -> None:
        """Say nothing: scrapes come every few seconds."""

    def _answer(self, status: HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # Port 0 aside, two workers must not share a port unnoticed.
    allow_reuse_port = False

    def __init__(self, address: tuple[str, int], status: Status, timeout_s: float) -> None:
        host, port = address
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family = found[0][0]
        self.status = status
        self._timeout_s = timeout_s
        self._open_since_s: dict[socket.socket, float] = {}
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind, and no more: HTTPServer asks a resolver for its name, which nobody needs, and waits if that hangs."""
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        self._open_since_s[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except Exception:
            # No thread was started, so none gives the place back. Who called us closes the connection.
            self._give_back(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._give_back(request)

    def _give_back(self, request: socket.socket) -> None:
        self._open_since_s.pop(request, None)
        self._places.release()

    def service_actions(self) -> None:
        """End the connections whose time is over; called twice a second."""
        deadline_s = time.monotonic() - self._timeout_s
        for request, since_s in tuple(self._open_since_s.items()):
            if since_s < deadline_s:
                # Its thread may be through with it just now.
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of peers that hang up."""


class StatusServer:
    """Serves ``status`` on ``host``:``port`` while the context is open; a connection lasts ``timeout_s`` at most.

    Raises:
        ConfigError: the address cannot be listened on.
    """

    def __init__(self, status: Status, *, host: str, port: int, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        try:
            self._server = _Server((host, port), status, timeout_s)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            message = f"--metrics-port {port}: cannot listen on {host}:{port}: {reason}"
            raise ConfigError(message) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="status", daemon=True)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join(REQUEST_TIMEOUT_S)
        self._server.server_close()
