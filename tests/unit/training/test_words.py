import random

from training import words
from training.words import VOCABULARY, foreign_words, is_held_out, near_neighbour, nonsense, sound_alikes


def test_the_prototypes_words_keep_their_ids() -> None:
    assert VOCABULARY[:42] == words.PROTOTYPE_WORDS
    assert len(set(VOCABULARY)) == len(VOCABULARY)


def test_no_foreign_word_is_a_vocabulary_word_or_sounds_like_one() -> None:
    def phonemes(word: str) -> str:
        return {"knows": "noz", "house": "stop"}.get(word, word)

    listed, everyday = foreign_words(phonemes)
    assert not set(VOCABULARY) & set(listed + everyday)
    assert "house" not in everyday
    assert {"two", "to", "lights", "opened"}.isdisjoint(listed + everyday)
    assert "together" in everyday


def test_about_one_foreign_word_in_five_is_held_out() -> None:
    share = sum(is_held_out(f"word{i}") for i in range(1000)) / 1000
    assert 0.15 < share < 0.25


def test_near_neighbours_and_nonsense_are_never_vocabulary_words() -> None:
    rng = random.Random(3)
    drawn = {near_neighbour(rng) for _ in range(300)} | {nonsense(rng) for _ in range(300)}
    assert len(drawn) > 300
    assert not drawn & set(VOCABULARY)


def test_sound_alikes_are_words_that_differ_in_one_sound_or_begin_like_a_known_one() -> None:
    sounds = {
        "four": "fo@", "form": "fo@m", "start": "stA@t", "star": "stA@", "stop": "st0p", "top": "t0p",
        "stomp": "st0mp", "stepping": "stEpIN", "elephant": "El@f@nt", "go": "goU", "ghost": "goUst",
    }  # fmt: skip

    def phonemes(word: str) -> str:
        return sounds.get(word, "#")

    found = sound_alikes(phonemes, ["form", "star", "top", "stomp", "stepping", "elephant", "ghost"])
    assert found == (["form"], ["top", "stomp", "stepping"], ["ghost"], ["star"])
