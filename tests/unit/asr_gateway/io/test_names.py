import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

import pytest

from asr_gateway.io.names import Resolver, addresses_of

HOST = "worker-0.example"


class Hanging:
    """Stands for a resolver that does not answer until it is told to, or ten seconds have passed."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.n_asked = 0

    def getaddrinfo(self, *_: object, **__: object) -> list[object]:
        self.n_asked += 1
        self.answers.wait(10)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 5)) for address in ("10.0.0.2", "10.0.0.1")]


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    resolver = Hanging()
    monkeypatch.setattr(socket, "getaddrinfo", resolver.getaddrinfo)
    yield resolver
    resolver.answers.set()


def test_a_resolver_that_hangs_does_not_hold_a_process_that_wants_to_end(hanging: Hanging) -> None:
    async def ask() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await addresses_of(HOST, 5)

    begun = time.monotonic()
    asyncio.run(ask())
    assert time.monotonic() - begun < 5
    assert hanging.n_asked == 1


async def test_a_host_is_looked_up_once_at_a_time(hanging: Hanging) -> None:
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await addresses_of(HOST, 5)
    asking = [asyncio.create_task(addresses_of(HOST, 5)) for _ in range(2)]
    await asyncio.sleep(0)
    hanging.answers.set()

    assert await asyncio.gather(*asking) == [["10.0.0.2", "10.0.0.1"]] * 2
    assert hanging.n_asked == 1
    await addresses_of(HOST, 5)
    assert hanging.n_asked == 2


async def test_without_a_thread_nobody_waits_and_the_next_look_up_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(_: threading.Thread) -> NoReturn:
        message = "can't start new thread"
        raise RuntimeError(message)

    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", no_thread)
        for _ in range(2):
            with pytest.raises(OSError, match="no thread can be started"):
                await asyncio.wait_for(addresses_of("127.0.0.1", 5), 5)
    assert await addresses_of("127.0.0.1", 5) == ["127.0.0.1"]


@pytest.mark.parametrize("host", ["two..dots", "x" * 64])
async def test_a_name_that_no_resolver_could_know_is_an_error_of_the_text(host: str) -> None:
    with pytest.raises(UnicodeError):
        await addresses_of(host, 5)


async def test_a_client_is_told_the_addresses_of_the_family_that_it_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 5, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 5)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)

    found = {
        family: [one["host"] for one in await Resolver().resolve(HOST, 5, family)] for family in socket.AddressFamily
    }

    assert found[socket.AF_UNSPEC] == ["::1", "127.0.0.1"]
    assert (found[socket.AF_INET], found[socket.AF_INET6]) == (["127.0.0.1"], ["::1"])
