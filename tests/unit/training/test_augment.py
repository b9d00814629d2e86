from dataclasses import replace

import numpy as np
import pytest

from training.augment import Augmentation, disturbed, through_opus
from training.exam import CLEAN
from training.noise import clicks, coloured, hum, music, wind
from training.vocoder import other_voice

RATE = 24_000


def chirps() -> np.ndarray:
    seconds = np.arange(2 * RATE) / RATE
    return (0.2 * np.sin(2 * np.pi * (200 + 400 * seconds) * seconds) * (np.sin(7 * seconds) > 0)).astype(np.float32)


def delay_samples(a: np.ndarray, b: np.ndarray) -> int:
    spectrum = np.fft.rfft(b, 4 * RATE) * np.conj(np.fft.rfft(a, 4 * RATE))
    return int(np.argmax(np.fft.irfft(spectrum)))


@pytest.mark.parametrize("bits_per_second", [12_000, 32_000])
def test_opus_does_not_move_the_words(bits_per_second: int) -> None:
    pcm = chirps()
    coded = through_opus(pcm, bits_per_second)
    assert len(coded) == len(pcm)
    assert (delay_samples(pcm, coded) + 24) % (4 * RATE) <= 48


def test_whatever_happens_the_utterance_stays_finite_and_in_place() -> None:
    noises = [np.random.default_rng(1).standard_normal(3 * RATE).astype(np.float32)]
    everything = Augmentation(room=1, equaliser=1, telephone=0.5, low_pass=1, noise=1, opus=0.3, mu_law=0.3)
    for seed in range(8):
        changed = disturbed(chirps(), np.random.default_rng(seed), noises, everything)
        assert changed.shape == (2 * RATE,)
        assert changed.dtype == np.float32
        assert np.abs(changed).max() <= 1.0


def test_a_clean_condition_changes_only_the_level() -> None:
    changed = disturbed(chirps(), np.random.default_rng(0), [], replace(CLEAN, level_dbfs=(-20, -20)))
    assert np.sqrt(np.mean(changed**2)) == pytest.approx(0.1, rel=0.02)
    assert np.corrcoef(changed, chirps())[0, 1] > 0.99


def test_silence_stays_quiet() -> None:
    changed = disturbed(np.zeros(RATE, np.float32), np.random.default_rng(0), [], CLEAN)
    assert np.isfinite(changed).all()


@pytest.mark.parametrize("make", [coloured, wind, hum, clicks, music])
def test_every_noise_is_finite_with_a_root_mean_square_of_one(make: object) -> None:
    assert callable(make)
    noise = make(2 * RATE, np.random.default_rng(4))
    assert noise.shape == (2 * RATE,)
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_another_voice_is_as_loud_and_tells_where_each_sound_went(seed: int) -> None:
    pcm = chirps()
    other, moved = other_voice(pcm, RATE, np.random.default_rng(seed))
    assert np.sqrt(np.mean(other**2)) == pytest.approx(np.sqrt(np.mean(pcm**2)), rel=0.01)

    def rms(start_s: float, end_s: float) -> float:
        at, until = moved(np.array([start_s + 0.03, end_s - 0.03]))
        assert until > at
        return float(np.sqrt(np.mean(other[int(at * RATE) : int(until * RATE)] ** 2)))

    turns = np.arange(5) * np.pi / 7
    loud = [rms(turns[0], turns[1]), rms(turns[2], turns[3])]
    quiet = [rms(turns[1], turns[2]), rms(turns[3], turns[4])]
    assert min(loud) > 10 * max(quiet)


def test_two_other_voices_differ_in_length() -> None:
    lengths = {len(other_voice(chirps(), RATE, np.random.default_rng(seed))[0]) for seed in range(6)}
    assert len(lengths) > 3
