import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import LinkError
from shared.lone_frames import block_of, is_lone_frame
from shared.messages import AudioBlock
from shared.units import FRAME_SAMPLES
from shared.wire import decode_to_worker, encode


def block(*rows: tuple[int, int, int]) -> AudioBlock:
    """A frame for each (session, frame, epoch), told apart by its samples."""
    sessions, frames, epochs = zip(*rows, strict=True)
    return AudioBlock(
        sessions=np.array(sessions, np.int64),
        epochs=np.array(epochs, np.int32),
        frames=np.array(frames, np.int64),
        pcm=np.repeat(np.arange(len(rows), dtype=np.float32)[:, None], FRAME_SAMPLES, axis=1),
    )


def sent(message: AudioBlock) -> list[bytes]:
    return [bytes(part) for part in encode(message)]


_ROWS = st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.integers(1, 2**31 - 1))


@given(st.lists(_ROWS, min_size=1, max_size=4))
def test_frames_that_came_alone_are_the_block_that_they_would_have_been(rows: list[tuple[int, int, int]]) -> None:
    whole = block(*rows)
    lone = []
    for index in range(len(rows)):
        one = slice(index, index + 1)
        part = AudioBlock(
            sessions=whole.sessions[one], epochs=whole.epochs[one], frames=whole.frames[one], pcm=whole.pcm[one]
        )
        lone.append(sent(part))
        assert is_lone_frame(lone[-1])
    joined = block_of(lone)
    for field in ("sessions", "epochs", "frames", "pcm"):
        ours, theirs = getattr(joined, field), getattr(whole, field)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_a_block_of_two_frames_is_not_one() -> None:
    assert not is_lone_frame(sent(block((1, 2, 3), (4, 5, 6))))


@pytest.mark.parametrize("row", [(-1, 0, 1), (0, -1, 1), (0, 0, 0)])
def test_a_frame_with_impossible_numbers_is_left_to_who_says_what_is_wrong(row: tuple[int, int, int]) -> None:
    parts = sent(block(row))
    assert not is_lone_frame(parts)
    with pytest.raises(LinkError, match="must be at least"):
        decode_to_worker(parts)


@pytest.mark.parametrize(("part", "change"), [(1, b"\0"), (2, b"\0\0\0\0")])
def test_a_frame_of_another_length_is_left_to_who_says_what_is_wrong(part: int, change: bytes) -> None:
    parts = sent(block((1, 2, 3)))
    parts[part] += change
    assert not is_lone_frame(parts)
    with pytest.raises(LinkError, match="bytes"):
        decode_to_worker(parts)


def test_a_block_of_a_newer_gateway_goes_the_long_way() -> None:
    head, columns, pcm = sent(block((1, 2, 3)))
    newer = [head.replace(b"\x91", b"\x92") + b"\xa3new", columns, pcm]
    assert not is_lone_frame(newer)
    assert isinstance(decode_to_worker(newer), AudioBlock)
