"""One gateway process: its routes, its parts, and how it begins and ends.

    GET  {path}        websocket.py   live                 GET /api/build_info, /api/modules_info
    GET  /api/speech/asr              live, Gradium's way  GET /metrics, /healthz, /readyz
    POST {path}        files.py       whole files
    POST /v1/audio/transcriptions     the same in a form   GET /v1/models
                                                           anything else: files, or the built-in page

Stopping is a drain: not ready any more, no new sessions and files; those that have come may finish until the deadline,
or until one asks again; what is left then is told so and closed.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from random import SystemRandom
from typing import Any, Final

import structlog
from aiohttp import web

from asr_gateway.audio.opus import OggOpusDecoder
from asr_gateway.audio.resample import Resampler
from asr_gateway.config import GatewaySettings
from asr_gateway.core.clocks import ClockLimits
from asr_gateway.core.dialect import Dialect
from asr_gateway.core.keys import KeyRing
from asr_gateway.dialects import kyutai
from asr_gateway.dialects.gradium import Gradium
from asr_gateway.dialects.openai import UnknownModelError
from asr_gateway.io.discovery import Discovery
from asr_gateway.io.dispatch import Dispatch
from asr_gateway.io.file_routes import FORM_PATH, MODELS_PATH, BodyRoute, FileRoute, FormRoute
from asr_gateway.io.files import FileTranscriber
from asr_gateway.io.http import StaticFiles, error_response, is_websocket
from asr_gateway.io.listener import BACKLOG, Connection, HeaderDeadline, http_logger
from asr_gateway.io.live_service import LiveService
from asr_gateway.io.status import StatusRoutes
from asr_gateway.io.websocket import WebSocketRoute
from asr_gateway.metrics import GatewayMetrics
from shared.errors import AsrError, RestartingError
from shared.log_events import DRAIN_STARTED, DRAIN_TIMED_OUT, LISTENING_STARTED

KEEPALIVE_S: Final = 75.0
"""Idle connections are kept for longer than proxies keep theirs."""
GOODBYE_S: Final = 2.0
"""How long clients that were told of the restart may take to close."""
GRADIUM_PATH: Final = "/api/speech/asr"
"""Gradium's, for the first module; a module of a name has its own behind it."""
_POLL_S: Final = 0.05

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gateway:
    """Everything that one gateway process runs. Make it on the event loop that runs it."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._config = settings.gateway
        self._metrics = GatewayMetrics()
        keys = KeyRing(settings.keys)
        self._dispatch = Dispatch(
            config=self._config, modules=settings.modules, random=SystemRandom(), metrics=self._metrics
        )
        self._discovery = Discovery(settings.sources, self._dispatch.links)
        self._files = FileTranscriber(dispatch=self._dispatch, config=self._config, keys=keys, metrics=self._metrics)
        self._kyutai = {
            module.name: WebSocketRoute(self._live_service(module.name, lambda: kyutai), keys)
            for module in settings.modules
        }
        self._gradium = {
            module.name: WebSocketRoute(self._live_service(module.name, partial(Gradium, module.name, Resampler)), keys)
            for module in settings.modules
        }
        self._routes = (*self._kyutai.values(), *self._gradium.values())
        self._is_hurried = False
        self._log = structlog.get_logger()

    def _live_service(self, module: str, make_dialect: Callable[[], Dialect]) -> LiveService:
        return LiveService(
            dispatch=self._dispatch,
            module=module,
            make_dialect=make_dialect,
            config=self._config,
            clock_limits=ClockLimits.of(self._config),
            metrics=self._metrics,
            make_opus_decoder=OggOpusDecoder,
        )

    # --- life ---------------------------------------------------------------------------------------------

    async def run(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Serve on ``listener`` until ``stop`` is set, then drain."""
        tasks = [self._dispatch.run(), self._discovery.run(), *(route.run() for route in self._routes)]
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(task) for task in tasks]
            async with self._listening(listener):
                await stop.wait()
                await self._drain()
            for task in running:
                task.cancel()

    def hurry(self) -> None:
        """Let the drain wait for nobody, as if its deadline had come."""
        self._is_hurried = True

    async def _drain(self) -> None:
        self._dispatch.drain()
        self._log.info(DRAIN_STARTED, **self._under_way())
        await self._wait_until(lambda: self._is_hurried or not any(self._under_way().values()), self._config.drain_s)
        if any(self._under_way().values()):
            self._log.warning(DRAIN_TIMED_OUT, **self._under_way())
            self._files.end_all(RestartingError("this gateway is restarting; please send the file again"))
            self._dispatch.end_all(RestartingError("this gateway is restarting; please open a new session"))
        await self._wait_until(lambda: not self._n_leaving(), GOODBYE_S)

    def _under_way(self) -> dict[str, int]:
        # A file that has a slot is in both.
        return {"sessions_count": self._dispatch.n_sessions, "files_count": self._files.n_requests}

    def _n_leaving(self) -> int:
        return self._files.n_requests + sum(route.n_clients for route in self._routes)

    async def _wait_until(self, is_done: Callable[[], bool], timeout_s: float) -> None:
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not is_done():
            if asyncio.get_running_loop().time() >= deadline:
                return
            await asyncio.sleep(_POLL_S)

    @asynccontextmanager
    async def _listening(self, listener: socket.socket) -> AsyncIterator[None]:
        deadline = HeaderDeadline(self._config.header_timeout_s)
        runner = web.AppRunner(self._application(deadline.arrived), shutdown_timeout=GOODBYE_S)
        await runner.setup()
        assert runner.server is not None, "set up just now"
        loop = asyncio.get_running_loop()
        make_connection = partial(
            Connection,
            runner.server,
            loop=loop,
            logger=http_logger(),
            access_log=None,  # it would hold query strings, and they hold keys
            keepalive_timeout=KEEPALIVE_S,
            auto_decompress=False,
        )
        server = await loop.create_server(deadline.watching(make_connection), sock=listener, backlog=BACKLOG)
        self._log.info(LISTENING_STARTED, address=listener.getsockname()[:2])
        try:
            yield
        finally:
            server.close()
            await runner.cleanup()

    # --- routes -------------------------------------------------------------------------------------------

    def _application(self, arrived: Callable[[web.Request], None]) -> web.Application:
        app = web.Application(middlewares=[_guard(arrived)])
        for module in self._settings.modules:
            app.router.add_get(module.path, self._live(self._kyutai[module.name]), allow_head=False)
            self._add_file_route(app, module.path, BodyRoute(module.name, kyutai))
        for path in (GRADIUM_PATH, f"{GRADIUM_PATH}/{{module}}"):
            app.router.add_get(path, self._handle_gradium, allow_head=False)
        forms = FormRoute([module.name for module in self._settings.modules])
        self._add_file_route(app, FORM_PATH, forms)
        app.router.add_get(FORM_PATH, _post_only)
        app.router.add_get(MODELS_PATH, forms.models)
        app.router.add_get(f"{MODELS_PATH}/{{name}}", forms.model)
        status = StatusRoutes(
            dispatch=self._dispatch, modules=self._settings.modules, metrics=self._metrics, scrape=self._settings.scrape
        )
        app.router.add_routes(status.routes())
        app.router.add_get("/{path:.*}", StaticFiles(self._settings.static_dir).handle)
        app.on_response_prepare.append(_name_no_library)
        return app

    def _live(self, route: WebSocketRoute) -> _Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            if is_websocket(request):
                return await route.handle(request)
            message = "this path takes a WebSocket for live audio, or a POST with an audio file"
            headers = {"Connection": "Upgrade", "Upgrade": "websocket"}  # RFC 9110, section 15.5.22
            return web.json_response({"error": message, "code": "upgrade_required"}, status=426, headers=headers)

        return handle

    async def _handle_gradium(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info.get("module", self._settings.modules[0].name)
        if name not in self._gradium:
            facts = {"error": f"module {name[:80]!r} is not served here; allowed: {', '.join(self._gradium)}"}
            return web.json_response(facts | {"code": UnknownModelError.code}, status=UnknownModelError.http_status)
        return await self._live(self._gradium[name])(request)

    def _add_file_route(self, app: web.Application, path: str, route: FileRoute) -> None:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._files.handle(request, route)

        async def expect(request: web.Request) -> web.StreamResponse | None:
            return await self._files.expect(request, route)

        app.router.add_post(path, handle, expect_handler=expect)


async def _post_only(request: web.Request) -> web.StreamResponse:
    raise web.HTTPMethodNotAllowed(request.method, ["POST"])


async def _name_no_library(_: web.Request, response: web.StreamResponse) -> None:
    """Take out what aiohttp says of itself: which version of what runs here is nobody's business."""
    response.headers.popall("Server", None)


def _guard(arrived: Callable[[web.Request], None]) -> Any:
    """Return the outermost middleware: stops the clock of the headers, turns our errors into answers."""

    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        arrived(request)
        try:
            return await handler(request)
        except AsrError as error:
            return error_response(error)
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            message = f"{request.method} is not for this path: {allowed}"
            if request.method == "POST":
                message += f"; files are posted to {_paths_for_files(request.app)}"
            facts = {"error": message, "code": "wrong_method"}
            return web.json_response(facts, status=error.status, headers={"Allow": allowed})

    return guard


def _paths_for_files(app: web.Application) -> str:
    return ", ".join(
        route.resource.canonical for route in app.router.routes() if route.method == "POST" and route.resource
    )
