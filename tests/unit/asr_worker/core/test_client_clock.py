"""The client's time: silence that the server fed counts nothing, padding is taken off."""

from hypothesis import given
from hypothesis import strategies as st

from asr_worker.core.clock import ClientClock


def times(clock: ClientClock, *positions: int) -> list[float]:
    return [clock.time_s(position) for position in positions]


@given(st.integers(0, 2**40))
def test_without_pauses_the_time_is_frames_by_the_frame_rate_exactly(position: int) -> None:
    assert ClientClock(6).time_s(position) == position / 12.5


def test_time_stands_still_in_a_pause_and_goes_on_behind_it() -> None:
    clock = ClientClock(6)
    clock.pause(10)
    clock.resume(16)
    assert times(clock, 9, 10, 13, 16, 17) == [0.72, 0.8, 0.8, 0.8, 0.88]


def test_time_stands_still_while_a_pause_lasts() -> None:
    clock = ClientClock(2)
    clock.pause(10)
    assert times(clock, 10, 11, 30) == [0.8, 0.8, 0.8]


def test_padding_is_taken_off_from_the_pause_on() -> None:
    clock = ClientClock(6)
    clock.pause(10, pad_samples=960)
    clock.resume(16)
    assert times(clock, 9, 10, 16, 26) == [0.72, 0.76, 0.76, 1.56]


def test_a_prefix_ends_at_time_zero() -> None:
    clock = ClientClock(6)
    clock.pause(0)
    clock.resume(12)
    assert times(clock, 0, 11, 12, 13) == [0.0, 0.0, 0.0, 0.08]


def test_a_pause_of_no_length_takes_off_its_padding_only() -> None:
    clock = ClientClock(0)
    clock.pause(10, pad_samples=480)
    clock.resume(10)
    assert times(clock, 10, 20) == [0.78, 1.58]


def test_padding_without_audio_before_it_cannot_turn_time_back() -> None:
    clock = ClientClock(2)
    clock.pause(0, pad_samples=1919)
    clock.resume(2)
    assert times(clock, 0, 2, 3) == [0.0, 0.0, 0.08]


def test_pauses_that_cannot_matter_any_more_are_forgotten() -> None:
    clock = ClientClock(6)
    for position in range(0, 6_000, 6):
        clock.pause(position)
        clock.resume(position + 6)
    assert clock.n_pauses <= 2
    assert clock.time_s(6_000) == 0.0


PAUSES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 1919)), max_size=8)


@given(PAUSES, st.integers(0, 7), st.booleans())
def test_times_are_those_of_the_audio_before_each_position(
    pauses: list[tuple[int, int, int]],
    delay: int,
    asks_meanwhile: bool,  # noqa: FBT001  (drawn by Hypothesis)
) -> None:
    """Against a clock that adds up sample by sample; ``pauses`` are (frames before it, its length, padding)."""
    clock, position, samples, by_position = ClientClock(delay), 0, 0, {0: 0}
    for n_frames, length, padding in pauses:
        for _ in range(n_frames):
            position, samples = position + 1, samples + 1920
            by_position[position] = samples
        taken = min(padding, 1920 * n_frames)
        samples -= taken
        by_position[position] = samples
        clock.pause(position, taken)
        for _ in range(length):
            position += 1
            by_position[position] = samples
            if asks_meanwhile and position >= delay:
                assert clock.time_s(position - delay) == by_position[position - delay] / 24_000
        clock.resume(position)
    for asked in range(max(0, position - delay), position + 1):
        assert clock.time_s(asked) == by_position[asked] / 24_000
