import numpy as np

from training.phones import UNKNOWN
from training.targets import layout, open_layout, targets

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


def test_foreign_words_are_silence_and_marked_as_such() -> None:
    words = np.array([(-1, 0.0, 0.4)])
    made = targets(words, np.zeros((0, 3)), n_frames=14, delay=DELAY)
    assert made.text.tolist() == made.said.tolist() == [3] * 15
    assert np.flatnonzero(made.foreign).tolist() == [4, 5, 6, 7, 8, 9, 10, 11]


def test_with_open_starts_a_word_is_wanted_until_it_is_said_and_is_said_before_its_end() -> None:
    rng = np.random.default_rng(1)
    ways = set()
    for _ in range(300):
        text, said = open_layout([((7,), 0.0, 0.40)], [], 12, DELAY, rng)
        assert said[10] == text[10] == 0
        (piece,) = np.flatnonzero(said == 7)
        (start,) = np.flatnonzero(said[:10] == 0)
        wanted = [3] * 5 + [0] * (start - 4) + [7] * (piece - start) + [3] * (9 - piece) + [0, 3, 3]
        assert text.tolist() == wanted
        ways.add((int(start), int(piece)))
    assert ways == {(5, 6), (5, 7), (5, 8), (5, 9), (6, 7), (6, 8), (6, 9)}


def test_with_open_starts_a_short_word_has_no_time_to_be_late() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        text, said = open_layout([((7,), 0.0, 0.16)], [], 10, DELAY, rng)
        assert text.tolist() == said.tolist() == [3, 3, 3, 3, 3, 0, 7, 0, 3, 3, 3]


def test_with_open_starts_foreign_words_begin_with_a_zero_where_there_is_room() -> None:
    rng = np.random.default_rng(3)
    lines = [open_layout([((7,), 0.4, 0.8)], [0.0, 0.78], 20, DELAY, rng) for _ in range(100)]
    assert {tuple(np.flatnonzero(text == 0)) for text, _ in lines} >= {(5, 10, 15)}
    marks = [tuple(np.flatnonzero(said[:9] == 0)) for _, said in lines]
    assert set(marks) == {(), (4,), (5,), (6,)}
    assert marks.count((5,)) > 50


def test_open_targets_are_drawn_with_the_given_numbers() -> None:
    words = np.array([(-1, 0.0, 0.4), (7, 0.8, 1.4)])
    made = [targets(words, np.zeros((0, 3)), 30, DELAY, np.random.default_rng(seed)) for seed in (4, 4, 5, 6, 7)]
    assert np.array_equal(made[0].said, made[1].said)
    assert len({one.said.tobytes() for one in made}) > 1
    assert all(one.text[5] == 0 for one in made)


def test_pauses_are_true_where_nothing_is_said_within_the_horizon() -> None:
    words = np.array([(7, 1.0, 1.4)])
    made = targets(words, np.zeros((0, 3)), n_frames=30, delay=DELAY)
    moments = (np.arange(31) + 1 - DELAY) / 12.5
    assert made.pause[:, 0].tolist() == [int(0.5 < moment < 1.4) for moment in moments]
    assert made.pause[:, 3].tolist() == [int(moment < 1.4) for moment in moments]


def test_phones_of_a_frame_go_back_from_its_end_and_are_unknown_before_the_start() -> None:
    sounds = np.array([(5, 0.0, 0.08), (6, 0.08, 0.16)])
    made = targets(np.zeros((0, 3)), sounds, n_frames=3, delay=DELAY)
    assert made.phones.tolist() == [
        [5, 5, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN],
        [6, 6, 5, 5, UNKNOWN, UNKNOWN],
        [0, 0, 6, 6, 5, 5],
    ]
