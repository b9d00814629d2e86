import numpy as np

from training.phones import UNKNOWN
from training.targets import PadWeights, layout, targets

DELAY = 6


def test_a_short_word_is_said_delay_frames_after_its_start() -> None:
    text = layout([((7,), 0.16, 0.40)], n_frames=14, delay=DELAY)
    assert text.tolist() == [3, 3, 3, 3, 3, 3, 3, 0, 7, 3, 0, 3, 3, 3, 3]


def test_a_long_word_is_said_before_it_ends() -> None:
    text = layout([((7,), 0.0, 0.80)], n_frames=17, delay=DELAY)
    assert text.tolist() == [3, 3, 3, 3, 3, 0, 7, 3, 3, 3, 3, 3, 3, 3, 3, 0, 3, 3]


def test_words_that_touch_share_one_end() -> None:
    text = layout([((7,), 0.0, 0.24), ((9,), 0.24, 0.48)], n_frames=12, delay=DELAY)
    assert text.tolist() == [3, 3, 3, 3, 3, 0, 7, 3, 0, 9, 3, 0, 3]


def test_a_word_too_short_for_its_pieces_is_made_longer() -> None:
    text = layout([((7, 8), 0.0, 0.08), ((9,), 0.1, 0.4)], n_frames=13, delay=DELAY)
    assert text.tolist() == [3, 3, 3, 3, 3, 0, 7, 8, 0, 9, 0, 3, 3, 3]


def test_a_word_at_the_very_end_is_cut_where_the_audio_ends() -> None:
    assert layout([((7,), 0.4, 0.8)], n_frames=10, delay=DELAY).tolist() == [3] * 10 + [0]


def test_foreign_words_are_silence_that_counts_more() -> None:
    words = np.array([(-1, 0.0, 0.4)])
    made = targets(words, np.zeros((0, 3)), n_frames=14, delay=DELAY, pads=PadWeights())
    assert made.text.tolist() == [3] * 15
    assert [step for step in range(15) if made.weight[step] > 1] == [4, 5, 6, 7, 8, 9, 10, 11]


def test_pauses_are_true_where_nothing_is_said_within_the_horizon() -> None:
    words = np.array([(7, 1.0, 1.4)])
    made = targets(words, np.zeros((0, 3)), n_frames=30, delay=DELAY, pads=PadWeights())
    moments = (np.arange(31) + 1 - DELAY) / 12.5
    assert made.pause[:, 0].tolist() == [int(0.5 < moment < 1.4) for moment in moments]
    assert made.pause[:, 3].tolist() == [int(moment < 1.4) for moment in moments]


def test_phones_of_a_frame_go_back_from_its_end_and_are_unknown_before_the_start() -> None:
    sounds = np.array([(5, 0.0, 0.08), (6, 0.08, 0.16)])
    made = targets(np.zeros((0, 3)), sounds, n_frames=3, delay=DELAY, pads=PadWeights())
    assert made.phones.tolist() == [
        [5, 5, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN],
        [6, 6, 5, 5, UNKNOWN, UNKNOWN],
        [0, 0, 6, 6, 5, 5],
    ]
