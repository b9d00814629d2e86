"""Addresses of hosts, looked up in threads that nobody waits for.

A resolver that cannot be reached lets a look-up hang for many seconds. Those of uvloop and asyncio run in pools of a
few threads, which hold a process that wants to end until the last is through. Here each has a daemon thread of its own,
and a host one at a time: who asks meanwhile waits for the same answer.
"""

import asyncio
import socket
from contextlib import suppress
from functools import partial
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

from asr_gateway.io.threads import start_thread

_running: Final[dict[tuple[asyncio.AbstractEventLoop, str, int], asyncio.Future[list[str]]]] = {}


async def addresses_of(host: str, port: int) -> list[str]:
    """Return the addresses of ``host``, in numbers, each once, as the resolver orders them.

    Raises:
        OSError: it has none, or there is no resolver, or no thread to ask it in.
        UnicodeError: the name can be none: it has two dots in a row, or more than 63 characters without one.
    """
    key = asyncio.get_running_loop(), host, port
    answer = _running.get(key)
    if answer is None:
        answer = key[0].create_future()
        start_thread(partial(_look_up, *key, answer), name=f"look up {host}")
        # Not before: an answer that no thread is looking for would be waited for by all who ask from then on.
        _running[key] = answer
        answer.add_done_callback(lambda _: _running.pop(key))
    return await asyncio.shield(answer)


def _look_up(loop: asyncio.AbstractEventLoop, host: str, port: int, answer: asyncio.Future[list[str]]) -> None:
    error: Exception | None = None
    found: list[str] = []
    try:
        found = [str(address[0]) for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as raised:
        error = raised
    with suppress(RuntimeError):  # the loop is closed: nobody asks any more
        loop.call_soon_threadsafe(_give, answer, list(dict.fromkeys(found)), error)


def _give(answer: asyncio.Future[list[str]], found: list[str], error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(found)
    else:
        answer.set_exception(error)


class Resolver(AbstractResolver):
    """``addresses_of`` for a client of aiohttp."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of ``host`` that belong to ``family``.

        Raises:
            OSError: as ``addresses_of``.
            UnicodeError: likewise.
        """
        families = [(address, _family_of(address)) for address in await addresses_of(host, port)]
        return [
            ResolveResult(hostname=host, host=address, port=port, family=its, proto=0, flags=socket.AI_NUMERICHOST)
            for address, its in families
            if family in (socket.AF_UNSPEC, its)
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
