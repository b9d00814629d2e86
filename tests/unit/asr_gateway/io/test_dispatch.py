"""The dispatch between links and listeners that are both played: what happens when things come together in one turn."""

import asyncio
from random import Random
from typing import Any

import numpy as np
import pytest

from asr_gateway.core.modules import ServedModule
from asr_gateway.core.outbound import Outbound
from asr_gateway.core.session import Session
from asr_gateway.io.dispatch import Dispatch
from asr_gateway.metrics import GatewayMetrics
from shared.config import GatewayConfig
from shared.errors import LinkError, RestartingError
from shared.flavour import is_compiled
from shared.messages import (
    REJECT_FULL,
    Close,
    EventKind,
    Evict,
    Load,
    Open,
    Ready,
    Reject,
    StepBlock,
    StepEvent,
    StepFlag,
    Welcome,
)
from shared.units import FRAME_SAMPLES, Epoch, SessionId, SlotIndex

pytestmark = pytest.mark.skipif(is_compiled(), reason="machine code takes none but real links")


class Link:
    """A link that keeps what it is sent."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = self.label = endpoint
        self.worker = ""
        self.is_welcome = False
        self.sent: list[Any] = []
        self.forgotten: list[SessionId] = []

    def welcome(self) -> bool:
        self.is_welcome = True
        return True

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def wake(self, session: Session) -> None:
        session.take(Outbound(100))

    def forget(self, session: Session) -> None:
        self.forgotten.append(session.id)

    def opened(self) -> list[int]:
        """The epochs of the Opens that were sent."""
        return [message.epoch for message in self.sent if isinstance(message, Open)]

    def closed(self) -> list[int]:
        return [message.epoch for message in self.sent if isinstance(message, Close)]


class House:
    """A dispatch with the workers A and B; B comes second."""

    def __init__(self) -> None:
        module = ServedModule(name="asr", path="/x", lm="l", audio_tokenizer="m", silence_prefix_frames=0)
        self.dispatch = Dispatch(config=GatewayConfig(), modules=[module], random=Random(0), metrics=GatewayMetrics())
        self.a, self.b = Link("A"), Link("B")
        self.dispatch.links.close()
        self.dispatch.links = {"A": self.a, "B": self.b}  # type: ignore[assignment]
        self.words: list[str] = []
        self.join(self.a)

    def join(self, link: Link) -> None:
        facts = Welcome(
            version=2,
            worker=f"wk:{link.endpoint}",
            module="asr",
            fingerprint="f",
            n_sessions=4,
            n_heads=0,
            n_codebooks=1,
            delay_frames=3,
            context_frames=100,
            codec_context_frames=1,
            window_frames=12,
            device="fake",
            dtype="f32",
        )
        self.hear(link, facts)
        self.load(link)

    def hear(self, link: Link, message: Any) -> None:
        self.dispatch.received(link, message)  # type: ignore[arg-type]

    def load(self, link: Link, *, draining: bool = False) -> None:
        load = Load(used=0, free=4, draining=draining, steps=1, step_p50_ms=1, step_p99_ms=1, deadline_s=0.5)
        self.hear(link, load)

    async def file(self) -> str:
        async with self.dispatch.open_file("asr") as stream:
            await stream.push(np.zeros(FRAME_SAMPLES, np.float32))
            await stream.finish()
            async for event in stream:
                self.words.append(event.text)
        return "done"

    def step(self, link: Link, session: SessionId, flag: StepFlag, *events: StepEvent) -> None:
        block = StepBlock(
            sessions=np.array([session], np.int64),
            epochs=np.ones(1, np.int32),
            frames=np.zeros(1, np.int64),
            steps=np.ones(1, np.int64),
            flags=np.array([flag], np.uint8),
            text=np.array([3], np.int32),
            codes=np.zeros((1, 1), np.uint16),
            pauses=np.zeros((1, 0), np.float32),
            events=events,
        )
        self.hear(link, block)

    async def begin_file(self) -> "tuple[asyncio.Task[str], SessionId]":
        """Have a file whose slot is at A and whose audio is there."""
        file = asyncio.create_task(self.file())
        await asyncio.sleep(0)
        session: SessionId = self.a.sent[0].session
        self.hear(self.a, Ready(session=session, epoch=Epoch(1), slot=SlotIndex(0)))
        for _ in range(4):
            await asyncio.sleep(0)
        self.join(self.b)
        return file, session


async def test_a_file_whose_last_word_is_out_needs_no_other_worker() -> None:
    for is_drained in (False, True):
        house = House()
        file, session = await house.begin_file()
        house.step(house.a, session, StepFlag.CLIENT)
        # Both before the file's own task runs again.
        house.step(house.a, session, StepFlag.SILENCE, StepEvent(session, Epoch(1), EventKind.FLUSHED))
        if is_drained:
            house.load(house.a, draining=True)
            house.hear(house.b, Ready(session=session, epoch=Epoch(2), slot=SlotIndex(0)))
        else:
            house.dispatch.link_lost(house.a, "it closed the connection")  # type: ignore[arg-type]
        assert await asyncio.wait_for(file, 5) == "done"
        assert house.dispatch.n_sessions == 0
        # A slot that was kept for it is given back.
        assert house.b.opened() == house.b.closed() == ([2] if is_drained else [])


async def test_a_file_whose_last_word_is_out_is_not_failed_by_what_comes_in_the_same_turn() -> None:
    house = House()
    file, session = await house.begin_file()
    house.step(house.a, session, StepFlag.CLIENT)
    house.step(house.a, session, StepFlag.SILENCE, StepEvent(session, Epoch(1), EventKind.FLUSHED))
    house.hear(house.a, Evict(session=session, epoch=Epoch(1), code=LinkError.code, reason="it lost count"))
    house.dispatch.end_all(RestartingError("the gateway has drained for long enough"))
    assert await asyncio.wait_for(file, 5) == "done"
    assert house.dispatch.n_sessions == 0


async def test_a_link_whose_worker_has_no_slot_forgets_the_session_that_another_is_asked_for() -> None:
    house = House()
    file = asyncio.create_task(house.file())
    await asyncio.sleep(0)
    house.join(house.b)
    session: SessionId = house.a.sent[0].session
    house.hear(house.a, Reject(session=session, epoch=Epoch(1), reason=REJECT_FULL, free=0))
    # Its frames are B's: a socket of A that takes messages again later must not be given them.
    assert (house.a.forgotten, house.b.opened()) == ([session], [2])
    file.cancel()
    await asyncio.wait({file})
    assert house.b.forgotten == [session]


async def test_a_session_leaves_a_worker_that_drains_when_another_keeps_a_slot_and_not_before() -> None:
    house = House()
    file, session = await house.begin_file()
    house.load(house.a, draining=True)
    assert (house.b.opened(), house.a.closed()) == ([2], [])
    house.step(house.a, session, StepFlag.CLIENT)
    house.hear(house.b, Ready(session=session, epoch=Epoch(2), slot=SlotIndex(0)))
    assert (house.b.opened(), house.a.closed()) == ([2, 3], [1])
    assert house.b.sent[-1].resume.frames.tolist() == [0]
    file.cancel()
    await asyncio.wait({file})
    assert house.b.closed() == [3]


async def test_what_another_worker_says_of_a_session_is_nobodys() -> None:
    house = House()
    file, session = await house.begin_file()
    house.hear(house.b, Evict(session=session, epoch=Epoch(1), code="unknown_session", reason="never heard of it"))
    house.hear(house.b, Ready(session=session, epoch=Epoch(1), slot=SlotIndex(0)))
    assert house.b.closed() == [1]
    house.step(house.a, session, StepFlag.CLIENT)
    house.step(house.a, session, StepFlag.SILENCE, StepEvent(session, Epoch(1), EventKind.FLUSHED))
    assert await asyncio.wait_for(file, 5) == "done"
