import asyncio
from collections.abc import AsyncIterator

import pytest

from asr_cli.readiness import HUNG_AFTER_LOOKS, is_ready, wait_until_hung


class Asked:
    """A process that answers with the given statuses, then with the last one for ever; None: with nothing."""

    def __init__(self) -> None:
        self.statuses: list[int | None] = [200]
        self.paths: list[str] = []
        self.place = ("127.0.0.1", 0)
        self.often = asyncio.Event()
        """Set once it was asked four times as often as it takes to judge it."""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.paths.append((await reader.readline()).decode().split()[1])
        if len(self.paths) == 4 * HUNG_AFTER_LOOKS:
            self.often.set()
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if status is not None:
            writer.write(f"HTTP/1.1 {status} Some Words\r\n\r\n".encode())
        writer.close()


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    process = Asked()
    async with await asyncio.start_server(process.answer, *process.place) as server:
        process.place = server.sockets[0].getsockname()[:2]
        yield process


async def test_the_modules_that_matter_are_named_in_the_question(asked: Asked) -> None:
    assert await is_ready(*asked.place, "a", "b c")
    assert await is_ready(*asked.place)
    assert asked.paths == ["/readyz?module=a&module=b+c", "/readyz?"]


async def test_only_who_fails_to_answer_again_and_again_hangs(asked: Asked) -> None:
    failures = [None, 503, None, 503, None]
    assert len(failures) == HUNG_AFTER_LOOKS - 1
    asked.statuses = [*failures, 200, 503]
    await asyncio.wait_for(wait_until_hung(*asked.place, look_every_s=0.001), 10)
    assert asked.paths == ["/healthz"] * (2 * HUNG_AFTER_LOOKS)


async def test_who_answers_does_not_hang(asked: Asked) -> None:
    waiting = asyncio.create_task(wait_until_hung(*asked.place, look_every_s=0.001))
    await asyncio.wait_for(asked.often.wait(), 10)
    assert not waiting.done()
    waiting.cancel()
