"""Needs Debian's libespeak-ng1 and flite; skipped where they are not installed."""

import ctypes
import gc
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from shared.errors import ConfigError
from training.__main__ import main
from training.bank import FOREIGN, Bank, Phrase, PhraseSource, espeak_voice, write_bank
from training.espeak import Espeak, EspeakVoice, SynthesisError
from training.flite import Flite, FliteVoice
from training.phones import PHONES, UNKNOWN
from training.pronunciation import Pronunciations
from training.speech import Sound, Span, Speech
from training.words import VOCABULARY, is_held_out

WORDS = ["five", "five", "stop", "the", "music", "hello"]


def has_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


needs_espeak = pytest.mark.skipif(not has_library("libespeak-ng.so.1"), reason="libespeak-ng1 is not installed")
needs_flite = pytest.mark.skipif(not has_library("libflite_cmu_us_rms.so.1"), reason="flite is not installed")


@pytest.fixture(scope="module")
def espeak() -> Espeak:
    return Espeak()


def check_times(speech: Speech) -> None:
    assert [word.text for word in speech.words] == WORDS
    edges = [edge for word in speech.words for edge in (word.start_s, word.end_s)]
    assert edges == sorted(edges)
    assert edges[-1] <= len(speech.pcm) / speech.rate_hz

    def level(start_s: float, end_s: float) -> float:
        part = speech.pcm[int(start_s * speech.rate_hz) : int(end_s * speech.rate_hz)]
        return float(np.sqrt(np.mean(part**2))) if len(part) else 0.0

    loud = level(edges[0], edges[-1])
    assert loud > 0.01
    assert level(0, edges[0] - 0.01) < 0.1 * loud
    assert level(edges[-1] + 0.05, len(speech.pcm) / speech.rate_hz) < 0.3 * loud


@needs_espeak
@pytest.mark.parametrize("variant", ["", "klatt2", "f2"])
def test_espeak_tells_where_each_word_is(espeak: Espeak, variant: str) -> None:
    check_times(espeak.speak(WORDS, EspeakVoice(language="en-us", variant=variant)))


@needs_espeak
def test_one_that_was_loaded_before_speaks_on_after_another_is_gone(espeak: Espeak) -> None:
    for _ in range(20):
        Espeak().speak(["go"], EspeakVoice(language="de"))
        gc.collect()
        check_times(espeak.speak(WORDS, EspeakVoice(language="en-us")))


@needs_espeak
def test_a_phrase_that_lost_an_event_is_spoken_again(espeak: Espeak, monkeypatch: pytest.MonkeyPatch) -> None:
    times, lost = espeak._times, iter([True, False])

    def once_lost(words: list[str], length_s: float) -> Any:
        if next(lost):
            raise SynthesisError
        return times(words, length_s)

    monkeypatch.setattr(espeak, "_times", once_lost)
    check_times(espeak.speak(WORDS, EspeakVoice(language="en-us")))


@needs_espeak
def test_slower_playing_moves_the_words_with_the_sound(espeak: Espeak) -> None:
    check_times(espeak.speak(WORDS, EspeakVoice(language="en")).stretched(1.15))


@needs_espeak
def test_an_unknown_voice_is_an_error(espeak: Espeak) -> None:
    with pytest.raises(SynthesisError, match="xx-nowhere"):
        espeak.speak(["hello"], EspeakVoice(language="xx-nowhere"))


@needs_flite
@pytest.mark.parametrize("stretch", [0.8, 1.3])
def test_flite_tells_where_each_word_is(stretch: float) -> None:
    check_times(Flite(["rms"]).speak(WORDS, FliteVoice(speaker="rms", stretch=stretch, pitch_hz=120)))


@needs_espeak
def test_phrases_hold_only_the_words_of_their_side(espeak: Espeak) -> None:
    rng = random.Random(1)
    training = PhraseSource(espeak.phonemes, held_out=False)
    exam = PhraseSource(espeak.phonemes, held_out=True)
    foreign = (0, 0, 1, 0)
    heard = {word for _ in range(150) for word in training.draw(rng, foreign).words}
    asked = {word for _ in range(150) for word in exam.draw(rng, foreign).words}
    assert not heard & set(VOCABULARY)
    assert len(heard & asked) <= 8  # near neighbours may meet by chance
    assert espeak_voice(rng, Phrase(words=("stop",)), held_out=True) != espeak_voice(
        rng, Phrase(words=("stop",)), held_out=False
    )


def test_a_machine_without_the_word_list_is_told_which_package_has_it(word_list: Path) -> None:
    word_list.unlink()
    with pytest.raises(ConfigError, match=r"american-english, .* is missing; Debian's wamerican has it"):
        PhraseSource(str, held_out=False)


@needs_espeak
def test_words_that_sound_alike_are_of_their_side_too(espeak: Espeak) -> None:
    rng = random.Random(1)
    training = PhraseSource(espeak.phonemes, held_out=False, alike_share=1.0)
    heard = {word for _ in range(100) for word in training.draw(rng, (0, 0, 1, 0)).words}
    assert not heard & set(VOCABULARY)
    assert not [word for word in heard if is_held_out(word)]
    assert not {espeak.phonemes(word) for word in heard} & {espeak.phonemes(word) for word in VOCABULARY}


@needs_espeak
def test_a_bank_gives_back_what_was_spoken(espeak: Espeak, tmp_path: Path) -> None:
    folder = tmp_path
    said = [espeak.speak(words, EspeakVoice(language="en-us")) for words in (["stop", "bottle"], ["music"])]
    write_bank(folder, iter(said))
    bank = Bank(folder)
    assert len(bank) == 2
    pcm, words, sounds = bank[0]
    assert words[:, 0].tolist() == [4 + VOCABULARY.index("stop"), -1]
    assert len(pcm) == pytest.approx(len(said[0].pcm) * 24_000 / said[0].rate_hz, abs=2)
    assert np.sqrt(np.mean(pcm**2)) == pytest.approx(0.07, rel=0.05)
    assert len(sounds) == len(said[0].sounds)


@needs_espeak
@needs_flite
def test_a_bank_takes_up_the_recordings_of_a_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "clip.wav", 0.1 * np.sin(np.arange(32_000) / 4), 16_000)
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text('{"audio": "clip.wav", "words": [["Music", 0.5, 0.9], ["banana", 1.0, 1.5]]}\n')
    bank = tmp_path / "bank"
    argv = ["training", "bank", f"--bank={bank}", "--phrases=3", f"--manifest={manifest}"]
    monkeypatch.setattr(sys, "argv", argv)
    main()
    assert len(Bank(bank)) == 4
    _, words, _ = Bank(bank)[3]
    assert words.round(2).tolist() == [[4 + VOCABULARY.index("music"), 0.1, 0.5], [FOREIGN, 0.6, 1.1]]


@needs_espeak
def test_a_recorded_word_gets_the_sounds_that_espeak_says_in_its_own_time() -> None:
    pronunciations = Pronunciations()
    for start_s, end_s in ((1.0, 1.5), (0.0, 0.3)):
        sounds = pronunciations.sounds_of(Span(text="seven", start_s=start_s, end_s=end_s))
        assert [PHONES[sound.phone] for sound in sounds] == ["s", "eh", "v", "ax", "n"]
        assert (sounds[0].start_s, sounds[-1].end_s) == pytest.approx((start_s, end_s))
        assert [sound.start_s for sound in sounds[1:]] == pytest.approx([sound.end_s for sound in sounds[:-1]])


@needs_espeak
def test_what_is_no_word_has_an_unknown_sound() -> None:
    span = Span(text="hey-computer", start_s=1.0, end_s=1.5)
    assert Pronunciations().sounds_of(span) == (Sound(phone=UNKNOWN, start_s=1.0, end_s=1.5),)
