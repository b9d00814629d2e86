"""What a session keeps for another worker, and what it makes of it."""

import numpy as np

from asr_gateway.core.limits import ByteBudget
from asr_gateway.core.replay import ReplayBounds, ReplayLog, step_records
from shared.messages import EventKind, StepBlock, StepEvent, StepFlag
from shared.units import FRAME_BYTES, FRAME_SAMPLES, Epoch, SessionId

CLIENT, SILENCE = int(StepFlag.CLIENT), int(StepFlag.SILENCE)


def log(n_frames: int = 4, *, context: int = 100, delay: int = 1, budget: ByteBudget | None = None) -> ReplayLog:
    made = ReplayLog(ReplayBounds(n_frames=n_frames, budget=budget or ByteBudget(1 << 20)))
    made.begin(context_frames=context, delay_frames=delay)
    return made


def step(of: ReplayLog, frame: int, flag: int = CLIENT, *, text: int = 3) -> None:
    of.records.append((frame, frame + 1, flag, text, bytes([frame % 256, 0])))


def pcm(*levels: float) -> np.ndarray:
    return np.repeat(np.array(levels, np.float32), FRAME_SAMPLES)


def test_the_rows_of_a_block_are_its_records() -> None:
    block = StepBlock(
        sessions=np.array([1, 2]),
        epochs=np.ones(2, np.int32),
        frames=np.array([5, 6]),
        steps=np.array([6, 7]),
        flags=np.array([0, 1], np.uint8),
        text=np.array([3, 9], np.int32),
        codes=np.array([[1, 2], [3, 4]], np.uint16),
        pauses=np.zeros((2, 0), np.float32),
    )
    assert list(step_records(block)) == [(5, 6, 0, 3, b"\1\0\2\0"), (6, 7, 1, 9, b"\3\0\4\0")]


def test_a_session_that_never_stepped_begins_anew() -> None:
    assert log().resume(has_prefix=False) is None


def test_silence_alone_is_repeated_unless_the_next_worker_feeds_it_anyway() -> None:
    begun = log()
    begun.records.append((-1, 0, SILENCE, 3, b"\0\0"))
    assert begun.resume(has_prefix=False) is not None
    assert begun.resume(has_prefix=True) is None
    # What another life had stepped is none of the new one's.
    assert begun.resume(has_prefix=False) is None


def test_the_last_steps_and_their_audio_are_kept() -> None:
    begun = log(n_frames=3)
    for frame in range(5):
        begun.keep([pcm(frame)], n_frames=1, n_unacknowledged=1)
        step(begun, frame, text=frame)
    kept = begun.resume(has_prefix=False)
    assert kept is not None
    assert (kept.frames.tolist(), kept.text.tolist()) == ([2, 3, 4], [2, 3, 4])
    assert kept.codes.tolist() == [[2], [3], [4]]
    assert kept.pcm[:, 0].tolist() == [2.0, 3.0, 4.0]
    assert kept.times.tolist() == [frame * FRAME_SAMPLES for frame in (2, 3, 4, 5)]
    assert (kept.steps, kept.silence, kept.is_whole) == (5, 0, False)


def test_no_more_is_kept_than_a_model_looks_back_and_no_less_than_it_speaks_late() -> None:
    for made, n_passed_on in ((log(n_frames=50, context=9), 10), (log(n_frames=0, delay=6), 12)):
        for frame in range(100):
            step(made, frame)
        kept = made.resume(has_prefix=False)
        assert kept is not None
        assert (len(kept.text), kept.is_whole) == (n_passed_on, False)


def test_audio_that_was_not_stepped_comes_back_whatever_pieces_it_was_sent_in() -> None:
    begun = log()
    begun.keep([pcm(0, 1, 2), pcm(3, 4)], n_frames=5, n_unacknowledged=5)
    step(begun, 0)
    back = begun.take_back(4)
    assert [piece[::FRAME_SAMPLES].tolist() for piece in back] == [[1.0, 2.0], [3.0, 4.0]]
    kept = begun.resume(has_prefix=False)
    assert kept is not None
    assert kept.pcm[:, 0].tolist() == [0.0]


def test_audio_that_was_not_stepped_is_kept_even_if_there_is_room_for_no_other() -> None:
    budget = ByteBudget(1)
    begun = log(budget=budget)
    begun.keep([pcm(0)], n_frames=1, n_unacknowledged=1)
    assert budget.used_bytes == FRAME_BYTES
    for frame in (1, 2):
        step(begun, frame - 1)
        begun.keep([pcm(frame)], n_frames=1, n_unacknowledged=1)
    assert budget.used_bytes == FRAME_BYTES
    step(begun, 2)
    kept = begun.resume(has_prefix=False)
    assert kept is not None
    assert (len(kept.text), kept.pcm[:, 0].tolist()) == (3, [2.0])
    begun.restart()
    assert budget.used_bytes == 0


def test_what_no_loudspeaker_could_play_is_kept_within_bounds() -> None:
    begun = log()
    begun.keep([pcm(np.nan, 1e9)], n_frames=2, n_unacknowledged=2)
    step(begun, 0)
    step(begun, 1)
    kept = begun.resume(has_prefix=False)
    assert kept is not None
    assert kept.pcm[:, 0].tolist() == [0.0, 10.0]


def test_padding_and_silence_are_no_time_of_the_client() -> None:
    begun = log(n_frames=10)
    begun.pad(2, 920)  # frame 1 holds 1000 samples
    step(begun, 0)
    step(begun, 1)
    step(begun, 1, SILENCE)
    kept = begun.resume(has_prefix=False)
    assert kept is not None
    assert kept.times.tolist() == [0, 1920, 2920, 2920]
    assert kept.silence == 1
    step(begun, 2)
    kept = begun.resume(has_prefix=False)
    assert kept is not None
    assert kept.times.tolist() == [0, 1920, 2920, 2920, 4840]


def test_padding_that_no_flush_has_reached_is_still_to_come() -> None:
    begun = log()
    step(begun, 0)
    begun.pad(1, 920)
    kept = begun.resume(has_prefix=False)
    assert kept is not None
    assert kept.times.tolist() == [0, 1920]


def test_padding_of_several_frames_that_are_still_to_be_stepped_is_told_apart() -> None:
    begun = log()
    begun.pad(1, 920)
    begun.pad(2, 20)
    step(begun, 0)
    step(begun, 0, SILENCE)
    step(begun, 1)
    step(begun, 1, SILENCE)
    kept = begun.resume(has_prefix=False)
    assert kept is not None
    assert kept.times.tolist() == [0, 1000, 1000, 2900, 2900]


def test_hours_of_padding_are_remembered_as_a_sum() -> None:
    begun = log()
    for frame in range(1000):
        step(begun, frame)
        begun.pad(frame + 1, 20)
        step(begun, frame, SILENCE)
    kept = begun.resume(has_prefix=False)
    assert kept is not None
    assert int(kept.times[-1]) == 1000 * 1900


def test_silence_counts_for_the_flush_that_is_not_answered() -> None:
    begun = log(n_frames=10)
    step(begun, 0)
    for _ in range(2):
        step(begun, 0, SILENCE)
    begun.told(StepEvent(SessionId(1), Epoch(1), EventKind.FLUSHED))
    step(begun, 0, SILENCE)
    kept = begun.resume(has_prefix=False)
    assert kept is not None
    assert (len(kept.text), kept.silence) == (4, 1)


def test_a_reset_forgets_the_steps_and_keeps_the_time() -> None:
    begun = log()
    begun.pad(2, 920)
    step(begun, 0)
    step(begun, 1)
    step(begun, 1, SILENCE)
    begun.told(StepEvent(SessionId(1), Epoch(1), EventKind.RESET_DONE))
    kept = begun.resume(has_prefix=False)
    assert kept is not None
    assert (len(kept.text), kept.times.tolist(), kept.steps) == (0, [2920], 2)


def test_a_word_without_its_end_is_told_however_old_it_is() -> None:
    begun = log(n_frames=2)
    begun.told(StepEvent(SessionId(1), Epoch(1), EventKind.WORD, time_s=0.5, text="long"))
    for frame in range(9):
        step(begun, frame)
    kept = begun.resume(has_prefix=False)
    assert kept is not None
    assert (kept.is_word_open, kept.last_end_s) == (True, 0.0)
    begun.told(StepEvent(SessionId(1), Epoch(1), EventKind.END_WORD, time_s=0.75))
    kept = begun.resume(has_prefix=False)
    assert kept is not None
    assert (kept.is_word_open, kept.last_end_s) == (False, 0.75)


def test_who_has_audio_keeps_it_when_others_have_used_up_the_rest() -> None:
    budget = ByteBudget(8 * FRAME_BYTES)
    first, late = log(budget=budget), log(budget=budget)
    for frame in range(6):
        first.keep([pcm(frame)], n_frames=1, n_unacknowledged=1)
        step(first, frame)
    for frame in range(6):
        late.keep([pcm(frame)], n_frames=1, n_unacknowledged=1)
        step(late, frame)
        first.keep([pcm(frame)], n_frames=1, n_unacknowledged=1)
        step(first, 6 + frame)
    kept = [one.resume(has_prefix=False) for one in (first, late)]
    assert [len(one.pcm) for one in kept if one is not None] == [4, 3]
    assert budget.used_bytes <= 9 * FRAME_BYTES


def test_padding_before_resets_is_remembered_as_a_sum() -> None:
    begun = log()
    for frame in range(200):
        begun.pad(frame + 1, 20)
        step(begun, frame)
        step(begun, frame, SILENCE)
        begun.told(StepEvent(SessionId(1), Epoch(1), EventKind.RESET_DONE))
    assert len(begun._pads) == 1
    kept = begun.resume(has_prefix=False)
    assert kept is not None
    assert kept.times.tolist() == [200 * 1900]
