"""Reading in threads: in order, a few ahead, with its errors, and given up when nobody asks any more."""

import asyncio
import queue
import threading
from collections.abc import Iterator
from contextlib import aclosing
from typing import NoReturn

import pytest

from asr_cli.reading import MAX_AHEAD, read_ahead, waited_for


def damaged() -> Iterator[int]:
    yield 1
    message = "damaged"
    raise ValueError(message)


def test_who_waits_gets_what_comes_or_what_went_wrong() -> None:
    def fail() -> NoReturn:
        raise FileNotFoundError

    assert waited_for(lambda: 3) == 3
    with pytest.raises(FileNotFoundError):
        waited_for(fail)


async def test_pieces_come_in_their_order() -> None:
    assert [piece async for piece in read_ahead(iter(range(100)))] == list(range(100))


async def test_an_error_comes_after_the_pieces_before_it() -> None:
    ahead = read_ahead(damaged())
    assert await anext(ahead) == 1
    with pytest.raises(ValueError, match="damaged"):
        await anext(ahead)


async def test_while_a_piece_does_not_come_the_loop_turns() -> None:
    source: queue.Queue[int | None] = queue.Queue()
    async with aclosing(read_ahead(iter(source.get, None))) as ahead:
        source.put(1)
        assert await anext(ahead) == 1
        waiting = asyncio.ensure_future(anext(ahead))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        source.put(2)
        assert await asyncio.wait_for(waiting, 5) == 2
        source.put(None)


async def test_no_more_is_read_ahead_than_that_nor_any_more_once_nobody_asks() -> None:
    read: list[int] = []
    is_over = threading.Event()

    def pieces() -> Iterator[int]:
        try:
            for number in range(100):
                read.append(number)
                yield number
        finally:
            is_over.set()

    async with aclosing(read_ahead(pieces())) as ahead:
        assert await anext(ahead) == 0
    # The reader may hold one piece more than there is room for.
    assert await asyncio.to_thread(is_over.wait, 5)
    assert len(read) <= MAX_AHEAD + 2


async def test_once_nobody_asks_what_was_read_from_is_closed_and_the_thread_gone() -> None:
    before = set(threading.enumerate())
    seen: list[str] = []

    def pieces() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            seen.append("closed")

    async with aclosing(read_ahead(pieces())) as ahead:
        assert await anext(ahead) == 0
    assert seen == ["closed"]
    assert set(threading.enumerate()) <= before
