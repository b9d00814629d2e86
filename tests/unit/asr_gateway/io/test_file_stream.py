"""The awaitable front of a session, with a dispatch and a worker that the test plays."""

import asyncio

import numpy as np
import pytest

from asr_gateway.core.limits import AudioAccount, AudioBounds, ByteBudget
from asr_gateway.core.outbound import Outbound
from asr_gateway.core.session import Session
from asr_gateway.io.file_stream import FileStream
from asr_gateway.io.stream import Stream
from shared.errors import BadAudioError, NoFreeSlotError, WorkerLostError
from shared.messages import EventKind, SessionKind, StepEvent
from shared.units import FRAME_SAMPLES, Epoch, SessionId


class Desk:
    """Who made the stream, and grants and steps by hand."""

    def __init__(self) -> None:
        account = AudioAccount(ByteBudget(0), AudioBounds(guaranteed_samples=FRAME_SAMPLES, max_samples=FRAME_SAMPLES))
        self.session = Session(session_id=SessionId(1), kind=SessionKind.FILE, account=account)
        self.front = FileStream()
        self.stream = Stream(session=self.session, listener=self.front)
        self.closed: list[tuple[Stream, str]] = []
        self.session.opening()

        self.front.opened(self.stream, self.close)

    async def opened(self) -> FileStream:
        self.grant()
        return await self.front.__aenter__()

    def close(self, stream: Stream, *, code: str) -> None:
        self.closed.append((stream, code))

    def grant(self) -> None:
        self.session.grant(25)
        self.front.ready()

    def step_all(self) -> None:
        out = Outbound(100)
        self.session.take(out)
        if self.stream.is_starved and self.stream.may_read():
            self.front.has_room()

    def say(self, kind: EventKind, **fields: object) -> None:
        event = StepEvent(session=SessionId(1), epoch=Epoch(1), kind=kind, **fields)  # type: ignore[arg-type]
        if self.session.deliver(event):
            self.front.event(event)


def frames(n_frames: int) -> np.ndarray:
    return np.zeros(n_frames * FRAME_SAMPLES, np.float32)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_opening_waits_for_the_slot() -> None:
    desk = Desk()
    opening = asyncio.create_task(desk.front.__aenter__())
    await settle()
    assert not opening.done()

    desk.grant()

    await opening


@pytest.mark.parametrize("is_early", [True, False])
async def test_opening_fails_with_the_refusal(is_early: bool) -> None:  # noqa: FBT001
    desk = Desk()
    if is_early:
        desk.front.ended(NoFreeSlotError())
    opening = asyncio.create_task(desk.front.__aenter__())
    await settle()
    desk.front.ended(NoFreeSlotError())

    with pytest.raises(NoFreeSlotError):
        await opening
    assert desk.closed == [(desk.stream, "no_free_slot")]


async def test_pushing_waits_while_the_session_is_full() -> None:
    desk = Desk()
    front = await desk.opened()
    pushing = asyncio.create_task(front.push(frames(2)))
    await settle()
    assert not pushing.done()

    desk.step_all()

    await pushing


async def test_words_are_iterated_until_the_flush_is_answered() -> None:
    desk = Desk()
    front = await desk.opened()
    await front.finish()
    desk.step_all()
    desk.say(EventKind.WORD, text="a", time_s=0.0)
    desk.say(EventKind.END_WORD, time_s=0.5)
    desk.say(EventKind.FLUSHED)

    assert [(event.kind, event.time_s) async for event in front] == [
        (EventKind.WORD, 0.0),
        (EventKind.END_WORD, 0.5),
    ]


async def test_a_lost_worker_is_raised_wherever_the_file_stands() -> None:
    desk = Desk()
    front = await desk.opened()
    pushing = asyncio.create_task(front.push(frames(2)))
    await settle()

    front.ended(WorkerLostError("gone"))

    for waiting in (pushing, front.push(frames(1)), front.finish(), anext(front)):
        with pytest.raises(WorkerLostError):
            await waiting


async def test_leaving_the_block_gives_the_slot_back() -> None:
    desk = Desk()
    desk.grant()
    async with desk.front:
        assert desk.closed == []

    assert desk.closed == [(desk.stream, "done")]


async def test_what_ends_a_file_before_its_time_is_told() -> None:
    for error, code in ((BadAudioError(), "bad_audio"), (asyncio.CancelledError(), "client_gone")):
        desk = Desk()
        desk.grant()
        with pytest.raises(type(error)):
            async with desk.front:
                raise error
        assert desk.closed == [(desk.stream, code)]
