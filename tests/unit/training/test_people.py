import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from shared.errors import ConfigError
from training.espeak import SynthesisError
from training.people import RATE_HZ, People, cut_to_word, is_held_out, recorded
from training.phones import UNKNOWN
from training.speech import Sound, Span

TRAINED = next(name for name in ("anna", "bert", "carl") if not is_held_out(name))
HELD_OUT = next(f"speaker{n}" for n in range(99) if is_held_out(f"speaker{n}"))
FILE_RATE_HZ = 16_000
NOISE = 0.0005


def signal(rate_hz: int, *pattern: tuple[float, float]) -> np.ndarray:
    """Return (seconds, loudness) of tone after each other over a little noise."""
    tone = np.concatenate(
        [
            loudness * np.sin(2 * np.pi * 700 * np.arange(int(seconds * rate_hz)) / rate_hz)
            for seconds, loudness in pattern
        ]
    )
    return (tone + NOISE * np.random.default_rng(3).standard_normal(len(tone))).astype(np.float32)


def record(folder: Path, word: str, speaker: str, number: int, *pattern: tuple[float, float]) -> None:
    path = folder / word / f"{speaker}_nohash_{number}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, signal(FILE_RATE_HZ, *pattern), FILE_RATE_HZ)


def loud_share(pcm: np.ndarray, start_s: float, end_s: float) -> float:
    """Return which share of the samples' energy lies between two moments."""
    part = pcm[int(start_s * RATE_HZ) : int(end_s * RATE_HZ)]
    return float(np.sum(part**2) / np.sum(pcm**2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        record(tmp_path, "stop", TRAINED, number, (0.3, 0), (0.4, 0.3), (0.3, 0))
        record(tmp_path, "tree", TRAINED, number, (0.2, 0), (0.5, 0.3), (0.3, 0))
        record(tmp_path, "stop", HELD_OUT, number, (0.3, 0), (0.3, 0.3), (0.4, 0))
    record(tmp_path, "_background_noise_", "hum", 0, (1.0, 0.1))
    return tmp_path


def test_a_recording_is_cut_to_its_word_and_a_little_more() -> None:
    cut = cut_to_word(signal(RATE_HZ, (0.3, 0), (0.4, 0.3), (0.3, 0)))
    assert len(cut) / RATE_HZ == pytest.approx(0.4 + 0.12, abs=0.021)
    assert loud_share(cut, 0.05, 0.47) > 0.99


def test_the_stop_before_a_last_consonant_belongs_to_its_word() -> None:
    cut = cut_to_word(signal(RATE_HZ, (0.2, 0), (0.3, 0.3), (0.1, 0), (0.05, 0.1), (0.3, 0)))
    assert len(cut) / RATE_HZ == pytest.approx(0.45 + 0.12, abs=0.021)


@pytest.mark.parametrize(
    "pattern",
    [((1.0, 0.0),), ((1.0, 0.3),), ((0.5, 0), (0.04, 0.3), (0.5, 0)), ((0.02, 0.3),)],
    ids=["nothing", "no pause", "a click", "two steps"],
)
def test_what_holds_no_word_yields_nothing(pattern: tuple[tuple[float, float], ...]) -> None:
    assert len(cut_to_word(signal(RATE_HZ, *pattern))) == 0


def test_words_lie_where_a_phrase_says_and_foreign_ones_are_none_of_the_vocabulary(folder: Path) -> None:
    people, rng = People(folder, ("stop",), held_out=False), random.Random(7)
    texts = set()
    for _ in range(60):
        speech = people.draw(rng)
        texts |= {word.text for word in speech.words}
        edges = [edge for word in speech.words for edge in (word.start_s, word.end_s)]
        assert edges == sorted(edges)
        inside = sum(loud_share(speech.pcm, w.start_s - 0.02, w.end_s + 0.02) for w in speech.words)
        assert inside > 0.99
        assert [(s.start_s, s.end_s) for s in speech.sounds] == [(w.start_s, w.end_s) for w in speech.words]
    assert {"stop", "tree", "backwards stop", "swapped stop"} <= texts


def test_sounds_are_asked_for_where_a_word_is_as_it_was_said(folder: Path) -> None:
    def sounds_of(word: Span) -> tuple[Sound, ...]:
        middle_s = (word.start_s + word.end_s) / 2
        return Sound(phone=1, start_s=word.start_s, end_s=middle_s), Sound(phone=2, start_s=middle_s, end_s=word.end_s)

    people, rng = People(folder, ("stop",), held_out=False, sounds_of=sounds_of), random.Random(7)
    for _ in range(60):
        speech = people.draw(rng)
        for word in speech.words:
            inside = [sound.phone for sound in speech.sounds if word.start_s <= sound.start_s < word.end_s]
            assert inside == ([UNKNOWN] if " " in word.text else [1, 2])


def test_words_are_heard_equally_often_however_often_recorded_but_a_single_recording_is_not(tmp_path: Path) -> None:
    for number, speaker in enumerate([name for n in range(40) if not is_held_out(name := f"voice{n}")]):
        for again in range(6):
            record(tmp_path, "stop", speaker, again, (0.3, 0), (0.3, 0.3), (0.3, 0))
        for again in range(2):
            record(tmp_path, "go", speaker, again, (0.3, 0), (0.4, 0.3), (0.3, 0))
        if not number:
            record(tmp_path, "help", speaker, 0, (0.3, 0), (0.4, 0.3), (0.3, 0))
    people, rng = People(tmp_path, ("stop", "go", "help"), held_out=False), random.Random(7)
    said = [word.text for _ in range(200) for word in people.draw(rng).words]
    assert 0.6 < said.count("go") / said.count("stop") < 1.7
    assert said.count("help") < 0.15 * said.count("stop")


def test_a_word_that_another_becomes_when_turned_round_is_never_turned(tmp_path: Path) -> None:
    for word in ("on", "no"):
        record(tmp_path, word, TRAINED, 0, (0.3, 0), (0.4, 0.3), (0.3, 0))
    people, rng = People(tmp_path, ("on", "no"), held_out=False), random.Random(7)
    assert {word.text for _ in range(30) for word in people.draw(rng).words} == {"on", "no"}


def test_training_and_exam_never_hear_the_same_speaker(folder: Path) -> None:
    lengths = {
        held_out: {
            round(b - a, 1)
            for _ in range(30)
            for word in People(folder, ("stop",), held_out=held_out).known(random.Random(1)).words
            for a, b in pairwise((word.start_s, word.end_s))
        }
        for held_out in (False, True)
    }
    assert lengths == {False: {0.4}, True: {0.3}}


def test_speakers_who_say_nothing_foreign_are_told_from_those_who_do(folder: Path) -> None:
    parts = [People(folder, ("stop",), held_out=held_out).has_foreign for held_out in (False, True)]
    assert parts == [True, False]
    said = {word.text for word in People(folder, ("stop",), held_out=False).foreign(random.Random(1)).words}
    assert said == {"tree"}


def test_background_noise_is_no_word(folder: Path) -> None:
    assert {one.word for one in recorded(folder)} == {"stop", "tree"}


def test_a_folder_without_recordings_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path}: no recordings; expected files like"):
        recorded(tmp_path)


def test_a_vocabulary_that_nobody_says_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="none of its recordings is a word of the vocabulary"):
        People(folder, ("hello",), held_out=False)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "stop").mkdir()
    (tmp_path / "stop" / f"{TRAINED}_nohash_0.wav").write_bytes(b"not audio")
    with pytest.raises(SynthesisError, match=f"{TRAINED}_nohash_0.wav"):
        People(tmp_path, ("stop",), held_out=False).draw(random.Random(1))
