"""Which sounds a recorded word is made of, and about when: nobody wrote that down, so espeak-ng is asked.

    "seven" ──► espeak-ng: s 0.10 s, eh 0.08 s, v ... ──► the same shares of the time that the recorded word took

A person does not keep a synthesiser's proportions, but the phone loss asks for 40 ms only, and without it real voices
would teach the encoder nothing about sounds.
"""

from collections.abc import Sequence
from typing import Final

from training.espeak import Espeak, EspeakVoice
from training.phones import UNKNOWN
from training.speech import Sound, Span

_VOICE: Final = EspeakVoice(language="en-us")


class Pronunciations:
    """Tells the sounds of words, each word spoken once."""

    def __init__(self) -> None:
        self._espeak = Espeak()
        self._spoken: dict[str, tuple[Sound, ...]] = {}

    def sounds_of(self, word: Span) -> tuple[Sound, ...]:
        """Return the sounds of a word that was said in a span of time; one unknown sound if its text is no word."""
        if not word.text.isalpha():
            return unknown_sounds(word)
        if word.text not in self._spoken:
            self._spoken[word.text] = self._shares(word.text)
        length_s = word.end_s - word.start_s
        return tuple(
            Sound(phone=s.phone, start_s=word.start_s + s.start_s * length_s, end_s=word.start_s + s.end_s * length_s)
            for s in self._spoken[word.text]
        )

    def _shares(self, text: str) -> tuple[Sound, ...]:
        """Return the sounds with their times as shares of the word's, 0 to 1."""
        speech = self._espeak.speak((text,), _VOICE)
        (word,) = speech.words
        length_s = word.end_s - word.start_s
        return tuple(
            Sound(
                phone=sound.phone,
                start_s=(sound.start_s - word.start_s) / length_s,
                end_s=(sound.end_s - word.start_s) / length_s,
            )
            for sound in _within(speech.sounds, word)
        )


def unknown_sounds(word: Span) -> tuple[Sound, ...]:
    """Return one sound that carries no loss."""
    return (Sound(phone=UNKNOWN, start_s=word.start_s, end_s=word.end_s),)


def _within(sounds: Sequence[Sound], word: Span) -> list[Sound]:
    return [sound for sound in sounds if sound.start_s >= word.start_s and sound.end_s <= word.end_s]
