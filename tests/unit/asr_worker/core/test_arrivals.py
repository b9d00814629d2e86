from collections.abc import Iterable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from asr_worker.core.arrivals import MAX_JOINED_FRAMES, Arrival, join_audio
from shared.lone_frames import LoneFrame, is_lone_frame
from shared.messages import AudioBlock, Heartbeat
from shared.wire import encode

A, B = b"gw:a", b"gw:b"


def audio(*numbers: int) -> AudioBlock:
    """A block of one frame for each number, told apart by session, frame and samples."""
    return AudioBlock(
        sessions=np.array(numbers, np.int64),
        epochs=np.ones(len(numbers), np.int32),
        frames=np.array(numbers, np.int64) + 100,
        pcm=np.repeat(np.array(numbers, np.float32)[:, None], 1920, axis=1),
    )


def lone(number: int) -> LoneFrame:
    """The same for one number, as it comes from the link."""
    parts: LoneFrame = [bytes(part) for part in encode(audio(number))]
    assert is_lone_frame(parts)
    return parts


def shown(arrivals: Iterable[Arrival]) -> list[tuple[bytes, tuple[int, ...] | str]]:
    """Each message as the numbers of its frames, or its name; a block that is not whole fails."""
    lines: list[tuple[bytes, tuple[int, ...] | str]] = []
    for routing_id, message in arrivals:
        if isinstance(message, list):
            lines.append((routing_id, (int.from_bytes(message[1][:8], "little"),)))
            continue
        if not isinstance(message, AudioBlock):
            lines.append((routing_id, type(message).__name__))
            continue
        numbers = tuple(message.sessions.tolist())
        np.testing.assert_array_equal(message.frames, np.array(numbers) + 100)
        np.testing.assert_array_equal(message.epochs, np.ones(len(numbers)))
        np.testing.assert_array_equal(message.pcm[:, 7], numbers)
        lines.append((routing_id, numbers))
    return lines


def test_neighbouring_blocks_of_a_gateway_become_one() -> None:
    arrived: list[Arrival] = [(A, audio(1)), (B, audio(7)), (A, audio(2, 3)), (B, audio(8))]
    assert shown(join_audio(arrived)) == [(A, (1, 2, 3)), (B, (7, 8))]


def test_nothing_of_a_gateway_overtakes_its_audio_and_audio_overtakes_nothing() -> None:
    arrived: list[Arrival] = [(A, audio(1)), (A, audio(2)), (B, Heartbeat()), (A, Heartbeat()), (A, audio(3))]
    assert shown(join_audio(arrived)) == [(B, "Heartbeat"), (A, (1, 2)), (A, "Heartbeat"), (A, (3,))]


def test_lone_frames_and_blocks_of_a_gateway_become_one() -> None:
    arrived: list[Arrival] = [(A, lone(1)), (A, lone(2)), (B, lone(7)), (A, audio(3, 4)), (A, lone(5))]
    assert shown(join_audio(arrived)) == [(A, (1, 2, 3, 4, 5)), (B, (7,))]


def test_joined_lone_frames_stay_bounded() -> None:
    joined = shown(join_audio([(A, lone(1))] * (MAX_JOINED_FRAMES + 1)))
    assert [len(numbers) for _, numbers in joined] == [MAX_JOINED_FRAMES, 1]


def test_a_block_that_is_alone_is_not_copied() -> None:
    block = audio(1)
    ((_, message),) = join_audio([(A, block)])
    assert message is block


def test_joined_blocks_stay_bounded() -> None:
    full = audio(*range(MAX_JOINED_FRAMES - 1))
    joined = shown(list(join_audio([(A, full), (A, audio(1, 2)), (A, audio(3))])))
    assert [len(numbers) for _, numbers in joined] == [MAX_JOINED_FRAMES + 1, 1]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([A, B]), st.one_of(st.none(), st.integers(0, 9), st.lists(st.integers(0, 9), max_size=3))
        )
    )
)
def test_each_gateway_is_heard_in_order(said: list[tuple[bytes, int | list[int] | None]]) -> None:
    def sent(what: int | list[int] | None) -> AudioBlock | LoneFrame | Heartbeat:
        if isinstance(what, int):
            return lone(what)
        return Heartbeat() if what is None else audio(*what)

    arrived: list[Arrival] = [(name, sent(what)) for name, what in said]
    heard = shown(join_audio(arrived))

    def flat(lines: list[tuple[bytes, tuple[int, ...] | str]], name: bytes) -> list[int | str]:
        parts = [(what,) if isinstance(what, str) else what for who, what in lines if who == name]
        return [item for part in parts for item in part]

    for name in (A, B):
        assert flat(heard, name) == flat(shown(arrived), name)
    audio_counts = [sum(not isinstance(what, str) for who, what in heard if who == name) for name in (A, B)]
    beats = [sum(isinstance(what, str) for who, what in heard if who == name) for name in (A, B)]
    assert all(n_audio <= n_beats + 1 for n_audio, n_beats in zip(audio_counts, beats, strict=True))
