"""What the demo model is examined on: the same for every checkpoint, made anew from a seed.

A *set* is a list of recordings under one name: one kind of speaker, one kind of text, one condition. Vocabulary sets
hold vocabulary words only; foreign sets hold none; noise sets hold no speech, or foreign babble. Nothing here occurs
in a training bank: other seeds, other texts, and for the held-out sets other voices (see `training.bank`).
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import soxr

from training import bank, words
from training.augment import Augmentation, disturbed
from training.bank import Phrase, PhraseSource, espeak_voice
from training.espeak import Espeak, EspeakVoice, SynthesisError
from training.festival import speak_all
from training.flite import Flite, FliteVoice
from training.noise import babble, clicks, coloured, hum, music, wind
from training.speech import Pcm, Span, Speech

RATE_HZ: Final = 24_000
_LENGTH_S: Final = 10.0
_LEVEL: Final = 0.06
_TRIES: Final = 100
UNSEEN_VARIANTS: Final = bank.HELD_OUT_VARIANTS[:4]
"""Held out by this training and by the prototype's."""

Speaker = Callable[[random.Random, Phrase], Speech]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Samples at 24 kHz, the words to be heard in them (in order, with times), and how many foreign ones there are."""

    pcm: Pcm
    words: tuple[Span, ...]
    n_foreign: int = 0


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """Recordings of one kind. ``group`` is the table that the set stands in.

    ``n_words``: it is for checkpoints that know so many words, or more.
    """

    name: str
    group: str
    recordings: tuple[Recording, ...]
    n_words: int = 0


def spoken_by(speaker: Speaker, rng: random.Random, texts: Callable[[random.Random], Phrase]) -> Speech:
    """Draw phrases until one is spoken with all its times.

    Raises:
        SynthesisError: many phrases in a row failed.
    """
    for _ in range(_TRIES):
        try:
            return speaker(rng, texts(rng))
        except SynthesisError:
            continue
    message = f"{_TRIES} phrases in a row could not be spoken"
    raise SynthesisError(message)


def _phrase(rng: random.Random, word: Callable[[random.Random], str]) -> Phrase:
    return Phrase(words=tuple(word(rng) for _ in range(rng.randint(1, 7))))


class Voices:
    """The synthesisers that are libraries, loaded. espeak-ng keeps one callback for the process: have one of these."""

    def __init__(self) -> None:
        self.espeak = Espeak()
        self.flite = Flite(("awb", "kal", "kal16", "rms", "slt"))


class Studio:
    """Makes recordings.

    Args:
        seed: of all texts and voices.
        voices: the synthesisers; a process may only have one of them.
        vocabulary: the words that count; those of the prototype if both are to be compared on equal terms.
    """

    def __init__(self, seed: int, voices: "Voices", vocabulary: Sequence[str] = words.VOCABULARY) -> None:
        self._seed = seed
        self._vocabulary = vocabulary
        self._espeak, self._flite = voices.espeak, voices.flite
        self._source = PhraseSource(self._espeak.phonemes, held_out=True)

    def known(self, rng: random.Random) -> Phrase:
        """Draw a phrase of vocabulary words."""
        return Phrase(words=tuple(rng.choices(self._vocabulary, k=rng.randint(1, 6))))

    def foreign(self, rng: random.Random) -> Phrase:
        """Draw an English phrase without a vocabulary word, of real words."""
        return _phrase(rng, self._source.real)

    def almost_known(self, rng: random.Random) -> Phrase:
        """Draw a phrase of made-up words that differ from vocabulary words in one sound."""
        return _phrase(rng, self._source.almost_known)

    def nonsense(self, rng: random.Random) -> Phrase:
        """Draw a phrase of made-up words."""
        return _phrase(rng, self._source.nonsense)

    def other_language(self, rng: random.Random) -> Phrase:
        """Draw a phrase in a language that no training heard."""
        return self._source.draw(rng, (0, 0, 0, 1))

    def espeak(self, *, held_out: bool, rate: tuple[int, int] | None = None, unseen: bool = False) -> Speaker:
        """Return an espeak-ng speaker; ``unseen`` narrows the held-out variants to those nobody ever trained on."""

        def speak(rng: random.Random, phrase: Phrase) -> Speech:
            voice: EspeakVoice = espeak_voice(rng, phrase, held_out=held_out)
            if unseen:
                voice = replace(voice, variant=rng.choice(UNSEEN_VARIANTS))
            if rate:
                voice = replace(voice, words_per_minute=rng.randint(*rate))
            return self._espeak.speak(phrase.words, voice)

        return speak

    def flite(self, speaker: str) -> Speaker:
        """Return a flite speaker at varied speed."""
        return lambda rng, phrase: self._flite.speak(
            phrase.words, FliteVoice(speaker=speaker, stretch=rng.uniform(0.8, 1.3))
        )

    def festival(self, speaker: str, texts: Callable[[random.Random], Phrase], n: int) -> Speaker:
        """Return a Festival speaker; all it will ever say is spoken at once, since starting Festival is slow."""
        rng = random.Random(self._seed + 1)
        phrases = [(texts(rng).words, rng.uniform(0.8, 1.25)) for _ in range(6 * n)]
        spoken = iter([speech for speech in speak_all(phrases, speaker) if speech is not None])

        def speak(_rng: random.Random, _phrase: Phrase) -> Speech:
            speech = next(spoken, None)
            if speech is None:
                message = f"festival {speaker}: not enough phrases"
                raise LookupError(message)
            return speech

        return speak

    def record(
        self, n: int, speaker: Speaker, texts: Callable[[random.Random], Phrase], *, length_s: float = _LENGTH_S
    ) -> tuple[Recording, ...]:
        """Return ``n`` recordings: phrases with gaps of 0.05 to 0.7 s, then a second of silence."""
        rng = random.Random(self._seed)
        return tuple(self._one(rng, speaker, texts, length_s) for _ in range(n))

    def _one(
        self, rng: random.Random, speaker: Speaker, texts: Callable[[random.Random], Phrase], length_s: float
    ) -> Recording:
        pcm = np.zeros(int(length_s * RATE_HZ), dtype=np.float32)
        spoken: list[Span] = []
        at = int(rng.uniform(0.1, 0.8) * RATE_HZ)
        while True:
            speech = spoken_by(speaker, rng, texts)
            samples = soxr.resample(speech.pcm, speech.rate_hz, RATE_HZ)
            if at + len(samples) > len(pcm) - RATE_HZ:
                break
            pcm[at : at + len(samples)] += samples * (_LEVEL / (np.sqrt(np.mean(np.square(samples))) + 1e-6))
            shift = at / RATE_HZ
            spoken += [Span(text=w.text, start_s=w.start_s + shift, end_s=w.end_s + shift) for w in speech.words]
            at += len(samples) + int(rng.uniform(0.05, 0.7) * RATE_HZ)
        known = tuple(span for span in spoken if span.text in self._vocabulary)
        return Recording(pcm=np.clip(pcm, -1, 1), words=known, n_foreign=len(spoken) - len(known))

    def changed(
        self, recordings: Sequence[Recording], how: Augmentation, noises: Sequence[Pcm]
    ) -> tuple[Recording, ...]:
        """Return the same recordings under a condition."""
        rng = np.random.default_rng(self._seed)
        return tuple(replace(one, pcm=disturbed(one.pcm, rng, noises, how)) for one in recordings)

    def noises(self, kind: str, seconds: float) -> Pcm:
        """Return a noise with a root mean square of 1; babble is made of foreign words."""
        rng, texts = np.random.default_rng(self._seed), random.Random(self._seed)
        n = int(seconds * RATE_HZ)
        speaker = self.flite("kal16")

        def foreign() -> Pcm:
            speech = spoken_by(speaker, texts, self.foreign)
            samples: Pcm = soxr.resample(speech.pcm, speech.rate_hz, RATE_HZ)
            even: Pcm = samples / (np.sqrt(np.mean(np.square(samples))) + 1e-6)
            return even

        makers: dict[str, Callable[[], Pcm]] = {
            "white": lambda: rng.standard_normal(n).astype(np.float32),
            "coloured": lambda: coloured(n, rng),
            "wind": lambda: wind(n, rng),
            "hum": lambda: hum(n, rng),
            "clicks": lambda: clicks(n, rng),
            "music": lambda: music(n, rng),
            "babble": lambda: babble(n, rng, foreign),
        }
        return makers[kind]()
