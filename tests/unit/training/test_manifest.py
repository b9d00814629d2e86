import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from shared.errors import ConfigError
from training.manifest import phrases_of, read_manifest
from training.phones import UNKNOWN
from training.speech import Speech

RATE_HZ = 16_000


def written(folder: Path, words: list[list[object]], seconds: float = 2.0) -> Path:
    """Write a stereo clip whose samples count their own hundredths of a second, and its manifest."""
    counted = np.arange(int(seconds * RATE_HZ)) // (RATE_HZ // 100) / 4096
    soundfile.write(folder / "clip.wav", np.stack([counted, counted], axis=1), RATE_HZ, subtype="FLOAT")
    path = folder / "manifest.jsonl"
    path.write_text(json.dumps({"audio": "clip.wav", "words": words}) + "\n\n", encoding="utf-8")
    return path


def timed(speech: Speech) -> list[tuple[str, float, float]]:
    return [(word.text, round(word.start_s, 3), round(word.end_s, 3)) for word in speech.words]


def first_hundredth(speech: Speech) -> int:
    return round(float(speech.pcm[0]) * 4096)


def test_a_recording_comes_with_its_words_and_sounds_that_nobody_knows(tmp_path: Path) -> None:
    (recording,) = read_manifest(written(tmp_path, [["Hello", 0.5, 0.9], ["world", 0.9, 1.4]]))
    assert recording.pcm.shape == (2 * RATE_HZ,)
    assert recording.rate_hz == RATE_HZ
    assert timed(recording) == [("Hello", 0.5, 0.9), ("world", 0.9, 1.4)]
    assert [(sound.phone, sound.start_s) for sound in recording.sounds] == [(UNKNOWN, 0.5), (UNKNOWN, 0.9)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1: JSONDecodeError"),
        ('{"words": []}', "line 1: KeyError\\('audio'"),
        ('{"audio": "none.wav", "words": []}', "line 1: .*none.wav"),
        ('{"audio": "clip.wav", "words": [["yes", 0.5]]}', "line 1: ValueError"),
        ('{"audio": "clip.wav", "words": [["yes", 0.5, 0.4]]}', "line 1: .*not in order within its 2.00 s"),
        ('{"audio": "clip.wav", "words": [["yes", 1.5, 2.4]]}', "line 1: .*not in order within its 2.00 s"),
        ('{"audio": "clip.wav", "words": [["yes", NaN, 0.4]]}', "line 1: .*not in order within its 2.00 s"),
        ("", "no recording in it; expected lines like"),
    ],
)
def test_a_wrong_line_is_named(line: str, said: str, tmp_path: Path) -> None:
    manifest = written(tmp_path, [])
    manifest.write_text(line, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"manifest\.jsonl.*{said}"):
        list(read_manifest(manifest))


def test_a_manifest_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.jsonl"):
        list(read_manifest(tmp_path / "none.jsonl"))


def test_a_short_recording_is_one_phrase_from_just_before_its_first_word(tmp_path: Path) -> None:
    (recording,) = read_manifest(written(tmp_path, [["Hello", 0.5, 0.9], ["world", 0.9, 1.4]]))
    (phrase,) = phrases_of(recording)
    assert first_hundredth(phrase) == 40
    assert len(phrase.pcm) == pytest.approx(1.1 * RATE_HZ, abs=1)
    assert timed(phrase) == [("hello", 0.1, 0.5), ("world", 0.5, 1.0)]


def test_a_long_recording_is_cut_between_words(tmp_path: Path) -> None:
    words = [["one", 0.05, 2.0], ["two", 3.0, 4.0], ["three", 5.0, 6.0], ["four", 6.0, 10.5]]
    (recording,) = read_manifest(written(tmp_path, words, seconds=12))
    phrases = list(phrases_of(recording))
    assert [timed(phrase) for phrase in phrases] == [
        [("one", 0.05, 2.0), ("two", 3.0, 4.0)],
        [("three", 0.5, 1.5)],
        [("four", 0.0, 4.5)],
    ]
    assert [first_hundredth(phrase) for phrase in phrases] == [0, 450, 600]


def test_a_recording_without_words_is_no_phrase(tmp_path: Path) -> None:
    (recording,) = read_manifest(written(tmp_path, []))
    assert list(phrases_of(recording)) == []
