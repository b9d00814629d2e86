"""Words that people recorded: the telephone prompts of Debian's asterisk-core-sounds packages, for the exam alone.

Two women, one of them in English and Spanish, 8 kHz. Only files of a single word are used, whose name says which word
it is. They are under CC BY-SA 3.0; nothing of them is trained on or shipped.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import soundfile

from training.bank import Phrase
from training.espeak import SynthesisError
from training.listing import listed
from training.loudness import STEPS_PER_S, loud_steps
from training.speech import Pcm, Span, Speech

FOLDER: Final = Path("/usr/share/asterisk/sounds")
PEOPLE: Final = {"en": "en_US_f_Allison", "es": "es_MX_f_Allison", "fr": "fr_CA_f_June"}
_DIGITS: Final = listed("zero one two three four five six seven eight nine ten eleven twelve")
_DAYS: Final = listed("sunday monday tuesday wednesday thursday friday saturday")
RECORDED: Final = {
    **{word: f"digits/{digit}" for digit, word in enumerate(_DIGITS)},
    "hello": "hello",
    "today": "digits/today",
    "next": "vm-next",
    "no": "vm-no",
    **{word: f"digits/day-{day}" for day, word in enumerate(_DAYS)},
    **{word: f"digits/{word}" for word in ("hundred", "thousand", "tomorrow")},
    "twenty": "digits/20",
}
"""Words of the vocabulary, and the file that says each."""
_MONTHS: Final = tuple(f"digits/mon-{month}" for month in range(12))
_MONTHS_AND_DAYS: Final = (*_MONTHS, *(f"digits/day-{day}" for day in range(7)))
_ENGLISH: Final = (
    *_MONTHS,
    *(f"digits/{number}" for number in (*range(13, 20), *range(30, 100, 10))),
    *(f"letters/{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
    *(f"phonetic/{letter}_p" for letter in "abcdefghijklmnopqrstuvwxyz"),
)
_SILENT: Final = 0.02
"""Share of the loudest moment below which a recording's ends are cut off."""


def known(vocabulary: Sequence[str]) -> tuple[str, ...]:
    """Return the words of a vocabulary that were recorded in English."""
    return tuple(word for word in RECORDED if word in vocabulary)


def one_of(recorded: tuple[str, ...]) -> Callable[[random.Random], Phrase]:
    """Return what draws one of these words, in English."""
    return lambda rng: Phrase(words=(rng.choice(recorded),), language="en")


def foreign_english(rng: random.Random) -> Phrase:
    """Draw a number, a letter, a month or a name of the spelling alphabet, none of them of the vocabulary."""
    return Phrase(words=(rng.choice(_ENGLISH),), language="en")


def foreign_language(rng: random.Random) -> Phrase:
    """Draw a month or a day in Spanish or French."""
    return Phrase(words=(rng.choice(_MONTHS_AND_DAYS),), language=rng.choice(("es", "fr")))


def speaker() -> Callable[[random.Random, Phrase], Speech]:
    """Return a speaker that plays what a phrase names.

    It raises SynthesisError where the recordings are not installed.
    """
    return lambda _rng, phrase: played(phrase.words[0], phrase.language)


def played(word: str, language: str) -> Speech:
    """Return the recording of a word of `RECORDED`, or the one that is named.

    Raises:
        SynthesisError: the recording is not installed.
    """
    path = FOLDER / PEOPLE[language] / f"{RECORDED.get(word, word)}.wav"
    try:
        pcm, rate_hz = soundfile.read(path, dtype="float32")
    except (OSError, soundfile.LibsndfileError) as error:
        message = f"{path}: {error}; it comes with Debian's package asterisk-core-sounds-{language}-wav"
        raise SynthesisError(message) from error
    pcm = _trimmed(pcm if pcm.ndim == 1 else pcm.mean(axis=1), int(rate_hz))
    length_s = len(pcm) / rate_hz
    return Speech(pcm=pcm, rate_hz=int(rate_hz), words=(Span(text=word, start_s=0.0, end_s=length_s),), sounds=())


def _trimmed(pcm: Pcm, rate_hz: int) -> Pcm:
    """Cut silence off both ends, in steps of 10 ms."""
    hop, loud = rate_hz // STEPS_PER_S, loud_steps(pcm, rate_hz, least=_SILENT)
    return pcm[loud[0] * hop : (loud[-1] + 1) * hop]
