import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from asr_gateway.io.scraper import Scraper, scraped

TEXT = b"# TYPE asr_worker_steps_total counter\nasr_worker_steps_total 12345\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(TEXT)
TURNS = 20
"""Of the loop that both ends share: more than a piece takes to arrive."""


@asynccontextmanager
async def answering(*pieces: bytes, heard: Callable[[], None] = lambda: None) -> AsyncIterator[str]:
    """A worker that answers with ``pieces``, each read before the next is written; yields where to ask it."""
    busy: set[asyncio.Event] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_done = asyncio.Event()
        busy.add(is_done)
        await reader.readuntil(b"\r\n\r\n")
        heard()
        for piece in pieces:
            writer.write(piece)
            for _ in range(TURNS):
                await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()
        is_done.set()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics"
        for is_done in busy:
            await is_done.wait()


async def scrape(*pieces: bytes) -> bytes:
    async with answering(*pieces) as target:
        return await scraped(target)


async def test_the_metrics_of_a_worker_are_read_to_their_end_however_they_are_cut() -> None:
    assert await scrape(HEAD + TEXT[:-4], TEXT[-4:]) == TEXT


@pytest.mark.parametrize("pieces", [(), (HEAD + TEXT[:-4],), (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",)])
async def test_half_a_text_is_none(pieces: tuple[bytes, ...]) -> None:
    assert await scrape(*pieces) == b""


async def test_a_host_that_can_be_none_has_no_metrics() -> None:
    assert await scraped("http://two..dots/metrics") == b""


async def test_who_does_not_answer_keeps_its_service_wide_counts() -> None:
    steps = b"# HELP asr_connect \n# TYPE asr_connect counter\nasr_connect 5\n"
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n" + steps) as target:
        scraper = Scraper({"worker": target})
        assert await scraper.texts() == {"worker": steps}

    assert await scraper.texts() == {"worker": steps}


async def test_those_who_ask_meanwhile_share_one_round_and_the_next_gets_another() -> None:
    n_asked = 0

    def count() -> None:
        nonlocal n_asked
        n_asked += 1

    async with answering(HEAD + TEXT, heard=count) as target:
        scraper = Scraper({"worker": target})
        first, second = await asyncio.gather(scraper.texts(), scraper.texts())
        assert first is second
        await scraper.texts()

    assert n_asked == 2


async def test_without_workers_there_is_nothing_to_ask() -> None:
    assert await Scraper({}).texts() == {}
