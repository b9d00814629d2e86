"""espeak-ng through its library: any voice and variant, with the exact time of every word and phone.

The program prints no times; its library does, as events beside the samples (the names of phones must be asked for).
A word starts with the first phone after its word event and ends where the next pause or the next word's first phone
begins. The library keeps one voice for the process: one `Espeak` per process.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Final

import numpy as np

from training import phones
from training.speech import Sound, Span, Speech

_SYNCHRONOUS: Final = 2
_PHONEME_EVENTS: Final = 1
_CHARS_UTF8: Final = 1
_IPA_WITH_TIES: Final = 0x02 | 0x80 | ord("^") << 8
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_WORD_EVENT, _PHONEME_EVENT = 1, 7


class SynthesisError(Exception):
    """The synthesiser refused the voice or lost a word of the text."""


class _Event(ctypes.Structure):
    _fields_: ClassVar[list[Any]] = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    ]


@dataclass(frozen=True, kw_only=True)
class EspeakVoice:
    """A language (``en-us``), a variant of its voice (``klatt2``; empty: the plain voice) and how it speaks."""

    language: str
    variant: str = ""
    words_per_minute: int = 160
    pitch: int = 50
    pitch_range: int = 50

    @property
    def name(self) -> str:
        """The voice as espeak-ng's ``-v`` takes it."""
        return f"{self.language}+{self.variant}" if self.variant else self.language


class _Library:
    """The library, of which a process has one: a second start, or a callback that is gone, would end the process."""

    def __init__(self) -> None:
        self.functions = ctypes.CDLL("libespeak-ng.so.1")
        self.functions.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self.rate_hz = int(self.functions.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS))
        if self.rate_hz <= 0:
            message = "espeak-ng could not find its data"
            raise SynthesisError(message)
        self.voice = ""
        self.chunks: list[bytes] = []
        self.events: list[tuple[int, int, int, str]] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self._callback = kind(self._collect)  # kept: the library holds a bare pointer to it
        self.functions.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self.chunks.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while events[index].type != 0:
            event = events[index]
            if event.type in (_WORD_EVENT, _PHONEME_EVENT):
                name = event.name.decode("utf-8", "replace") if event.type == _PHONEME_EVENT else ""
                self.events.append((event.type, event.text_position, event.sample, name))
            index += 1
        return 0


@cache
def _library() -> _Library:
    return _Library()


class Espeak:
    """Speaks through the library; all of a process share it."""

    def __init__(self) -> None:
        self._library = _library()
        self._lib = self._library.functions
        self._rate_hz = self._library.rate_hz

    def phonemes(self, text: str, language: str = "en-us") -> str:
        """Return the mnemonics that the voice would speak, stress marks removed: equal strings are homophones."""
        self._select(language)
        pointer = ctypes.c_char_p(text.encode())
        spoken = self._lib.espeak_TextToPhonemes(ctypes.byref(pointer), _CHARS_UTF8, 0) or b""
        return str(spoken.decode("utf-8", "replace")).replace("'", "").replace(",", "").strip()

    def ipa(self, text: str, language: str = "en-us") -> str:
        """Return the text in the International Phonetic Alphabet, stress marked, parts of one sound tied by ``^``."""
        self._select(language)
        pointer = ctypes.c_char_p(text.encode())
        spoken = self._lib.espeak_TextToPhonemes(ctypes.byref(pointer), _CHARS_UTF8, _IPA_WITH_TIES) or b""
        return str(spoken.decode("utf-8", "replace")).strip()

    def _select(self, voice: str) -> None:
        if voice != self._library.voice and self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            message = f"espeak-ng has no voice {voice!r}"
            raise SynthesisError(message)
        self._library.voice = voice

    def speak(self, words: Sequence[str], voice: EspeakVoice) -> Speech:
        """Speak the words as one fluent phrase.

        Raises:
            SynthesisError: the voice is unknown, or espeak-ng merged or skipped a word so that its time is lost.
        """
        try:
            return self._speak(words, voice)
        except SynthesisError:
            # Seen once and never in 51,000 phrases since, why is unknown: the sound was right, but the event of a word
            # was missing. A word that is merged or skipped fails again.
            return self._speak(words, voice)

    def _speak(self, words: Sequence[str], voice: EspeakVoice) -> Speech:
        self._select(voice.name)
        for parameter, value in (
            (_RATE, voice.words_per_minute),
            (_VOLUME, 100),
            (_PITCH, voice.pitch),
            (_RANGE, voice.pitch_range),
        ):
            self._lib.espeak_SetParameter(parameter, value, 0)
        self._library.chunks, self._library.events = [], []
        raw = " ".join(words).encode()
        self._lib.espeak_Synth(raw, len(raw) + 1, 0, 1, 0, _CHARS_UTF8, None, None)
        self._lib.espeak_Synchronize()
        pcm = np.frombuffer(b"".join(self._library.chunks), dtype=np.int16).astype(np.float32) / 32768.0
        spans, sounds = self._times(words, len(pcm) / self._rate_hz)
        return Speech(pcm=pcm, rate_hz=self._rate_hz, words=spans, sounds=sounds)

    def _times(self, words: Sequence[str], length_s: float) -> tuple[tuple[Span, ...], tuple[Sound, ...]]:
        starts = np.cumsum([1, *(len(word) + 1 for word in words[:-1])])
        sounds: list[Sound] = []
        owner: list[int] = []  # the word that each sound belongs to, -1 for pauses
        current = -1
        for index, (kind, position, sample, name) in enumerate(self._library.events):
            if kind == _WORD_EVENT:
                # Behind a full stop the position is one too large.
                current = next((k for k, start in enumerate(starts) if position in (start, start + 1)), current)
                continue
            end = next(
                (e[2] / self._rate_hz for e in self._library.events[index + 1 :] if e[0] == _PHONEME_EVENT), length_s
            )
            sounds.append(Sound(phone=phones.from_espeak(name), start_s=sample / self._rate_hz, end_s=end))
            owner.append(-1 if name.startswith("_") or not name else current)
        spans = []
        for k, text in enumerate(words):
            mine = [sound for sound, k_of in zip(sounds, owner, strict=True) if k_of == k]
            if not mine:
                message = f"espeak-ng gave no time for {text!r} in {' '.join(words)!r}"
                raise SynthesisError(message)
            spans.append(Span(text=text, start_s=mine[0].start_s, end_s=mine[-1].end_s))
        return tuple(spans), tuple(sounds)
