import pytest

from shared.units import FRAME_RATE, FRAME_SAMPLES, SAMPLE_RATE, words_delay_frames


def test_one_frame_is_80_ms() -> None:
    assert FRAME_SAMPLES / SAMPLE_RATE == 1 / FRAME_RATE == 0.08


@pytest.mark.parametrize(
    ("tokens", "conditioning_s", "delay"), [(6, None, 6), (32, None, 32), (6, 0.5, 7), (6, 2.5, 32)]
)
def test_a_conditioning_delay_wins_over_the_tokens(tokens: int, conditioning_s: float | None, delay: int) -> None:
    assert words_delay_frames(tokens, conditioning_s) == delay
