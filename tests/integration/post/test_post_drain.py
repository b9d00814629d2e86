"""A gateway that is stopped while files are uploaded, wait and are transcribed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

HEAD = b"POST /api/asr-streaming HTTP/1.1\r\nHost: x\r\nkyutai-api-key: right\r\n"


async def in_two(data: bytes, rest: asyncio.Event) -> AsyncIterator[bytes]:
    yield data[:1000]
    await rest.wait()
    yield data[1000:]


async def transcribed_waiting_and_uploaded(service: Any, data: bytes, rest: asyncio.Event) -> list[asyncio.Task[Any]]:
    """One post of each kind, which get as far as one slot and half a body let them."""
    first = asyncio.create_task(service.post(data))
    await service.until_used(1)
    waiting = asyncio.create_task(service.post(data))
    await service.until_waiting(1)
    uploaded = asyncio.create_task(service.post(in_two(data, rest)))
    await service.until_waiting(2)
    return [first, waiting, uploaded]


async def test_files_that_are_there_are_finished_and_new_ones_refused_at_once(stopping: Any, files: Any) -> None:
    data, rest = files.audio(2, "WAV"), asyncio.Event()
    posts = await transcribed_waiting_and_uploaded(stopping, data, rest)
    stopping.gateway.terminate()
    await stopping.until("/readyz", '"draining"')

    status, error, headers = await stopping.post(data)
    assert (status, error["code"], headers["Retry-After"]) == (503, "restarting", "5")
    for expect in (b"", b"Expect: 100-continue\r\n"):
        answer = await stopping.talk(HEAD, expect, b"Content-Length: 9\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 "), "it needs no body to be refused"
    assert await stopping.refused() == {"restarting": 3}

    # Two seconds of audio each, at twice its speed: longer than idle connections are left to close.
    await asyncio.wait({posts[1]})
    rest.set()
    expected = await files.expected_messages(data)
    assert [(await post)[:2] for post in posts] == [(200, expected)] * 3
    assert await asyncio.to_thread(stopping.gateway.wait, 10) == 0


async def test_files_that_outlast_the_drain_are_told(hasty: Any, files: Any) -> None:
    posts = await transcribed_waiting_and_uploaded(hasty, files.audio(28, "WAV"), asyncio.Event())
    hasty.gateway.terminate()

    for status, error, headers in await asyncio.gather(*posts):
        assert (status, error["code"], headers["Retry-After"]) == (503, "restarting", "5")
    assert await asyncio.to_thread(hasty.gateway.wait, 10) == 0
