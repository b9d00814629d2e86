import numpy as np

from training.bank import FOREIGN, Bank
from training.progress import Fare
from training.utterance import UtteranceSource
from training.words import VOCABULARY

STOP, MUSIC = (4 + VOCABULARY.index(word) for word in ("stop", "music"))


def source(bank: Bank, n_words: int) -> UtteranceSource:
    return UtteranceSource(bank, n_frames=50, delay=6, n_words=n_words, seed=2, n_noises=2)


def test_words_beyond_the_models_vocabulary_are_foreign(tone_bank: Bank) -> None:
    few = source(tone_bank, n_words=STOP - 4 + 1)
    drawn = np.concatenate([few.utterance().words for _ in range(30)])
    assert set(drawn[:, 0]) == {STOP, FOREIGN}
    everything = source(tone_bank, n_words=66)
    drawn = np.concatenate([everything.utterance().words for _ in range(30)])
    assert set(drawn[:, 0]) == {STOP, MUSIC, FOREIGN}


def test_phrases_of_known_words_come_more_often(tone_bank: Bank) -> None:
    assert set(tone_bank.known_shares(MUSIC)) <= {0, 1 / 3, 2 / 3, 1}
    drawn = np.concatenate([source(tone_bank, n_words=66).utterance().words for _ in range(60)])
    assert np.mean(drawn[:, 0] != FOREIGN) > 2 / 3


def test_simple_speech_has_fewer_foreign_words_and_shorter_pauses(tone_bank: Bank) -> None:
    def drawn(fare: Fare) -> np.ndarray:
        utterances = UtteranceSource(tone_bank, n_frames=50, delay=6, n_words=66, seed=3, fare=fare, n_noises=2)
        return np.concatenate([utterances.utterance().words for _ in range(80)])

    simple, plain = drawn(Fare.SIMPLE), drawn(Fare.PLAIN)
    assert np.mean(simple[:, 0] == FOREIGN) < np.mean(plain[:, 0] == FOREIGN)
    assert len(simple) > 1.15 * len(plain)


def test_silence_in_foreign_words_counts_as_much_as_it_is_told(tone_bank: Bank) -> None:
    told = UtteranceSource(tone_bank, n_frames=50, delay=6, n_words=66, seed=2, n_noises=2, foreign_weight=2.5)
    assert told.batch(12).pads.in_foreign_words == 2.5
    assert source(tone_bank, n_words=66).batch(12).pads.in_foreign_words == 1.5


def test_what_was_said_differs_from_what_is_wanted_where_starts_are_open_only(tone_bank: Bank) -> None:
    opened = UtteranceSource(tone_bank, n_frames=50, delay=6, n_words=66, seed=2, n_noises=2, open_starts=True)
    batch = opened.batch(12)
    assert batch.pads.open_starts
    assert (batch.text != batch.said).any()
    closed = source(tone_bank, n_words=66).batch(12)
    assert np.array_equal(closed.text, closed.said)


def test_a_batch_has_the_shapes_of_its_targets(tone_bank: Bank) -> None:
    batch = source(tone_bank, n_words=66).batch(3)
    assert batch.pcm.shape == (3, 50 * 1920)
    assert batch.text.shape == batch.said.shape == batch.foreign.shape == (3, 51)
    assert batch.pause.shape == (3, 51, 4)
    assert batch.phones.shape == (3, 50, 6)
    assert np.abs(batch.pcm).max() <= 1
