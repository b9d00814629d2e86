"""The pool's steps: who is stepped, what comes back, in which order."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from asr_worker.core import batch
from asr_worker.model.fake_oracle import FakeTranscript, expected_events
from shared.config import WorkerConfig
from shared.messages import EventKind, Evict, Open, Ready, ResumeLog, SessionKind, StepBlock, StepEvent, StepFlag
from shared.units import Epoch, FrameIndex, SessionId
from shared.wire import decode_to_gateway, encode

Fixture = Any  # fixtures of conftest.py, whose classes cannot be imported
Speech = Callable[[int, int], NDArray[np.float32]]

MARKER, FLUSHED, RESET_DONE = EventKind.MARKER, EventKind.FLUSHED, EventKind.RESET_DONE


def feed(worker: Fixture, session: int, pcm: NDArray[np.float32], first: int = 0) -> None:
    """Send ``pcm`` by windows and step it all."""
    for start in range(0, len(pcm), 25):
        worker.send(session, pcm[start : start + 25], first + start)
        worker.run()


def test_more_events_than_a_message_holds_come_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MOST_EVENTS", 3)
    events = tuple(StepEvent(SessionId(1), Epoch(1), MARKER, id=number) for number in range(8))
    block = StepBlock(
        sessions=np.ones(2, np.int64),
        epochs=np.ones(2, np.int32),
        frames=np.zeros(2, np.int64),
        steps=np.ones(2, np.int64),
        flags=np.zeros(2, np.uint8),
        text=np.zeros(2, np.int32),
        codes=np.zeros((2, 4), np.uint16),
        pauses=np.zeros((2, 1), np.float32),
        events=events,
    )
    pieces = list(batch.in_pieces(block))
    assert [len(piece.sessions) for piece in pieces] == [2, 0, 0]
    assert sum((piece.events for piece in pieces), ()) == events
    assert [decode_to_gateway(encode(piece)).events for piece in pieces] == [events[:3], events[3:6], events[6:]]
    few = replace(block, events=events[:3])
    assert next(iter(batch.in_pieces(few))) is few


def test_a_session_gets_its_words(worker: Fixture, make_speech: Speech) -> None:
    pcm = make_speech(1, 90)
    worker.open(1)
    feed(worker, 1, pcm)
    assert worker.words(1) == expected_events(pcm, worker.settings)
    assert worker.rows[1, 1] == [(frame, frame + 1, StepFlag.CLIENT) for frame in range(90)]


def test_every_session_with_a_frame_takes_part_in_every_step(worker: Fixture, make_speech: Speech) -> None:
    for session in (1, 2, 3):
        worker.open(session)
    worker.send(1, make_speech(1, 20))
    worker.send(2, make_speech(2, 5))
    plan = worker.launch()
    assert plan.active.tolist() == [True, True, False]
    worker.send(3, make_speech(3, 1))
    (block,) = worker.collect()
    assert (block.sessions.tolist(), block.frames.tolist(), block.steps.tolist()) == ([1, 2], [0, 0], [1, 1])
    assert worker.run() == 19
    assert [len(worker.rows[session, 1]) for session in (1, 2, 3)] == [20, 5, 1]
    assert [frame for frame, _, _ in worker.rows[3, 1]] == [0], "what arrived during a step is in the next"


def test_each_slot_steps_its_own_audio_whatever_waits_in_the_others(make_worker: Fixture, make_speech: Speech) -> None:
    worker = make_worker(n_slots=4)
    # Nowhere zero, unlike silence.
    logged, waiting = make_speech(1, 2) + 1, {session: make_speech(session, 6) + 1 for session in (11, 12, 13, 14)}
    client, silence = int(StepFlag.CLIENT), int(StepFlag.SILENCE)
    log = ResumeLog(
        frames=np.array([0, 0, 1, 2, 2]),
        flags=np.array([client, silence, client, client, silence], np.uint8),
        times=np.array([0, 1, 1, 2, 3, 3]) * 1920,
        text=np.zeros(5, np.int32),
        codes=np.zeros((5, 8), np.uint16),
        pcm=logged,
        steps=3,
        silence=0,
        is_whole=True,
        is_word_open=False,
        last_end_s=0.0,
    )
    resumed = Open(session=SessionId(11), epoch=Epoch(1), kind=SessionKind.LIVE, first_frame=FrameIndex(3), resume=log)
    assert isinstance(worker.tell(resumed)[0], Ready)
    worker.open(12)
    worker.open(13, prefix=4)
    worker.open(14)
    for session, pcm in waiting.items():
        worker.send(session, pcm, 3 if session == 11 else 0)
    zeros = np.zeros(1920, np.float32)
    expected = {
        0: [zeros, zeros, logged[0], logged[1], zeros, waiting[11][0]],
        1: waiting[12],
        2: [*[zeros] * 4, *waiting[13][:2]],
        3: waiting[14],
    }
    for step in range(6):
        plan = worker.launch()
        for slot, frames in expected.items():
            assert np.array_equal(plan.pcm[slot], frames[step]), f"slot {slot}, step {step}"
        worker.collect()


def test_frames_of_files_wait_on_purpose_and_do_not_count_as_late(worker: Fixture, make_speech: Speech) -> None:
    worker.open(1, kind=SessionKind.FILE)
    worker.send(1, make_speech(1, 20))
    worker.now += 1.0
    worker.launch()
    assert worker.pool.planned_oldest_s is None
    worker.collect()

    worker.open(2)
    worker.send(2, make_speech(2, 1))
    worker.launch()
    assert worker.pool.planned_oldest_s == worker.now


def test_a_slot_that_a_file_had_is_as_urgent_as_any_other(worker: Fixture, make_speech: Speech) -> None:
    worker.open(1, kind=SessionKind.FILE)
    worker.close(1)
    for session in (1, 2, 3):
        worker.open(session)
        worker.send(session, make_speech(1, 1))
        worker.launch()
        assert worker.pool.planned_oldest_s == worker.now
        worker.collect()


def test_one_block_for_each_gateway(worker: Fixture, make_speech: Speech) -> None:
    worker.greet(b"other")
    worker.open(1)
    worker.open(2, gateway=b"other")
    worker.open(3)
    pcm = make_speech(1, 1)[0]
    worker.audio((1, 0, pcm), (3, 0, pcm))
    worker.audio((2, 0, pcm), gateway=b"other")
    worker.launch()
    worker.collect()
    blocks = {gateway: [m for m in sent if isinstance(m, StepBlock)] for gateway, sent in worker.inbox.items()}
    assert {gateway: [block.sessions.tolist() for block in sent] for gateway, sent in blocks.items()} == {
        b"gw": [[1, 3]],
        b"other": [[2]],
    }


def test_a_block_carries_what_the_model_said(make_worker: Fixture, make_speech: Speech) -> None:
    worker = make_worker(n_heads=2, n_codebooks=5)
    worker.open(1)
    worker.open(2)
    worker.send(2, make_speech(1, 1))
    worker.launch()
    (block,) = worker.collect()
    result = worker.model.collect()
    assert block.text.tolist() == [result.text[1]]
    assert (block.codes.dtype, block.codes.tolist()) == (np.uint16, [result.codes[1].tolist()])
    assert (block.pauses.dtype, block.pauses.tolist()) == (np.float32, [result.pauses[1].tolist()])
    assert block.flags.tolist() == [StepFlag.CLIENT]


def test_a_model_without_heads_makes_blocks_without_pauses(make_worker: Fixture, make_speech: Speech) -> None:
    worker = make_worker(n_heads=0, delay_frames=32)
    pcm = make_speech(1, 60)
    worker.open(1)
    feed(worker, 1, pcm)
    worker.flush(1, 5, 60)
    worker.run()
    assert {block.pauses.shape for block in worker.inbox[b"gw"] if isinstance(block, StepBlock)} <= {(1, 0), (0, 0)}
    assert worker.words(1) == expected_events(pcm, worker.settings, flush=True)


def test_nothing_to_do_is_no_step(worker: Fixture) -> None:
    assert worker.launch() is None
    worker.open(1)
    assert worker.launch() is None
    assert worker.load().steps == 0


# --- markers ----------------------------------------------------------------------------------------------


def test_a_marker_comes_back_d_frames_after_the_audio_before_it(worker: Fixture, make_speech: Speech) -> None:
    worker.open(1)
    worker.send(1, make_speech(1, 4))
    worker.marker(1, 77, 4)
    worker.run()
    assert worker.answers(1) == []
    worker.send(1, make_speech(2, 5), 4)
    worker.run()
    assert worker.answers(1) == []
    worker.send(1, make_speech(3, 1), 9)
    worker.run()
    assert worker.answers(1) == [(MARKER, 77)]
    assert worker.log[1, 1][-1].id == 77, "behind the words of the same step"


def test_a_marker_behind_a_partial_frame_waits_for_it(worker: Fixture, make_speech: Speech) -> None:
    """The gateway counts the partial frame as whole: the marker's frame is beyond what it has sent."""
    worker.open(1)
    worker.send(1, make_speech(1, 4))
    worker.marker(1, 77, 5)
    worker.send(1, make_speech(2, 6), 4)
    worker.run()
    assert worker.answers(1) == []
    worker.send(1, make_speech(2, 1), 10)
    worker.run()
    assert worker.answers(1) == [(MARKER, 77)]


def test_a_marker_before_any_audio_is_due_after_d_frames_of_the_client(worker: Fixture, make_speech: Speech) -> None:
    worker.open(1, prefix=4)
    worker.marker(1, 1, 0)
    worker.send(1, make_speech(1, 5))
    worker.run()
    assert worker.answers(1) == []
    worker.send(1, make_speech(1, 1), 5)
    worker.run()
    assert worker.answers(1) == [(MARKER, 1)]


@pytest.mark.parametrize("n_logged", [0, 2])
def test_a_marker_from_before_a_reset_comes_as_early_after_a_move(
    worker: Fixture, make_speech: Speech, n_logged: int
) -> None:
    """Frames 0 to 4, the marker, 3 frames, the reset, ``n_logged`` frames, all stepped by a worker that is lost."""
    log = ResumeLog(
        frames=np.arange(8, 8 + n_logged),
        flags=np.full(n_logged, int(StepFlag.CLIENT), np.uint8),
        times=np.arange(8, 9 + n_logged) * 1920,
        text=np.zeros(n_logged, np.int32),
        codes=np.zeros((n_logged, 8), np.uint16),
        pcm=make_speech(1, n_logged),
        steps=8 + n_logged,
        silence=0,
        is_whole=True,
        is_word_open=False,
        last_end_s=0.0,
    )
    first = FrameIndex(8 + n_logged)
    worker.tell(Open(session=SessionId(1), epoch=Epoch(1), kind=SessionKind.LIVE, first_frame=first, resume=log))
    worker.marker(1, 77, 5)
    last = 5 + 6  # D
    worker.send(1, make_speech(2, last - first - 1), first)
    worker.run()
    assert worker.answers(1) == []
    worker.send(1, make_speech(3, 1), last - 1)
    worker.run()
    assert worker.answers(1) == [(MARKER, 77)]


def test_markers_keep_their_order(worker: Fixture, make_speech: Speech) -> None:
    worker.open(1)
    worker.send(1, make_speech(1, 3))
    for number in (5, 3, 9):
        worker.marker(1, number, 3)
    worker.send(1, make_speech(1, 1), 3)
    worker.marker(1, 1, 4)
    worker.send(1, make_speech(1, 8), 4)
    worker.run()
    assert worker.answers(1) == [(MARKER, 5), (MARKER, 3), (MARKER, 9), (MARKER, 1)]


def test_a_stalled_session_beside_busy_ones_gets_its_marker_neither_early_nor_before_its_words(
    worker: Fixture, make_speech: Speech
) -> None:
    pcm = make_speech(1, 20)
    worker.open(1)
    worker.open(2)
    worker.send(1, pcm[:10])
    worker.marker(1, 7, 10)
    worker.run()
    feed(worker, 2, make_speech(2, 100))
    assert worker.answers(1) == []
    worker.send(1, pcm[10:], 10)
    worker.run()
    assert worker.answers(1) == [(MARKER, 7)]
    rows_before = worker.log[1, 1][: worker.log[1, 1].index(worker.events[1, 1][-1])].count("row")
    assert rows_before >= 16
    assert worker.words(1) == expected_events(pcm, worker.settings)


def test_a_pending_marker_too_many_ends_the_session(worker: Fixture, make_speech: Speech) -> None:
    worker.open(1)
    worker.send(1, make_speech(1, 2))
    for number in range(256):
        assert worker.marker(1, number, 2) == []
    worker.run()  # these wait in the heap now
    for number in range(256):
        assert worker.marker(1, number, 5) == []
    (told,) = worker.marker(1, 512, 5)
    assert told == Evict(
        session=SessionId(1), epoch=Epoch(1), code="bad_link_message",
        reason="512 markers of one session are pending already",
    )  # fmt: skip
    assert worker.load().used == 0


def test_too_many_flushes_end_the_session(worker: Fixture) -> None:
    worker.open(1)
    for number in range(576):
        assert worker.flush(1, number, 5) == []
    assert [told.code for told in worker.flush(1, 576, 5)] == ["bad_link_message"]


# --- flush ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_flush_brings_out_the_last_word_and_its_end(worker: Fixture, make_speech: Speech, seed: int) -> None:
    pcm = make_speech(seed, 20)
    worker.open(1)
    worker.send(1, pcm)
    worker.flush(1, 5, 20, pad=960)
    worker.run()
    assert worker.words(1) == expected_events(pcm, worker.settings, flush=True, pad_samples=960)
    assert worker.answers(1) == [(FLUSHED, 5)]
    silent = [row for row in worker.rows[1, 1] if row[2] == StepFlag.SILENCE]
    assert 6 <= len(silent) <= 18
    assert {(frame, steps) for frame, steps, _ in silent} == {(19, 20)}, "silence counts for nothing"


def test_audio_behind_a_flush_waits_and_its_times_go_on(worker: Fixture, make_speech: Speech) -> None:
    first, second = make_speech(1, 10), make_speech(2, 15)
    worker.open(1)
    worker.send(1, first)
    worker.flush(1, None, 10)
    worker.send(1, second, 10)
    worker.marker(1, 3, 25)
    worker.flush(1, 6, 25, pad=1919)
    worker.run()
    transcript = FakeTranscript(worker.settings)
    words = transcript.feed(first) + transcript.flush() + transcript.feed(second) + transcript.flush(1919)
    assert worker.words(1) == words
    assert worker.answers(1) == [(FLUSHED, None), (MARKER, 3), (FLUSHED, 6)]
    flags = [flag for _, _, flag in worker.rows[1, 1]]
    assert flags[:10] == [StepFlag.CLIENT] * 10
    assert flags[10:16] == [StepFlag.SILENCE] * 6
    assert [steps for _, steps, flag in worker.rows[1, 1] if flag == StepFlag.CLIENT] == list(range(1, 26))


def test_a_marker_right_behind_a_finished_flush_is_due_at_once(worker: Fixture, make_speech: Speech) -> None:
    worker.open(1)
    worker.send(1, make_speech(1, 10))
    worker.flush(1, 1, 10)
    worker.marker(1, 2, 10)
    worker.run()
    assert worker.answers(1) == [(FLUSHED, 1), (MARKER, 2)]
    worker.marker(1, 3, 10)
    assert worker.run() == 0
    assert worker.answers(1)[2:] == [(MARKER, 3)]


def test_an_answer_travels_in_the_block_of_the_step_that_made_it_due(worker: Fixture) -> None:
    worker.open(1)
    worker.flush(1, 4, 0)
    for _ in range(6):
        worker.launch()
        (block,) = worker.collect()
    assert [(event.kind, event.id) for event in block.events] == [(FLUSHED, 4)]


def test_a_flush_of_an_idle_session_feeds_silence_and_answers(worker: Fixture) -> None:
    worker.open(1)
    worker.flush(1, 4, 0)
    assert worker.run() == 6
    assert worker.answers(1) == [(FLUSHED, 4)]
    assert worker.rows[1, 1] == [(-1, 0, StepFlag.SILENCE)] * 6


# --- reset and init ---------------------------------------------------------------------------------------


def test_a_reset_in_stream_order_forgets_all_but_the_time(worker: Fixture, make_speech: Speech) -> None:
    first, second = make_speech(1, 20), make_speech(2, 30)
    worker.open(1)
    worker.send(1, first)
    worker.marker(1, 1, 20)
    worker.reset(1, 9, 20)
    worker.send(1, second[:5], 20)
    worker.run()
    worker.send(1, second[5:], 25)
    worker.run()
    transcript = FakeTranscript(worker.settings)
    words = transcript.feed(first)
    transcript.reset()
    assert worker.words(1) == words + transcript.feed(second)
    assert worker.answers(1) == [(RESET_DONE, 9), (MARKER, 1)]
    assert [steps for _, steps, _ in worker.rows[1, 1]] == list(range(1, 51))


def test_a_reset_does_not_wait_for_the_partial_frame_of_a_marker_before_it(
    worker: Fixture, make_speech: Speech
) -> None:
    pcm = make_speech(2, 20)
    worker.open(1)
    worker.marker(1, 1, 1)
    worker.reset(1, 9, 0)
    worker.run()
    assert worker.answers(1) == [(RESET_DONE, 9)]
    worker.send(1, pcm)
    worker.run()
    assert worker.words(1) == expected_events(pcm, worker.settings)
    assert worker.answers(1) == [(RESET_DONE, 9), (MARKER, 1)]


def test_an_init_starts_afresh_at_once(worker: Fixture, make_speech: Speech) -> None:
    old, new = make_speech(1, 40), make_speech(2, 40)
    worker.open(1)
    worker.send(1, old[:20])
    worker.run()
    worker.marker(1, 1, 20)
    worker.send(1, old[20:], 20)
    worker.launch()
    n_words = len(worker.words(1))
    assert worker.reset(1, None, 40, restart=True) == [Ready(session=SessionId(1), epoch=Epoch(1), slot=0)]
    assert worker.collect() == [], "the step under way was for what came before"
    assert worker.run() == 0
    worker.send(1, new[:25], 40)
    worker.run()
    worker.send(1, new[25:], 65)
    worker.run()
    assert worker.words(1)[n_words:] == expected_events(new, worker.settings)
    assert worker.answers(1) == []
    assert worker.rows[1, 1][20:] == [(40 + place, 1 + place, StepFlag.CLIENT) for place in range(40)]


def test_an_init_gives_the_whole_window_back_and_feeds_the_prefix_again(worker: Fixture, make_speech: Speech) -> None:
    worker.open(1, prefix=3)
    worker.send(1, make_speech(1, 25))
    worker.reset(1, None, 25, restart=True)
    assert worker.send(1, make_speech(1, 25), 25) == []
    assert worker.run() == 28
    assert worker.words(1) == expected_events(make_speech(1, 25), worker.settings, prefix_frames=3)


def test_a_prefix_is_stepped_first_and_belongs_to_no_client_time(worker: Fixture, make_speech: Speech) -> None:
    pcm = make_speech(1, 20)
    worker.open(1, prefix=12)
    worker.send(1, pcm)
    worker.run()
    assert worker.words(1) == expected_events(pcm, worker.settings, prefix_frames=12)
    assert worker.rows[1, 1][:13] == [(-1, 0, StepFlag.SILENCE)] * 12 + [(0, 1, StepFlag.CLIENT)]


# --- leases that end during a step -------------------------------------------------------------------------


def test_a_slot_that_changes_hands_during_a_step_brings_its_new_session_nothing_of_it(
    worker: Fixture, make_speech: Speech
) -> None:
    pcm = make_speech(2, 25)
    worker.open(1)
    worker.send(1, make_speech(1, 25))
    for _ in range(15):
        worker.launch()
        worker.collect()
    worker.launch()
    worker.close(1)
    worker.open(2)
    worker.send(2, pcm)
    assert worker.collect() == []
    worker.run()
    assert len(worker.rows[1, 1]) == 15
    assert worker.rows[2, 1] == [(frame, frame + 1, StepFlag.CLIENT) for frame in range(25)]
    assert worker.words(2) == expected_events(pcm, worker.settings)


def test_a_neighbour_that_ends_during_a_step_takes_nothing_with_it(worker: Fixture, make_speech: Speech) -> None:
    worker.open(1)
    worker.open(2)
    worker.send(1, make_speech(1, 2))
    worker.send(2, make_speech(2, 2))
    worker.launch()
    worker.pool.drain()
    worker.close(1)
    (block,) = worker.collect()
    assert block.sessions.tolist() == [2]


# --- credit and order of the link --------------------------------------------------------------------------


def evicted(session: int, code: str, reason: str) -> list[Evict]:
    return [Evict(session=SessionId(session), epoch=Epoch(1), code=code, reason=reason)]


def test_a_gap_in_the_frames_ends_the_session_and_no_other(worker: Fixture, make_speech: Speech) -> None:
    pcm = make_speech(1, 4)
    worker.open(1)
    worker.open(2)
    told = worker.audio((1, 0, pcm[0]), (2, 0, pcm[0]), (1, 2, pcm[2]), (2, 1, pcm[1]))
    assert told == evicted(1, "gap", "frame 0 was to come next")
    assert worker.run() == 2
    assert (worker.rows[1, 1], len(worker.rows[2, 1])) == ([], 2)


@pytest.mark.parametrize("frames", [[1], [0, 0], [1, 0], [0, 2]])
def test_frames_must_follow_each_other(worker: Fixture, make_speech: Speech, frames: list[int]) -> None:
    worker.open(1)
    pcm = make_speech(1, 1)[0]
    (told,) = worker.audio(*((1, frame, pcm) for frame in frames))
    assert told.code == "gap"


def test_a_session_may_begin_at_any_frame(worker: Fixture, make_speech: Speech) -> None:
    worker.open(1, first_frame=500)
    assert worker.send(1, make_speech(1, 3), 500) == []
    worker.run()
    assert [frame for frame, _, _ in worker.rows[1, 1]] == [500, 501, 502]


def test_more_frames_than_the_window_end_the_session(make_worker: Fixture, make_speech: Speech) -> None:
    worker = make_worker(WorkerConfig(window_frames=4))
    worker.open(1)
    worker.open(2)
    assert worker.send(1, make_speech(1, 4)) == []
    worker.launch()
    reason = "more frames than the window of 4"
    # One of the four has left the ring, but its credit comes back with its result.
    assert worker.send(1, make_speech(1, 1), 4) == evicted(1, "bad_link_message", reason)
    worker.collect()
    assert worker.send(2, make_speech(1, 5)) == evicted(2, "bad_link_message", reason)


def test_every_client_frame_gives_one_credit_back(make_worker: Fixture, make_speech: Speech) -> None:
    worker = make_worker(WorkerConfig(window_frames=4))
    worker.open(1, prefix=2)
    worker.send(1, make_speech(1, 4))
    for place in range(4, 12):
        worker.launch()
        worker.collect()
        sent = worker.rows[1, 1][-1][2] == StepFlag.CLIENT
        if sent:
            assert worker.send(1, make_speech(1, 1), 4 + sum(row[2] == 0 for row in worker.rows[1, 1]) - 1) == []
        else:
            assert place < 6


@pytest.mark.parametrize("sample", [np.nan, np.inf, -1e20, 5e7])
def test_samples_that_could_poison_the_model_end_their_session(
    worker: Fixture, make_speech: Speech, sample: float
) -> None:
    worker.open(1)
    worker.open(2)
    pcm = make_speech(1, 2)
    pcm[1, 5] = sample
    assert worker.audio((2, 0, pcm[0]), (1, 0, pcm[1])) == evicted(
        1, "bad_audio", "samples must be numbers, of at most 1e+06 (RMS) in a frame"
    )
    plan = worker.launch()
    assert np.isfinite(plan.pcm).all()


def test_an_empty_block_means_nothing(worker: Fixture) -> None:
    worker.open(1)
    assert worker.audio() == []


# --- load --------------------------------------------------------------------------------------------------


def test_the_load_tells_of_steps_and_keeps_its_word(worker: Fixture, make_speech: Speech) -> None:
    assert (worker.load().steps, worker.load().deadline_s) == (0, 0.6)
    worker.pool.note_warm_up(0.5)
    assert (worker.load().steps, worker.load().deadline_s) == (0, 3.0)
    worker.open(1)
    worker.send(1, make_speech(1, 3))
    worker.run()
    load = worker.load()
    assert (load.steps, load.used, load.free, load.draining) == (3, 1, 2, False)
    assert (load.step_p50_ms, load.step_p99_ms) == (10.0, 500.0)
