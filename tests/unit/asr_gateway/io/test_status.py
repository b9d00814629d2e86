import asyncio

import pytest

from asr_gateway.io.status import scraped

TEXT = b"# TYPE asr_worker_steps_total counter\nasr_worker_steps_total 12345\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(TEXT)
TURNS = 20
"""Of the loop that both ends share: more than a piece takes to arrive."""


async def scrape(*pieces: bytes) -> bytes:
    """What a gateway gets of a worker that answers with ``pieces``, each read before the next is written."""
    is_done = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            for _ in range(TURNS):
                await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()
        is_done.set()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        text = await scraped(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics")
        await is_done.wait()
        return text


async def test_the_metrics_of_a_worker_are_read_to_their_end_however_they_are_cut() -> None:
    assert await scrape(HEAD + TEXT[:-4], TEXT[-4:]) == TEXT


@pytest.mark.parametrize("pieces", [(), (HEAD + TEXT[:-4],), (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",)])
async def test_half_a_text_is_none(pieces: tuple[bytes, ...]) -> None:
    assert await scrape(*pieces) == b""


async def test_a_host_that_can_be_none_has_no_metrics() -> None:
    assert await scraped("http://two..dots/metrics") == b""
