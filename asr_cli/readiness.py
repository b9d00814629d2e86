"""Ask a process whether it can take a session, or hangs. A bare GET, so that the supervisor needs no HTTP library."""

import asyncio
from contextlib import suppress
from typing import Final
from urllib.parse import urlencode

POLL_S: Final = 0.1
ANSWER_TIMEOUT_S: Final = 2.0

LOOK_EVERY_S: Final = 10.0
HUNG_AFTER_LOOKS: Final = 6
"""So many in a row, and no clock: who stood still with the process, as on a machine that swaps, must not judge it."""


async def wait_until_ready(host: str, port: int, *modules: str) -> None:
    """Return when ``/readyz`` answers 200; until then ask again and again."""
    while not await is_ready(host, port, *modules):  # noqa: ASYNC110 - another process becomes ready, no task of ours
        await asyncio.sleep(POLL_S)


async def is_ready(host: str, port: int, *modules: str) -> bool:
    """Return whether ``/readyz`` answers 200 now: for each of ``modules``, or for any if none is named."""
    return await _is_ok(host, port, "/readyz?" + urlencode([("module", name) for name in modules]))


async def wait_until_hung(host: str, port: int, *, look_every_s: float = LOOK_EVERY_S) -> None:
    """Return when ``/healthz`` has long not answered 200, once it did."""
    n_looks = 0
    while n_looks < HUNG_AFTER_LOOKS:
        await asyncio.sleep(look_every_s)
        n_looks = 0 if await _is_ok(host, port, "/healthz") else n_looks + 1


async def _is_ok(host: str, port: int, path: str) -> bool:
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await _get_status(host, port, path) == b"200"
    except (OSError, TimeoutError):
        return False


async def _get_status(host: str, port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        status_line = await reader.readline()
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    return status_line.split(b" ")[1] if b" " in status_line else b""


def url(host: str, port: int) -> str:
    """Return the address as a URL; an IPv6 address stands in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
