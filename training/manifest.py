"""Manifests: recordings with words and their times, for training beside or instead of what the synthesisers speak.

A file of JSON lines, one recording each, paths relative to it; every word has the times at which it starts and ends:

    {"audio": "clip.wav", "words": [["hello", 0.52, 0.91], ["world", 0.95, 1.40]]}
"""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import soundfile

from shared.errors import ConfigError
from training.phones import UNKNOWN
from training.speech import Pcm, Sound, Span, Speech

_PHRASE_S: Final = 4.0
"""Phrases of a bank are no longer, if their words allow it: an utterance of training has room for little more."""


def read_manifest(manifest: Path) -> Iterator[Speech]:
    """Read one recording after the other, mono, at its own rate; which sounds are in it is unknown.

    Raises:
        ConfigError: no recording, or a line that is not as described: names the line.
    """
    lines = [(n, line) for n, line in enumerate(_text(manifest).splitlines(), start=1) if line.strip()]
    if not lines:
        message = (
            f'{manifest}: no recording in it; expected lines like {{"audio": "a.wav", "words": [["yes", 0.5, 0.9]]}}'
        )
        raise ConfigError(message)
    for number, line in lines:
        try:
            yield _recording(manifest.parent, json.loads(line))
        except (KeyError, TypeError, ValueError, OSError, soundfile.LibsndfileError) as error:
            message = f"{manifest}, line {number}: {error!r}"
            raise ConfigError(message) from error


def phrases_of(recording: Speech) -> Iterator[Speech]:
    """Cut a long recording between words into phrases for a bank; what follows the last word is left out."""
    first = 0
    for at, word in enumerate(recording.words):
        is_last = at == len(recording.words) - 1
        if is_last or recording.words[at + 1].end_s - recording.words[first].start_s > _PHRASE_S:
            next_start_s = word.end_s + 0.2 if is_last else recording.words[at + 1].start_s
            before_s = recording.words[first - 1].end_s if first else recording.words[0].start_s - 0.2
            yield _cut(
                recording,
                range(first, at + 1),
                (before_s + recording.words[first].start_s) / 2,
                (word.end_s + next_start_s) / 2,
            )
            first = at + 1


def _text(manifest: Path) -> str:
    try:
        return manifest.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{manifest}: {error}"
        raise ConfigError(message) from error


def _recording(folder: Path, entry: dict[str, Any]) -> Speech:
    pcm, rate_hz = soundfile.read(folder / entry["audio"], dtype="float32", always_2d=True)
    words = tuple(Span(text=str(text), start_s=float(start), end_s=float(end)) for text, start, end in entry["words"])
    length_s = len(pcm) / rate_hz
    times = [0.0, *(time for word in words for time in (word.start_s, word.end_s)), length_s]
    if not all(before <= after for before, after in pairwise(times)):
        message = f"the times of its words are not in order within its {length_s:.2f} s"
        raise ValueError(message)
    return _speech(pcm.mean(axis=1), int(rate_hz), words)


def _cut(recording: Speech, chosen: range, start_s: float, end_s: float) -> Speech:
    start_s = max(0.0, start_s)
    rate_hz = recording.rate_hz
    words = tuple(
        Span(text=word.text.lower(), start_s=word.start_s - start_s, end_s=word.end_s - start_s)
        for word in (recording.words[index] for index in chosen)
    )
    return _speech(recording.pcm[int(start_s * rate_hz) : int(end_s * rate_hz)], rate_hz, words)


def _speech(pcm: Pcm, rate_hz: int, words: tuple[Span, ...]) -> Speech:
    unknown = tuple(Sound(phone=UNKNOWN, start_s=word.start_s, end_s=word.end_s) for word in words)
    return Speech(pcm=pcm, rate_hz=rate_hz, words=words, sounds=unknown)
