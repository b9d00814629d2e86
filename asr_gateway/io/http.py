"""The small HTTP parts: keys in requests, errors as JSON, facts about this build, files of a folder.

Nothing here knows audio or sessions.
"""

import asyncio
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from asr_gateway.core.keys import KeyRing
from asr_gateway.core.origins import check_origin
from shared.errors import AsrError

KEY_HEADER: Final = "kyutai-api-key"
GRADIUM_KEY_HEADER: Final = "x-api-key"
KEY_PARAMETER: Final = "auth_id"
"""Browsers cannot set headers of a WebSocket."""

RETRY_AFTER_S: Final = 5
"""What a refused client is told to wait: about the time in which a slot becomes free on a busy service."""

INDEX: Final = "index.html"
SEND_WITHIN_S: Final = 300.0
"""How long sending a file may take: who reads none of it would otherwise keep its connection for ever."""
_DISTRIBUTION: Final = "asr-streaming"
_UNKNOWN: Final = "unknown"
_BUILD_FACTS: Final = {
    "build_timestamp": "ASR_BUILD_TIMESTAMP",
    "git_branch": "ASR_GIT_BRANCH",
    "git_timestamp": "ASR_GIT_TIMESTAMP",
    "git_hash": "ASR_GIT_HASH",
    "git_describe": "ASR_GIT_DESCRIBE",
}
"""Fields of moshi-server's answer, and the environment variables that whoever builds an image may set for them."""
_SAFE_HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


# --- keys and errors --------------------------------------------------------------------------------------


def authenticate(request: web.Request, keys: KeyRing) -> str:
    """Return the label of the request's key: in Kyutai's or Gradium's header, a WebSocket's query, or a bearer token.

    Raises:
        UnauthorizedError: a key is needed, and the request brings none that is known; or none is needed, but the
            request comes from a stranger's page.
    """
    if keys.is_open:
        check_origin(request.headers.get("Origin"), request.headers.get("Host", ""))
    key = request.headers.get(KEY_HEADER, request.headers.get(GRADIUM_KEY_HEADER))
    if key is None and is_websocket(request):
        key = request.query.get(KEY_PARAMETER)
    if key is None:
        # Last: it may be there for a proxy on the way.
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else None
    return keys.admit(key)


def is_websocket(request: web.Request) -> bool:
    """Return whether the client asks for an upgrade to a WebSocket."""
    return request.method == "GET" and request.headers.get("Upgrade", "").lower() == "websocket"


def error_response(error: AsrError) -> web.Response:
    """Return ``error`` as a JSON answer; the connection ends with it if the body may not have been read."""
    facts = {"error": str(error), "code": error.code}
    return with_retry(web.json_response(facts, status=error.http_status), error)


def with_retry(response: web.Response, error: AsrError) -> web.Response:
    """Return the answer that tells ``error`` with its headers; the connection ends with it."""
    if error.retry:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    response.force_close()
    return response


# --- build_info -------------------------------------------------------------------------------------------


def build_info() -> dict[str, str]:
    """Return the facts about this build; what nobody recorded is ``unknown``."""
    try:
        own_version = version(_DISTRIBUTION)
    except PackageNotFoundError:
        own_version = _UNKNOWN
    facts = {name: os.environ.get(variable, _UNKNOWN) for name, variable in _BUILD_FACTS.items()}
    return {
        "name": _DISTRIBUTION,
        "version": own_version,
        **facts,
        "python_version": platform.python_version(),
        "platform": f"{platform.machine()}-{sys.platform}",
    }


# --- files ------------------------------------------------------------------------------------------------


class _TimedFile(web.FileResponse):
    """A file that must be sent within ``send_within_s``, else the connection is cut."""

    def __init__(self, path: Path, send_within_s: float) -> None:
        super().__init__(path, headers=_SAFE_HEADERS)
        self._send_within_s = send_within_s

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the file.

        Raises:
            ConnectionAbortedError: the client was too slow.
        """
        try:
            async with asyncio.timeout(self._send_within_s):
                return await super().prepare(request)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionAbortedError from None


class StaticFiles:
    """Serves a folder, with ``index.html`` for folders in it; what it has not may be part of the built-in page.

    Args:
        root: the folder; it need not exist.
        send_within_s: how long sending one file may take.
    """

    def __init__(self, root: Path, *, send_within_s: float = SEND_WITHIN_S) -> None:
        self._folders = (root, Path(str(files("asr_gateway") / "web")))
        self._send_within_s = send_within_s

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a GET for anything that has no route of its own."""
        name = request.match_info["path"]
        found = await asyncio.to_thread(self._find, name)
        if found is None:
            return web.json_response({"error": "there is nothing here", "code": "not_found"}, status=404)
        if found.name == INDEX and name and not name.endswith(("/", INDEX)):
            # Without the slash the links of the page would point beside the folder.
            target = URL.build(path=f"/{name.lstrip('/')}/", query_string=request.query_string)
            raise web.HTTPTemporaryRedirect(target)
        return _TimedFile(found, self._send_within_s)

    def _find(self, name: str) -> Path | None:
        if any(part.startswith(".") and part != ".well-known" for part in name.split("/")):
            return None
        return next((found for folder in self._folders if (found := _file_in(folder, name))), None)


def _file_in(folder: Path, name: str) -> Path | None:
    """Return the file that a request for ``name`` means, or None; never one outside of the folder."""
    try:
        root = folder.resolve()
        path = (root / name.lstrip("/")).resolve()
        if not path.is_relative_to(root):
            return None
        if path.is_dir():
            path /= INDEX
        return path if path.is_file() else None
    except (OSError, ValueError, RuntimeError):
        # A NUL byte, a name too long, a loop of links.
        return None
