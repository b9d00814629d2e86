"""The bank: thousands of spoken phrases on disk, from which training assembles its utterances.

    phrases ──► a synthesiser and a random voice, or people ──► mostly played a little faster or slower ──► 24 kHz int16

A bank is a folder: ``pcm.raw`` (all samples, int16, memory-mapped) and ``index.npz`` (where each phrase lies, its
words and sounds). Words are text ids (`training.words.VOCABULARY` from 4 up); foreign words have id `FOREIGN`.

What is never trained on: Festival as a whole, the speakers kal and ked in any synthesiser, the espeak-ng variants,
accent and languages below, one foreign word in five and one recorded speaker in five. ``held_out=True`` draws from
those instead.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import soxr

from training import words
from training.espeak import Espeak, EspeakVoice, SynthesisError
from training.flite import Flite, FliteVoice
from training.listing import listed
from training.people import People
from training.speech import Speech

RATE_HZ: Final = 24_000
FOREIGN: Final = -1
FIRST_WORD_ID: Final = 4

ACCENTS: Final = ("en-us", "en", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-rp", "en-029", "en-us-nyc")
HELD_OUT_ACCENT: Final = "en-gb-x-gbcwmd"
LANGUAGES: Final = listed("de fr it es nl pl pt sv tr fi cs hu ro id sw vi cy ga eo la")
HELD_OUT_LANGUAGES: Final = listed("da nb sk hr ca et lv")
SPEAKERS: Final = ("awb", "rms", "slt")
# The first four were held out by the prototype too; about the others its notes do not say.
HELD_OUT_VARIANTS: Final = listed("steph2 robosoft5 klatt3 Andy f5 m8 caleb ed quincy belinda sandro edward2")
VARIANTS: Final = listed(
    "Alex Alicia Andrea Annie AnxiousAndy Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco Mario Michael Mike"
    " Nguyen RicishayMax RicishayMax2 RicishayMax3 Storm Tweaky UniRobot adam anika anikaRobot announcer antonio aunty"
    " benjamin boris david edward f1 f2 f3 f4 fast grandma grandpa gustave iven iven2 iven3 iven4 john kaukovalta klatt"
    " klatt2 klatt4 klatt5 klatt6 linda m1 m2 m3 m4 m5 m6 m7 marcelo max michel miguel norbert pablo paul pedro rob"
    " robert robosoft robosoft2 robosoft3 robosoft4 robosoft6 robosoft7 robosoft8 shelby steph steph3 travis victor"
    " whisper whisperf zac"
)

_IDS: Final = {word: FIRST_WORD_ID + index for index, word in enumerate(words.VOCABULARY)}
# Share of phrases of vocabulary words only, mixed, foreign only; the rest is another language altogether.
_KINDS: Final = (0.52, 0.22, 0.19, 0.07)
_REAL: Final = 0.93
"""Share of the foreign words that exist; nobody says the others."""
_MOST_FAILURES: Final = 20
"""Phrases that may fail for one that does not."""


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """What to say: its words, and the language to say it in (empty: any English)."""

    words: tuple[str, ...]
    language: str = ""


class PhraseSource:
    """Draws phrases.

    Args:
        phonemes: how a word sounds.
        held_out: decides which foreign words and languages may occur.
        alike_share: of the foreign words that are almost words of the vocabulary, beside those that are by chance.
    """

    def __init__(self, phonemes: Callable[[str], str], *, held_out: bool, alike_share: float = 0.0) -> None:
        listed, everyday = words.foreign_words(phonemes)
        self._listed = [word for word in listed if words.is_held_out(word) == held_out]
        self._everyday = [word for word in everyday if words.is_held_out(word) == held_out]
        self._languages = HELD_OUT_LANGUAGES if held_out else LANGUAGES
        self._phonemes, self._held_out = phonemes, held_out
        self._known = {phonemes(word) for word in words.VOCABULARY}
        self._alike_share = alike_share
        self._alikes = words.sound_alikes(phonemes, self._listed + self._everyday) if alike_share else ()

    def draw(self, rng: random.Random, kinds: Sequence[float] = _KINDS) -> Phrase:
        """Draw one phrase; ``kinds`` are the shares of the module's four kinds."""
        match rng.choices(("known", "mixed", "foreign", "language"), kinds)[0]:
            case "known":
                return Phrase(words=tuple(rng.choices(words.VOCABULARY, k=rng.randint(1, 6))))
            case "mixed":
                return Phrase(
                    words=tuple(
                        rng.choice(words.VOCABULARY) if rng.random() < 0.5 else self.foreign(rng)  # noqa: PLR2004
                        for _ in range(rng.randint(2, 6))
                    )
                )
            case "foreign":
                return Phrase(words=tuple(self.foreign(rng) for _ in range(rng.randint(1, 7))))
            case _:
                spoken = tuple(rng.choice(self._listed) for _ in range(rng.randint(2, 5)))
                return Phrase(words=spoken, language=rng.choice(self._languages))

    def foreign(self, rng: random.Random) -> str:
        """Draw a word that is not of the vocabulary and does not sound like one, nearly always a real one."""
        if self._alike_share and rng.random() < self._alike_share:
            is_real = rng.random() < _REAL
            return rng.choice(rng.choice(self._alikes)) if is_real else self.almost_known(rng)
        draw = rng.random()
        if draw < _REAL:
            return self.real(rng)
        return self.almost_known(rng) if draw < 0.96 else self.nonsense(rng)  # noqa: PLR2004

    def real(self, rng: random.Random) -> str:
        """Draw a foreign word that people use, two times in five an everyday one."""
        return rng.choice(self._everyday if rng.random() < 0.4 else self._listed)  # noqa: PLR2004

    def almost_known(self, rng: random.Random) -> str:
        """Draw a made-up word that differs from one of the vocabulary in one sound."""
        return self._made_up(lambda: words.near_neighbour(rng))

    def nonsense(self, rng: random.Random) -> str:
        """Draw a made-up word."""
        return self._made_up(lambda: words.nonsense(rng))

    def _made_up(self, make: Callable[[], str]) -> str:
        while True:
            word = make()
            if words.is_held_out(word) == self._held_out and self._phonemes(word) not in self._known:
                return word


def espeak_voice(rng: random.Random, phrase: Phrase, *, held_out: bool) -> EspeakVoice:
    """Draw a voice: held-out variants get the held-out accent in 3 of 10 draws."""
    if held_out:
        variant = rng.choice(HELD_OUT_VARIANTS)
        accent = HELD_OUT_ACCENT if rng.random() < 0.3 else rng.choice(ACCENTS)  # noqa: PLR2004
    else:
        variant, accent = rng.choice(("", *VARIANTS)), rng.choice(ACCENTS)
    return EspeakVoice(
        language=phrase.language or accent,
        variant=variant,
        words_per_minute=rng.randint(100, 215),
        pitch=rng.randint(10, 90),
        pitch_range=rng.randint(20, 90),
    )


def flite_voice(rng: random.Random) -> FliteVoice:
    """Draw one of the training speakers with another speed and often another pitch."""
    own = rng.random() < 0.4  # noqa: PLR2004
    pitch = 0.0 if own else rng.uniform(85, 220)
    return FliteVoice(
        speaker=rng.choice(SPEAKERS),
        stretch=rng.uniform(0.75, 1.35),
        pitch_hz=pitch,
        pitch_spread_hz=rng.uniform(5, 0.15 * max(pitch, 100)),
    )


def synthesise(
    seed: int,
    n_phrases: int,
    *,
    flite_share: float,
    people: People | None = None,
    people_share: float = 0.0,
    alike_share: float = 0.0,
    held_out: bool = False,
) -> Iterator[Speech]:
    """Speak random phrases; a phrase whose times a synthesiser lost, or a recording is unfit for, is replaced."""
    rng = random.Random(seed)
    espeak, flite = Espeak(), Flite(() if held_out else SPEAKERS)
    source = PhraseSource(espeak.phonemes, held_out=held_out, alike_share=alike_share)
    done = failures = 0
    while done < n_phrases:
        recorded = people if people and rng.random() < people_share else None
        phrase = source.draw(rng)
        with_flite = not phrase.language and rng.random() < flite_share and not held_out
        try:
            if recorded:
                speech = recorded.draw(rng)
            elif with_flite:
                speech = flite.speak(phrase.words, flite_voice(rng))
            else:
                speech = espeak.speak(phrase.words, espeak_voice(rng, phrase, held_out=held_out))
        except SynthesisError:
            failures += 1
            if failures > _MOST_FAILURES * (done + _MOST_FAILURES):
                raise
            continue
        done += 1
        if not held_out and rng.random() < 0.7:  # noqa: PLR2004
            speech = speech.stretched(rng.uniform(0.84, 1.19))
        yield speech


def write_bank(folder: Path, phrases: Iterator[Speech], report: Callable[[int], None] | None = None) -> None:
    """Store phrases at 24 kHz, each brought to the same level (-23 dB below full scale)."""
    folder.mkdir(parents=True, exist_ok=True)
    offsets, word_rows, sound_rows = [0], [], []
    with (folder / "pcm.raw").open("wb") as file:
        for number, speech in enumerate(phrases):
            pcm = soxr.resample(speech.pcm, speech.rate_hz, RATE_HZ, quality="HQ")
            pcm = pcm * (0.07 / (np.sqrt(np.mean(np.square(pcm))) + 1e-6))
            file.write(np.clip(pcm * 32767, -32768, 32767).astype(np.int16).tobytes())
            offsets.append(offsets[-1] + len(pcm))
            word_rows += [(number, _IDS.get(w.text, FOREIGN), w.start_s, w.end_s) for w in speech.words]
            sound_rows += [(number, s.phone, s.start_s, s.end_s) for s in speech.sounds]
            if report:
                report(number)
    np.savez(
        folder / "index.npz",
        offsets=np.array(offsets, dtype=np.int64),
        words=np.array(word_rows, dtype=np.float64),
        sounds=np.array(sound_rows, dtype=np.float64),
    )


class Bank:
    """A bank on disk, read phrase by phrase."""

    def __init__(self, folder: Path) -> None:
        index = np.load(folder / "index.npz")
        self._offsets = index["offsets"]
        self._pcm = np.memmap(folder / "pcm.raw", dtype=np.int16, mode="r")
        numbers = np.arange(len(self._offsets))
        self._words, self._word_rows = index["words"], np.searchsorted(index["words"][:, 0], numbers)
        self._sounds, self._sound_rows = index["sounds"], np.searchsorted(index["sounds"][:, 0], numbers)

    def __len__(self) -> int:
        """Count the phrases."""
        return len(self._offsets) - 1

    @property
    def hours(self) -> float:
        """Return how long all phrases are together."""
        return float(self._offsets[-1]) / RATE_HZ / 3600

    def known_shares(self, last_id: int) -> np.ndarray:
        """Return for every phrase which share of its words has an id up to ``last_id`` and is not foreign."""
        known = (self._words[:, 1] >= FIRST_WORD_ID) & (self._words[:, 1] <= last_id)
        of = self._words[:, 0].astype(int)
        counts = np.bincount(of, minlength=len(self))
        return np.bincount(of, weights=known, minlength=len(self)) / np.maximum(counts, 1)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return samples ``[n]`` float32, words ``[w, 3]`` (id, start, end in s) and sounds ``[s, 3]`` of a phrase."""
        pcm = self._pcm[self._offsets[number] : self._offsets[number + 1]].astype(np.float32) / 32768.0
        spoken = self._words[self._word_rows[number] : self._word_rows[number + 1], 1:]
        sounds = self._sounds[self._sound_rows[number] : self._sound_rows[number + 1], 1:]
        return pcm, spoken, sounds
