"""Words that people recorded, one to a file: ``<word>/<speaker>_nohash_<n>.wav``, the layout of Speech Commands.

    files of one speaker ──► each cut to its word ──► some turned into foreign words ──► a phrase with gaps

The recordings are the user's to fetch (Speech Commands is under CC BY 4.0, the Free Spoken Digit Dataset, laid out in
the same way, under CC BY-SA 4.0); nothing of them ships. One speaker in five is never trained on.

People who say words of the vocabulary need people who say others, with the same microphones, or the model learns that
a real voice always says something it knows. Few recorded words are foreign, so more are made: a word played backwards,
and a word whose halves have changed places.
"""

import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
import soxr

from shared.errors import ConfigError
from training.espeak import SynthesisError
from training.loudness import STEPS_PER_S, loudness
from training.pronunciation import unknown_sounds
from training.speech import Pcm, Sound, Span, Speech

RATE_HZ: Final = 24_000
_HOP: Final = RATE_HZ // STEPS_PER_S
_LEVEL: Final = 0.07
_MARGIN_S: Final = 0.06
_FADE: Final = RATE_HZ // 80
_LONGEST_STOP: Final = 15
"""Steps of 10 ms that a word may be silent in its middle: the stop before the burst of "eight" or "six"."""
_LEAST_RISE_DB: Final = 15.0
_FEW: Final = 60
"""A word with fewer recordings is heard less often than others: a single one would be heard a thousand times."""
_SHORTEST_S, _LONGEST_S = 0.12, 0.95
# Turned round, each of the two sounds like the other.
_NEVER_TURNED: Final = frozenset({"on", "no"})


class Turn(Enum):
    """What makes a foreign word of a recorded one."""

    AS_IT_IS = ""
    BACKWARDS = "backwards "
    HALVES_SWAPPED = "swapped "


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One file: who says which word in it."""

    word: str
    speaker: str
    path: Path


def is_held_out(speaker: str) -> bool:
    """Return whether a speaker belongs to the exam (one in five) and so never to training."""
    return zlib.crc32(speaker.encode()) % 5 == 0


def recorded(folder: Path) -> list[Recorded]:
    """List the recordings in a folder of folders.

    Raises:
        ConfigError: there is none.
    """
    files = sorted(folder.glob("*/*.wav"))
    found = [
        Recorded(word=path.parent.name, speaker=path.stem.partition("_nohash_")[0], path=path)
        for path in files
        if not path.parent.name.startswith("_")
    ]
    if not found:
        message = f"{folder}: no recordings; expected files like yes/0a7c2a8d_nohash_0.wav, a folder for each word"
        raise ConfigError(message)
    return found


class People:
    """Draws phrases of recorded words.

    Args:
        folder: of the recordings.
        vocabulary: words that are not foreign.
        held_out: draw from the speakers of the exam instead of those of training.
        sounds_of: which sounds a word is made of, by its text and span; not asked of words that were turned round.
    """

    def __init__(
        self,
        folder: Path,
        vocabulary: Sequence[str],
        *,
        held_out: bool,
        sounds_of: Callable[[Span], tuple[Sound, ...]] = unknown_sounds,
    ) -> None:
        self._sounds_of = sounds_of
        found = [one for one in recorded(folder) if is_held_out(one.speaker) == held_out]
        self._known = _by_speaker(one for one in found if one.word in vocabulary)
        self._foreign = _by_speaker(one for one in found if one.word not in vocabulary)
        # Of some words there are fifty times as many recordings as of others; yet each is to be heard as often.
        self._odds = {word: 1 / max(count, _FEW) for word, count in Counter(one.word for one in found).items()}
        self._odds_known, self._odds_foreign = map(self._odds_of, (self._known, self._foreign))
        if not self._known:
            message = f"{folder}: none of its recordings is a word of the vocabulary by a speaker of this part"
            raise ConfigError(message)

    @property
    def has_foreign(self) -> bool:
        """Whether any of the recordings is of a word that is not of the vocabulary."""
        return bool(self._foreign)

    def draw(self, rng: random.Random) -> Speech:
        """Draw a phrase for training: half of them of known words only, a quarter mixed, a quarter foreign.

        Raises:
            SynthesisError: a recording in it is unusable.
        """
        share = rng.choice((0.0, 0.0, 0.5, 1.0))
        foreign = [rng.random() < share for _ in range(rng.randint(1, 5))]
        is_stranger = self._foreign and rng.random() < 0.5 * share
        odds = self._odds_foreign if is_stranger else self._odds_known
        (speaker,) = rng.choices(tuple(odds), tuple(odds.values()))
        return self._phrase([self._one(rng, speaker, foreign=is_foreign) for is_foreign in foreign], rng)

    def known(self, rng: random.Random) -> Speech:
        """Draw up to four words of the vocabulary by one speaker.

        Raises:
            SynthesisError: a recording in it is unusable.
        """
        return self._phrase(_as_they_are(rng, self._known), rng)

    def foreign(self, rng: random.Random) -> Speech:
        """Draw up to four recorded foreign words by one speaker, as they are; there must be some.

        Raises:
            SynthesisError: a recording in it is unusable.
        """
        return self._phrase(_as_they_are(rng, self._foreign), rng)

    def _one(self, rng: random.Random, speaker: str, *, foreign: bool) -> tuple[Recorded, Turn]:
        known, strange = self._known.get(speaker, []), self._foreign.get(speaker, [])
        if not foreign and known:
            return self._evenly(rng, known), Turn.AS_IT_IS
        if strange and rng.random() < 0.5:  # noqa: PLR2004 half of the foreign words are recorded ones
            return self._evenly(rng, strange), Turn.AS_IT_IS
        one = self._evenly(rng, known or strange)
        return one, Turn.AS_IT_IS if one.word in _NEVER_TURNED else rng.choice((Turn.BACKWARDS, Turn.HALVES_SWAPPED))

    def _evenly(self, rng: random.Random, recordings: Sequence[Recorded]) -> Recorded:
        return rng.choices(recordings, [self._odds[one.word] for one in recordings])[0]

    def _odds_of(self, of: dict[str, list[Recorded]]) -> dict[str, float]:
        return {speaker: sum(self._odds[one.word] for one in recordings) for speaker, recordings in of.items()}

    def _phrase(self, chosen: Sequence[tuple[Recorded, Turn]], rng: random.Random) -> Speech:
        pieces: list[Pcm] = []
        words: list[Span] = []
        sounds: list[Sound] = []
        at = 0
        for one, turn in chosen:
            pcm = _turned(word_of(one), turn, rng)
            pcm = pcm * (_LEVEL * 10 ** (rng.uniform(-3, 3) / 20) / (np.sqrt(np.mean(np.square(pcm))) + 1e-6))
            margin = int(_MARGIN_S * RATE_HZ)
            start_s, end_s = (at + margin) / RATE_HZ, (at + len(pcm) - margin) / RATE_HZ
            words.append(Span(text=turn.value + one.word, start_s=start_s, end_s=end_s))
            sounds += (self._sounds_of if turn is Turn.AS_IT_IS else unknown_sounds)(words[-1])
            gap = np.zeros(int(rng.uniform(0.0, 0.5) * RATE_HZ), dtype=np.float32)
            pieces += [pcm.astype(np.float32), gap]
            at += len(pcm) + len(gap)
        return Speech(
            pcm=np.concatenate(pieces[:-1]),
            rate_hz=RATE_HZ,
            words=tuple(words),
            sounds=tuple(sounds),
        )


def word_of(one: Recorded) -> Pcm:
    """Return a recording's word at 24 kHz with a little of what surrounds it.

    Raises:
        SynthesisError: the file cannot be read, or no word stands out of its noise.
    """
    try:
        pcm, rate_hz = soundfile.read(one.path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        message = f"{one.path}: {error}"
        raise SynthesisError(message) from error
    cut = cut_to_word(soxr.resample(pcm[:, 0], rate_hz, RATE_HZ))
    if not len(cut):
        message = f"{one.path}: no word stands out of its noise, or it is cut off"
        raise SynthesisError(message)
    return cut


def _by_speaker(recordings: Iterable[Recorded]) -> dict[str, list[Recorded]]:
    of: dict[str, list[Recorded]] = defaultdict(list)
    for one in recordings:
        of[one.speaker].append(one)
    return dict(of)


def _as_they_are(rng: random.Random, of: dict[str, list[Recorded]]) -> list[tuple[Recorded, Turn]]:
    recordings = of[rng.choice(tuple(of))]
    return [(one, Turn.AS_IT_IS) for one in rng.sample(recordings, k=min(len(recordings), rng.randint(1, 4)))]


def cut_to_word(pcm: Pcm) -> Pcm:
    """Return the word in a recording with 60 ms of what surrounds it on either side; nothing where none stands out."""
    # The difference of neighbours weighs what is heard as speech above hum and rumble.
    db = 20 * np.log10(loudness(np.diff(pcm, append=pcm[-1:]), RATE_HZ) + 1e-5)
    if len(db) < 2:  # noqa: PLR2004
        return pcm[:0]
    quiet, loud = np.percentile(db, (5, 95))
    if loud - quiet < _LEAST_RISE_DB:
        return pcm[:0]
    is_loud = np.nonzero(db > max(quiet + 0.3 * (loud - quiet), loud - 30))[0]
    runs = np.split(is_loud, np.nonzero(np.diff(is_loud) > _LONGEST_STOP)[0] + 1)
    word = max(runs, key=lambda run: float(np.sum(db[run] - quiet)))
    start, end = word[0] * _HOP, (word[-1] + 1) * _HOP
    if not _SHORTEST_S <= (end - start) / RATE_HZ <= _LONGEST_S:
        return pcm[:0]
    margin = int(_MARGIN_S * RATE_HZ)
    padded = np.pad(pcm, margin)
    cut = padded[start : end + 2 * margin].copy()
    fade = np.linspace(0, 1, _FADE, dtype=np.float32)
    cut[:_FADE] *= fade
    cut[-_FADE:] *= fade[::-1]
    return cut


def _turned(pcm: Pcm, turn: Turn, rng: random.Random) -> Pcm:
    match turn:
        case Turn.AS_IT_IS:
            return pcm
        case Turn.BACKWARDS:
            return pcm[::-1]
        case Turn.HALVES_SWAPPED:
            margin = int(_MARGIN_S * RATE_HZ)
            word = pcm[margin:-margin]
            middle = int(rng.uniform(0.35, 0.65) * len(word))
            return np.concatenate([pcm[:margin], word[middle:], word[:middle], pcm[-margin:]])
