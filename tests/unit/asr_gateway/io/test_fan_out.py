"""What the listeners of one block hear, and in which order."""

import numpy as np
import pytest

from asr_gateway.core.dialect import PackPauses
from asr_gateway.core.limits import AudioAccount, AudioBounds, ByteBudget
from asr_gateway.core.outbound import Outbound
from asr_gateway.core.session import Session
from asr_gateway.dialects import kyutai
from asr_gateway.io.fan_out import FanOut
from asr_gateway.io.stream import Stream
from shared.errors import AsrError
from shared.messages import EventKind, SessionKind, StepBlock, StepEvent, StepFlag
from shared.units import FRAME_SAMPLES, Epoch, SessionId

BOUNDS = AudioBounds(guaranteed_samples=10 * FRAME_SAMPLES, max_samples=10 * FRAME_SAMPLES)


class Ear:
    """A listener that notes, in a diary which all share, what it hears."""

    pack_pauses: PackPauses | None = staticmethod(kyutai.pack_pauses)

    def __init__(self, name: str, diary: list[str]) -> None:
        self.name = name
        self.diary = diary

    def ready(self) -> None:
        self.diary.append(f"{self.name} ready")

    def step(self, step_idx: int, _packed_pauses: bytes, buffered_pcm: int) -> None:
        self.diary.append(f"{self.name} step {step_idx} {buffered_pcm}")

    def event(self, event: StepEvent) -> None:
        self.diary.append(f"{self.name} {event.text or event.kind.name}")

    def has_room(self) -> None:
        self.diary.append(f"{self.name} has room")

    def told(self) -> None:
        self.diary.append(f"{self.name} told")

    def ended(self, _error: AsrError) -> None:
        self.diary.append(f"{self.name} ended")


class House:
    """Sessions 1, 2, 3 ... that wait for the steps of their first frame."""

    def __init__(self, names: str) -> None:
        self.diary: list[str] = []
        self.streams: dict[SessionId, Stream] = {}
        for number, name in enumerate(names, 1):
            account = AudioAccount(ByteBudget(0), BOUNDS)
            session = Session(session_id=SessionId(number), kind=SessionKind.LIVE, account=account)
            session.opening()
            session.grant(25)
            session.receive_audio(np.zeros(FRAME_SAMPLES, np.float32))
            session.take(Outbound(100))
            self.streams[session.id] = Stream(session=session, listener=Ear(name, self.diary))
        self.fan_out = FanOut(self.streams, self.end)

    def end(self, stream: Stream, error: AsrError) -> None:
        del self.streams[stream.session.id]
        stream.listener.ended(error)


def block(sessions: list[int], *events: StepEvent, frame: int = 0) -> StepBlock:
    n = len(sessions)
    return StepBlock(
        sessions=np.array(sessions, np.int64),
        epochs=np.ones(n, np.int32),
        frames=np.full(n, frame, np.int64),
        steps=np.ones(n, np.int64),
        flags=np.full(n, StepFlag.CLIENT, np.uint8),
        text=np.zeros(n, np.int32),
        codes=np.zeros((n, 1), np.uint16),
        pauses=np.zeros((n, 1), np.float32),
        events=events,
    )


def word(session: int, text: str, epoch: int = 1) -> StepEvent:
    return StepEvent(session=SessionId(session), epoch=Epoch(epoch), kind=EventKind.WORD, text=text)


def test_each_client_is_sent_its_step_and_its_words_before_the_next_one_is_looked_at() -> None:
    house = House("abc")
    house.fan_out.hand_out(block([1, 2, 3], word(3, "sea"), word(1, "hay"), word(3, "side")))
    assert house.diary == [
        "a step 1 0", "a hay", "a told",
        "b step 1 0", "b told",
        "c step 1 0", "c sea", "c side", "c told",
    ]  # fmt: skip


def test_events_of_sessions_without_a_row_come_last() -> None:
    house = House("ab")
    house.fan_out.hand_out(block([2], word(1, "late"), word(1, "later")))
    assert house.diary == ["b step 1 0", "b told", "a late", "a later", "a told"]


def test_old_epochs_and_strangers_are_old_news() -> None:
    house = House("a")
    house.fan_out.hand_out(block([7], word(9, "who"), word(1, "old", epoch=2)))
    assert [line for line in house.diary if line != "a told"] == []


def test_a_worker_that_lost_count_loses_that_session_and_the_others_hear_all() -> None:
    house = House("ab")
    house.fan_out.hand_out(block([1], word(1, "x"), frame=5))
    house.fan_out.hand_out(block([2], word(2, "fine")))
    assert house.diary == ["a ended", "b step 1 0", "b fine", "b told"]


def test_an_answer_to_nothing_ends_its_session() -> None:
    house = House("ab")
    answer = StepEvent(session=SessionId(1), epoch=Epoch(1), kind=EventKind.FLUSHED)
    house.fan_out.hand_out(block([1, 2], answer))
    assert house.diary == ["a step 1 0", "a ended", "b step 1 0", "b told"]


@pytest.mark.parametrize("method", ["step", "event", "told"])
def test_a_listener_that_breaks_ends_its_own_session_only(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    house = House("abc")
    monkeypatch.setattr(house.streams[SessionId(2)].listener, method, broken)
    word = StepEvent(SessionId(2), Epoch(1), EventKind.WORD, time_s=0.1, text="word")
    other = StepEvent(SessionId(3), Epoch(1), EventKind.WORD, time_s=0.1, text="other")

    house.fan_out.hand_out(block([1, 2, 3], word, other))

    assert "b ended" in house.diary
    assert [line for line in house.diary if line[0] != "b"] == [
        "a step 1 0", "a told", "c step 1 0", "c other", "c told",
    ]  # fmt: skip
    assert list(house.streams) == [1, 3]
