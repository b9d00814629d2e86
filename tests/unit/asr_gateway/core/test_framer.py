import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_gateway.core.framer import Framer
from shared.units import FRAME_SAMPLES


def ramp(n_samples: int) -> np.ndarray:
    return np.arange(n_samples, dtype=np.float32)


def test_whole_frames_are_passed_on_without_a_copy() -> None:
    framer = Framer()
    pcm = ramp(3 * FRAME_SAMPLES)

    framer.push(pcm)

    (taken,) = framer.take(3)
    assert np.shares_memory(taken, pcm)
    assert taken.shape == (3 * FRAME_SAMPLES,)


def as_in_a_message(pcm: np.ndarray) -> np.ndarray:
    table = np.zeros(len(pcm), [("prefix", "u1"), ("value", ">f4")])
    table["value"] = pcm
    return table["value"]


def test_a_frame_that_has_to_wait_does_not_keep_the_message_that_it_came_in() -> None:
    framer = Framer()
    messages = [as_in_a_message(ramp(n * FRAME_SAMPLES)) for n in (1, 1, 2)]

    for message in messages:
        framer.push(message)

    first, *waiting = framer.take(4)
    assert np.shares_memory(first, messages[0])
    assert [piece.nbytes for piece in waiting] == [4 * FRAME_SAMPLES, 8 * FRAME_SAMPLES]
    for piece, message in zip(waiting, messages[1:], strict=True):
        assert piece.flags.c_contiguous
        assert piece.dtype == np.float32
        assert piece.tolist() == message.tolist()


def test_pieces_of_messages_become_plain_frames() -> None:
    framer = Framer()
    pcm = as_in_a_message(ramp(2 * FRAME_SAMPLES))

    for piece in np.split(pcm, [100, FRAME_SAMPLES, 2 * FRAME_SAMPLES - 1]):
        framer.push(piece)

    frames = framer.take(2)
    assert all(frame.dtype == np.float32 for frame in frames)
    assert np.concatenate(frames).tolist() == ramp(2 * FRAME_SAMPLES).tolist()


@pytest.mark.parametrize("lengths", [[3839] * 8, [1, 5758], [1, 1919, 1920, 5000], [4096] * 5])
@pytest.mark.parametrize("begin", [0, 1])
def test_what_waits_keeps_no_more_memory_than_it_is_counted_for(lengths: list[int], begin: int) -> None:
    framer = Framer()
    for length in lengths:
        framer.push(ramp(begin + length)[begin:])

    first, *waiting = framer.take(framer.n_frames)
    kept = sum(piece.nbytes if piece.base is None else piece.base.nbytes for piece in waiting)
    assert kept == sum(piece.nbytes for piece in waiting)
    assert np.concatenate([first, *waiting]).nbytes == sum(lengths) // FRAME_SAMPLES * FRAME_SAMPLES * 4


def test_a_partial_frame_stays_until_it_is_full() -> None:
    framer = Framer()

    framer.push(ramp(FRAME_SAMPLES - 1))

    assert (framer.n_frames, framer.n_partial, framer.n_samples) == (0, FRAME_SAMPLES - 1, FRAME_SAMPLES - 1)
    framer.push(ramp(1))
    assert (framer.n_frames, framer.n_partial, framer.n_samples) == (1, 0, FRAME_SAMPLES)


def test_taking_splits_a_large_piece() -> None:
    framer = Framer()
    framer.push(ramp(5 * FRAME_SAMPLES))

    first, second = framer.take(2), framer.take(3)

    assert [len(piece) / FRAME_SAMPLES for piece in first + second] == [2, 3]
    assert np.array_equal(np.concatenate(first + second), ramp(5 * FRAME_SAMPLES))


def test_padding_fills_the_partial_frame_with_zeros() -> None:
    framer = Framer()
    framer.push(np.ones(100, np.float32))

    assert framer.pad() == FRAME_SAMPLES - 100

    (frame,) = framer.take(1)
    assert frame.sum() == 100
    assert framer.n_samples == 0


def test_padding_without_a_partial_frame_adds_nothing() -> None:
    framer = Framer()
    framer.push(ramp(FRAME_SAMPLES))

    assert framer.pad() == 0
    assert framer.n_frames == 1


def test_clear_forgets_whole_and_partial_frames() -> None:
    framer = Framer()
    framer.push(ramp(FRAME_SAMPLES + 7))

    framer.clear()
    framer.push(ramp(FRAME_SAMPLES))

    assert framer.n_samples == FRAME_SAMPLES
    assert np.array_equal(framer.take(1)[0], ramp(FRAME_SAMPLES))


@given(st.lists(st.integers(0, 3 * FRAME_SAMPLES), max_size=12), st.lists(st.integers(0, 4), max_size=20))
def test_reframing_does_not_depend_on_where_audio_is_cut(cuts: list[int], takes: list[int]) -> None:
    framer = Framer()
    pcm = ramp(sum(cuts))
    taken: list[np.ndarray] = []
    demands = iter(takes)
    start = 0
    for n_samples in cuts:
        n_waiting = framer.push(pcm[start : start + n_samples])
        assert n_waiting == framer.n_samples
        start += n_samples
        taken += framer.take(min(next(demands, 0), framer.n_frames))
    taken += framer.take(framer.n_frames)

    n_whole = len(pcm) // FRAME_SAMPLES
    samples = np.concatenate([np.empty(0, np.float32), *taken])
    assert all(len(piece) % FRAME_SAMPLES == 0 for piece in taken)
    assert np.array_equal(samples, pcm[: n_whole * FRAME_SAMPLES])
    assert framer.n_partial == len(pcm) - n_whole * FRAME_SAMPLES
