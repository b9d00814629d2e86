import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from asr_gateway.audio.resample import Resampler


def tone(seconds: float, rate: int) -> NDArray[np.float32]:
    return np.sin(2 * np.pi * 300 * np.arange(int(seconds * rate)) / rate).astype(np.float32)


def resample(pcm: NDArray[np.float32], rate: int, cuts: list[int]) -> NDArray[np.float32]:
    resampler = Resampler(rate)
    pieces = [resampler.feed(piece) for piece in np.split(pcm, cuts)]
    return np.concatenate([*pieces, resampler.flush()])


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000, 192_000])
def test_a_tone_stays_the_same_tone_at_any_rate(rate: int) -> None:
    pcm = resample(tone(0.5, rate), rate, [100, 5000 % rate])
    assert abs(len(pcm) - 12_000) <= 1
    n = min(len(pcm), 12_000)
    assert np.abs(pcm[500 : n - 500] - tone(0.5, 24_000)[500 : n - 500]).max() < 0.01


@settings(max_examples=25)
@given(st.lists(st.integers(0, 8_000), max_size=12))
def test_the_samples_do_not_depend_on_the_cuts(cuts: list[int]) -> None:
    pcm = tone(1, 8_000)
    assert np.allclose(resample(pcm, 8_000, sorted(cuts)), resample(pcm, 8_000, []), atol=1e-6)


def test_audio_at_24_khz_passes_unchanged() -> None:
    pcm = tone(0.1, 24_000)
    assert np.array_equal(resample(pcm, 24_000, [7]), pcm)


def test_no_audio_gives_no_audio() -> None:
    assert len(resample(np.zeros(0, np.float32), 8_000, [])) == 0
