"""One session between a client and a worker that are both played by hand."""

from typing import TypeAlias

import numpy as np
import pytest

from asr_gateway.core.limits import AudioAccount, AudioBounds, ByteBudget
from asr_gateway.core.outbound import Outbound
from asr_gateway.core.replay import ReplayBounds, ReplayLog, StepRecord
from asr_gateway.core.session import Session, SessionState
from shared.config import GatewayConfig
from shared.errors import BadMessageError, LinkError
from shared.messages import Close, EventKind, Flush, Marker, Open, Reset, SessionKind, StepEvent, StepFlag
from shared.units import FRAME_SAMPLES, Epoch, FrameIndex, SessionId

ID = SessionId(7)
WINDOW = 4

Sent: TypeAlias = tuple[list[Marker | Flush | Reset], list[int]]


def session(budget: ByteBudget | None = None) -> Session:
    bounds = AudioBounds(guaranteed_samples=10 * FRAME_SAMPLES, max_samples=20 * FRAME_SAMPLES)
    return Session(session_id=ID, kind=SessionKind.LIVE, account=AudioAccount(budget or ByteBudget(1 << 20), bounds))


def streaming() -> Session:
    begun = session()
    begun.opening()
    assert begun.grant(WINDOW) == 1
    return begun


def audio(n_frames: float) -> np.ndarray:
    return np.zeros(int(n_frames * FRAME_SAMPLES), np.float32)


def taken(of: Session) -> Sent:
    """What the session sends now: requests, then the indices of its frames."""
    out = Outbound(100)
    of.take(out)
    block = out.block()
    return out.controls, [] if block is None else block.frames.tolist()


def record(frame: int) -> StepRecord:
    """What a worker says of the step of a client's frame."""
    return frame, frame + 1, int(StepFlag.CLIENT), 3, b"\0\0"


def event(kind: EventKind, event_id: int | None = None) -> StepEvent:
    return StepEvent(session=ID, epoch=Epoch(1), kind=kind, id=event_id)


# --- slot -------------------------------------------------------------------------------------------------


def test_each_opening_begins_a_new_epoch() -> None:
    waiting = session()

    openings = [waiting.opening(), waiting.opening()]

    assert openings == [
        Open(session=ID, epoch=Epoch(epoch), kind=SessionKind.LIVE, first_frame=FrameIndex(0)) for epoch in (1, 2)
    ]


def test_audio_that_comes_before_the_slot_is_kept_and_sent_after_it() -> None:
    waiting = session()
    waiting.receive_audio(audio(2))
    waiting.opening()

    assert not waiting.can_send
    assert taken(waiting) == ([], [])
    waiting.grant(WINDOW)
    assert waiting.can_send
    assert taken(waiting) == ([], [0, 1])


def test_a_ready_that_answers_nothing_is_an_error_of_the_link() -> None:
    with pytest.raises(LinkError, match="Ready came without"):
        streaming().grant(WINDOW)


def test_closing_tells_the_worker_once() -> None:
    begun = streaming()

    assert begun.close() == Close(session=ID, epoch=Epoch(1))
    assert begun.close() is None


def test_closing_before_a_worker_was_asked_tells_nobody() -> None:
    assert session().close() is None


# --- audio and credit -------------------------------------------------------------------------------------


def test_frames_leave_while_there_is_credit_and_go_on_with_every_step() -> None:
    begun = streaming()
    begun.receive_audio(audio(6))

    assert taken(begun) == ([], [0, 1, 2, 3])
    assert not begun.can_send
    begun.stepped(record(0))
    assert taken(begun) == ([], [4])


def test_the_least_that_may_wait_leaves_room_to_complete_a_frame() -> None:
    bounds = AudioBounds.of(GatewayConfig(min_buffered_audio_s=0.08, max_buffered_audio_s=0.08))
    account = AudioAccount(ByteBudget(0), bounds)
    begun = Session(session_id=ID, kind=SessionKind.LIVE, account=account)

    assert begun.receive_audio(audio(1919 / 1920))
    assert not begun.receive_audio(np.zeros(1, np.float32))
    assert begun.has_new_frame


def test_a_block_without_room_takes_the_rest_next_time() -> None:
    begun = streaming()
    begun.receive_audio(audio(3))
    out = Outbound(2)

    begun.take(out)

    assert begun.can_send
    assert taken(begun) == ([], [2])


def test_buffered_pcm_counts_received_samples_minus_stepped_frames() -> None:
    begun = streaming()
    begun.receive_audio(audio(2.5))
    taken(begun)

    assert [begun.stepped(record(0)), begun.stepped(record(1))] == [FRAME_SAMPLES * 3 // 2, FRAME_SAMPLES // 2]


@pytest.mark.parametrize("frame", [1, 5])
def test_a_step_out_of_turn_is_an_error_of_the_link(frame: int) -> None:
    begun = streaming()
    begun.receive_audio(audio(2))
    taken(begun)

    with pytest.raises(LinkError, match=f"frame {frame} was stepped, frame 0 was due"):
        begun.stepped(record(frame))


def test_a_step_of_a_frame_that_was_never_sent_is_an_error_of_the_link() -> None:
    with pytest.raises(LinkError):
        streaming().stepped(record(0))


def test_no_frame_is_sent_while_the_client_does_not_read() -> None:
    begun = streaming()
    begun.receive_audio(audio(1))
    begun.is_output_full = True

    assert not begun.can_send
    assert taken(begun) == ([], [])
    begun.is_output_full = False
    assert taken(begun) == ([], [0])


def test_reading_stops_when_audio_piles_up_and_goes_on_when_it_is_sent() -> None:
    begun = streaming()
    begun.receive_audio(audio(20))
    assert not begun.may_read

    taken(begun)

    assert begun.may_read


def test_closing_gives_the_shared_memory_back() -> None:
    budget = ByteBudget(1 << 20)
    waiting = session(budget)
    waiting.receive_audio(audio(15))
    assert budget.used_bytes == 5 * FRAME_SAMPLES * 4

    waiting.close()

    assert budget.used_bytes == 0


# --- markers ----------------------------------------------------------------------------------------------


def test_a_marker_stands_behind_the_partial_frame_before_it() -> None:
    begun = streaming()
    begun.receive_audio(audio(1.5))
    begun.receive_marker(-3)
    assert taken(begun) == ([], [0])

    begun.receive_audio(audio(0.5))

    marker = Marker(session=ID, epoch=Epoch(1), id=-3, frame=FrameIndex(2))
    assert taken(begun) == ([marker], [1])


def test_markers_wait_for_credit_with_the_frames_before_them() -> None:
    begun = streaming()
    begun.receive_audio(audio(5))
    begun.receive_marker(1)
    assert taken(begun) == ([], [0, 1, 2, 3])

    begun.stepped(record(0))

    assert taken(begun) == ([Marker(session=ID, epoch=Epoch(1), id=1, frame=FrameIndex(5))], [4])


def test_five_hundred_and_twelve_markers_may_be_pending() -> None:
    begun = streaming()
    for marker_id in range(512):
        begun.receive_marker(marker_id)

    with pytest.raises(BadMessageError, match="512 markers are pending"):
        begun.receive_marker(512)
    taken(begun)
    assert begun.deliver(event(EventKind.MARKER, 0))
    begun.receive_marker(64)


def test_a_session_is_busy_until_its_marker_is_back() -> None:
    begun = streaming()
    assert not begun.is_busy
    begun.receive_marker(5)
    assert begun.is_busy
    taken(begun)

    begun.deliver(event(EventKind.MARKER, 5))

    assert not begun.is_busy


@pytest.mark.parametrize("kind", [EventKind.MARKER, EventKind.FLUSHED, EventKind.RESET_DONE])
def test_an_answer_to_nothing_is_an_error_of_the_link(kind: EventKind) -> None:
    with pytest.raises(LinkError, match="answers nothing"):
        streaming().deliver(event(kind, 1))


# --- flush and reset --------------------------------------------------------------------------------------


def test_a_flush_pads_the_partial_frame_and_the_padding_counts_as_audio() -> None:
    begun = streaming()
    begun.receive_audio(audio(1.25))
    begun.receive_flush(9)

    n_zeros = FRAME_SAMPLES * 3 // 4
    flush = Flush(session=ID, epoch=Epoch(1), id=9, frame=FrameIndex(2), pad_samples=n_zeros)
    assert taken(begun) == ([flush], [0, 1])
    assert [begun.stepped(record(0)), begun.stepped(record(1))] == [FRAME_SAMPLES, 0]


def test_audio_behind_a_flush_starts_a_new_frame() -> None:
    begun = streaming()
    begun.receive_audio(audio(0.5))
    begun.receive_flush(None)
    begun.receive_audio(audio(0.75))
    begun.receive_marker(1)

    assert taken(begun)[1] == [0]
    begun.receive_audio(audio(0.25))
    assert taken(begun) == ([Marker(session=ID, epoch=Epoch(1), id=1, frame=FrameIndex(2))], [1])


def test_a_reset_holds_its_place_in_the_stream() -> None:
    begun = streaming()
    begun.receive_audio(audio(5))
    begun.receive_reset(4)
    assert taken(begun)[0] == []

    begun.stepped(record(0))

    reset = Reset(session=ID, epoch=Epoch(1), id=4, restart=False, frame=FrameIndex(5))
    assert taken(begun) == ([reset], [4])


def test_a_reset_does_not_wait_for_the_partial_frame_that_a_marker_before_it_waits_for() -> None:
    begun = streaming()
    begun.receive_audio(audio(1.5))
    begun.receive_marker(1)
    begun.receive_reset(2)
    begun.receive_marker(3)

    reset = Reset(session=ID, epoch=Epoch(1), id=2, restart=False, frame=FrameIndex(1))
    markers = [Marker(session=ID, epoch=Epoch(1), id=i, frame=FrameIndex(2)) for i in (1, 3)]
    assert taken(begun) == ([reset], [0])
    begun.receive_audio(audio(0.5))
    assert taken(begun) == (markers, [1])


def test_sixty_four_flushes_and_resets_may_be_under_way() -> None:
    begun = streaming()
    for _ in range(32):
        begun.receive_flush(None)
        begun.receive_reset(None)

    with pytest.raises(BadMessageError, match="Flush: 64 flushes and resets are under way"):
        begun.receive_flush(None)
    with pytest.raises(BadMessageError, match="Reset: 64 flushes and resets are under way"):
        begun.receive_reset(None)


def test_a_finished_session_closes_with_its_flush() -> None:
    begun = streaming()
    begun.receive_audio(audio(1))
    begun.finish()
    assert begun.state is SessionState.DRAINING
    assert taken(begun)[1] == [0]

    begun.stepped(record(0))
    assert begun.deliver(event(EventKind.WORD))
    assert begun.deliver(event(EventKind.FLUSHED))

    assert begun.state is SessionState.CLOSED


# --- Init -------------------------------------------------------------------------------------------------


def test_init_before_the_slot_only_asks_for_one_more_ready() -> None:
    waiting = session()
    waiting.receive_audio(audio(1))
    waiting.receive_marker(1)
    waiting.receive_init()
    waiting.opening()

    assert waiting.grant(WINDOW) == 2
    assert taken(waiting) == ([], [])
    assert not waiting.is_busy


def test_init_drops_what_waits_and_numbers_go_on_without_a_gap() -> None:
    begun = streaming()
    begun.receive_audio(audio(6.5))
    begun.receive_marker(1)
    taken(begun)

    begun.receive_init()

    assert taken(begun) == ([Reset(session=ID, epoch=Epoch(1), id=None, restart=True, frame=FrameIndex(4))], [])
    begun.receive_audio(audio(1))
    assert taken(begun) == ([], [])
    assert begun.grant(WINDOW) == 1
    assert taken(begun) == ([], [4])
    assert begun.stepped(record(4)) == 0


def test_nothing_old_is_shown_between_init_and_its_ready() -> None:
    begun = streaming()
    begun.receive_audio(audio(2))
    taken(begun)
    begun.receive_init()

    assert begun.stepped(record(0)) is None
    assert not begun.deliver(event(EventKind.WORD))
    assert not begun.deliver(event(EventKind.MARKER, 1))


def test_every_init_gets_its_ready_and_only_the_last_opens_the_way() -> None:
    begun = streaming()
    begun.receive_init()
    begun.receive_init()
    begun.receive_audio(audio(1))

    assert [reset.restart for reset in taken(begun)[0] if isinstance(reset, Reset)] == [True, True]
    assert begun.grant(WINDOW) == 1
    assert taken(begun) == ([], [])
    assert begun.grant(WINDOW) == 1
    assert taken(begun) == ([], [0])


def test_init_restores_the_whole_window() -> None:
    begun = streaming()
    begun.receive_audio(audio(WINDOW))
    taken(begun)
    begun.receive_init()
    taken(begun)
    begun.grant(WINDOW)

    begun.receive_audio(audio(WINDOW))

    assert taken(begun)[1] == [4, 5, 6, 7]


@pytest.mark.parametrize("has_slot", [False, True])
def test_sixty_four_inits_may_be_under_way(has_slot: bool) -> None:  # noqa: FBT001
    begun = streaming() if has_slot else session()
    for _ in range(64):
        begun.receive_init()

    with pytest.raises(BadMessageError, match="Init: 64 Inits are under way"):
        begun.receive_init()


def test_nothing_is_sent_or_shown_after_the_end() -> None:
    begun = streaming()
    begun.receive_audio(audio(1))
    begun.receive_marker(1)
    begun.close()

    assert not begun.can_send
    assert taken(begun) == ([], [])
    assert begun.stepped(record(0)) is None
    assert not begun.deliver(event(EventKind.MARKER, 1))


# --- another worker ---------------------------------------------------------------------------------------


def movable() -> Session:
    """A session with a slot that another worker could take over."""
    bounds = AudioBounds(guaranteed_samples=100 * FRAME_SAMPLES, max_samples=100 * FRAME_SAMPLES)
    account = AudioAccount(ByteBudget(1 << 20), bounds)
    replay = ReplayLog(ReplayBounds.of(1.0, ByteBudget(1 << 20)))
    begun = Session(session_id=ID, kind=SessionKind.LIVE, account=account, replay=replay)
    begun.opening()
    begun.grant(WINDOW)
    return begun


def test_a_lost_session_sends_again_what_was_not_stepped_and_what_was_not_answered() -> None:
    begun = movable()
    begun.receive_audio(np.concatenate([audio(2), audio(1) + 0.5]))
    begun.receive_marker(1)
    begun.receive_flush(2)
    taken(begun)
    assert [begun.stepped(record(0)), begun.stepped(record(1))] == [2 * FRAME_SAMPLES, FRAME_SAMPLES]

    begun.lose()
    assert (begun.state, begun.can_send) == (SessionState.MOVING, False)
    opening = begun.opening()
    assert begun.grant(WINDOW) == 0

    assert (opening.epoch, opening.first_frame) == (2, 2)
    assert opening.resume is not None
    assert opening.resume.frames.tolist() == [0, 1]
    assert len(opening.resume.pcm) == 2
    out = Outbound(100)
    begun.take(out)
    block = out.block()
    assert block is not None
    assert (block.frames.tolist(), block.epochs.tolist(), float(block.pcm[0, 0])) == ([2], [2], 0.5)
    assert [(type(control), control.id, control.epoch, control.frame) for control in out.controls] == [
        (Marker, 1, 2, 3), (Flush, 2, 2, 3),
    ]  # fmt: skip


def test_what_was_answered_is_not_asked_again() -> None:
    begun = movable()
    begun.receive_audio(audio(1))
    for marker_id in (1, 2):
        begun.receive_marker(marker_id)
    taken(begun)
    begun.stepped(record(0))
    begun.deliver(event(EventKind.MARKER, 1))
    begun.lose()
    begun.opening()
    begun.grant(WINDOW)

    controls, frames = taken(begun)

    assert ([control.id for control in controls], frames) == ([2], [])


def test_what_a_client_says_while_its_session_moves_reaches_the_next_worker() -> None:
    begun = movable()
    begun.lose()
    begun.receive_audio(audio(1))
    begun.receive_marker(1)
    assert taken(begun) == ([], [])
    assert begun.stepped(record(0)) is None
    assert not begun.deliver(event(EventKind.WORD))

    assert begun.opening().resume is None
    begun.grant(WINDOW)

    controls, frames = taken(begun)
    assert ([control.id for control in controls], frames) == ([1], [0])


def test_an_init_that_a_lost_worker_has_not_answered_is_asked_of_the_next() -> None:
    begun = movable()
    begun.receive_audio(audio(2))
    taken(begun)
    begun.receive_init()
    taken(begun)
    begun.lose()
    begun.receive_init()

    opening = begun.opening()
    assert (opening.first_frame, opening.resume) == (2, None)
    assert begun.grant(WINDOW) == 0
    controls, frames = taken(begun)
    assert [(type(control), control.epoch, control.frame) for control in controls] == [(Reset, 2, 2)] * 2
    assert frames == []
    assert [begun.grant(WINDOW), begun.grant(WINDOW)] == [1, 1]


def test_a_finished_session_that_moves_still_closes_with_its_flush() -> None:
    begun = movable()
    begun.receive_audio(audio(1))
    begun.lose()
    begun.finish()
    begun.opening()
    begun.grant(WINDOW)
    assert begun.state is SessionState.DRAINING
    taken(begun)
    begun.stepped(record(0))
    assert begun.deliver(event(EventKind.FLUSHED))
    assert begun.state is SessionState.CLOSED
