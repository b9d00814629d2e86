import numpy as np
import pytest

from training.loudness import loud_steps, loudness

RATE_HZ = 8000


def tone(seconds: float, level: float) -> np.ndarray:
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return np.asarray(level * np.sqrt(2) * np.sin(2 * np.pi * 400 * time), dtype=np.float32)


def test_each_whole_step_of_ten_milliseconds_has_its_root_mean_square() -> None:
    pcm = np.concatenate([tone(0.02, 0.1), tone(0.02, 0.4), tone(0.009, 0.4)])
    assert loudness(pcm, RATE_HZ).tolist() == pytest.approx([0.1, 0.1, 0.4, 0.4], rel=1e-3)


def test_steps_are_loud_beside_the_loudest_one() -> None:
    pcm = np.concatenate([tone(0.02, 0.01), tone(0.01, 0.5), tone(0.01, 0.02), tone(0.01, 0.1)])
    assert loud_steps(pcm, RATE_HZ, least=0.1).tolist() == [2, 4]


@pytest.mark.parametrize("pcm", [np.zeros(800, np.float32), tone(0.1, 1e-5), np.zeros(0, np.float32)])
def test_no_step_of_what_is_silent_or_too_short_is_loud(pcm: np.ndarray) -> None:
    assert loud_steps(pcm, RATE_HZ, least=0.02).tolist() == []
