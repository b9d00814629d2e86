import numpy as np

from training.bank import Bank
from training.feed import fed
from training.utterance import UtteranceSource


def two_batches(bank: Bank, seed: list[int]) -> np.ndarray:
    source = UtteranceSource(bank, n_frames=12, delay=6, n_words=42, seed=4, n_noises=2)
    following = fed(source, size=2, seed=seed, device="cpu")
    return np.stack([following().pcm, following().pcm])


def test_a_run_hears_the_same_batches_again_and_a_resumed_one_others(tone_bank: Bank) -> None:
    first = two_batches(tone_bank, [1, 0])
    assert np.array_equal(first, two_batches(tone_bank, [1, 0]))
    assert not np.array_equal(first, two_batches(tone_bank, [1, 500]))
