"""From words with times to what the model must say at every step.

With delay D, step s hears audio up to s frames and speaks of the moment (s + 1 - D) / 12.5 s. A word that starts in
frame b and ends in frame e becomes

    step     b+D-1    b+D     b+D+1 .. e+D-2    e+D-1
    token      0     pieces          3             0

The first 0 gives the word its start, the last one its end. Words that touch share one 0. Foreign words are 3
throughout.

With *open starts* a 0 decides nothing: foreign words begin with one, too, and the piece, which does decide, may come
up to three steps later, when more of the word has been heard. For a word of five frames that is said two steps late:

    wanted    0  7  7  7  3  0      a piece that is due stays wanted until it is said
    said      0  3  3  7  3  0      what later steps find before them

Source: docs/model.md, section 7; the server's rule for words.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from training.phones import UNKNOWN

FRAMES_PER_S: Final = 12.5
END_OF_WORD: Final = 0
PAD: Final = 3
HORIZONS_S: Final = (0.5, 1.0, 2.0, 3.0)
PHONE_SUBFRAMES: Final = 6
_SUBFRAMES_PER_S: Final = 25.0


_LATE: Final = (0.55, 0.2, 0.15, 0.1)
"""Shares of the words that are said so many steps late, where starts are open and the word is long enough."""
_LATE_START: Final = 0.12
"""Share of the words whose first 0 is said a step late."""
_FOREIGN_SHIFTS: Final = (-1, 0, 0, 0, 0, 0, 0, 0, 0, 1)
_MARKED: Final = 0.9
"""Share of the foreign words whose 0 is said at the start."""


@dataclass(frozen=True, kw_only=True)
class PadWeights:
    """How much a step of padding counts beside one of a word: the less, the sooner the model says something."""

    in_silence: float = 0.5
    in_foreign_words: float = 1.5
    """Keeping silent while somebody speaks is the hard part of keeping silent."""
    open_starts: bool = False
    """Padding counts most right after a 0, where a piece may come (`training.losses.weights`)."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What to predict for one utterance of F frames.

    ``text`` ``[F + 1]`` token wanted of each step, ``said`` the one that later steps find there; ``foreign``
    ``[F + 1]`` whether it speaks of a foreign word; ``pause`` ``[F + 1, heads]`` 1 where speech comes within the
    horizon; ``phones`` ``[F, 6]`` sounds of the 40 ms before the end of each frame, latest first.
    """

    text: np.ndarray
    said: np.ndarray
    foreign: np.ndarray
    pause: np.ndarray
    phones: np.ndarray


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A word's pieces, the step of its first 0 and of its last one."""

    pieces: Sequence[int]
    start: int
    end: int


def layout(words: Iterable[tuple[Sequence[int], float, float]], n_frames: int, delay: int) -> np.ndarray:
    """Return the token of every step, ``[n_frames + 1]``.

    Args:
        words: pieces, start and end in seconds of each word, in order.
        n_frames: F.
        delay: D.
    """
    text = np.full(n_frames + 1, PAD, dtype=np.int64)
    for place in _places(words, delay):
        _write(text, place.start, [END_OF_WORD, *place.pieces])
        _write(text, place.end, [END_OF_WORD])
    return text


def open_layout(
    words: Sequence[tuple[Sequence[int], float, float]],
    foreign_starts_s: Iterable[float],
    n_frames: int,
    delay: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the token wanted of every step and the one said at it, with open starts; each ``[n_frames + 1]``.

    Args:
        words: as for `layout`.
        foreign_starts_s: when foreign words start.
        n_frames: F.
        delay: D.
        rng: of how late each word is said.
    """
    text = layout(words, n_frames, delay)
    said = text.copy()
    for place in _places(words, delay):
        if len(place.pieces) > 1:
            continue
        (piece,) = place.pieces
        room = place.end - place.start - 2
        start = min(room, int(rng.random() < _LATE_START))
        late = min(room - start, int(rng.choice(len(_LATE), p=_LATE)))
        _write(text, place.start, [END_OF_WORD] * (start + 1) + [piece] * (late + 1))
        _write(said, place.start, [PAD] * start + [END_OF_WORD] + [PAD] * late + [piece])
    for start_s in foreign_starts_s:
        step = _frame(start_s) + delay - 1
        if 1 <= step < n_frames and (text[step - 1 : step + 2] == PAD).all():
            text[step] = END_OF_WORD
            if rng.random() < _MARKED:
                said[step + rng.choice(_FOREIGN_SHIFTS)] = END_OF_WORD
    return text, said


def _places(words: Iterable[tuple[Sequence[int], float, float]], delay: int) -> list[_Place]:
    places, free_from = [], 0
    for pieces, start_s, end_s in words:
        begin = max(_frame(start_s), free_from)
        free_from = max(_frame(end_s), begin + len(pieces) + 1)
        places.append(_Place(pieces=pieces, start=begin + delay - 1, end=free_from + delay - 1))
    return places


def _frame(moment_s: float) -> int:
    return round(moment_s * FRAMES_PER_S)


def _write(line: np.ndarray, step: int, tokens: Sequence[int]) -> None:
    """Put tokens into a line from a step on; what is beyond its ends is dropped."""
    for at, token in enumerate(tokens, start=step):
        if 0 <= at < len(line):
            line[at] = token


def targets(
    words: np.ndarray, sounds: np.ndarray, n_frames: int, delay: int, open_with: np.random.Generator | None = None
) -> Targets:
    """Return all targets; ``words`` and ``sounds`` are rows of (id, start, end in s).

    With ``open_with`` starts are open, and it says how late each word is said.
    """
    known = [((int(token),), start_s, end_s) for token, start_s, end_s in words if token >= 0]
    text = said = layout(known, n_frames, delay)
    if open_with:
        starts = [start_s for token, start_s, _ in words if token < 0]
        text, said = open_layout(known, starts, n_frames, delay, open_with)
    moments = (np.arange(n_frames + 1) + 1 - delay) / FRAMES_PER_S
    return Targets(
        text=text,
        said=said,
        foreign=_foreign(words, moments),
        pause=_pauses(words, moments),
        phones=_phones(sounds, n_frames),
    )


def _foreign(words: np.ndarray, moments: np.ndarray) -> np.ndarray:
    foreign = np.zeros(len(moments), dtype=bool)
    for token, start_s, end_s in words:
        if token < 0:
            foreign |= (moments >= start_s - 0.1) & (moments < end_s + 0.1)
    return foreign


def _pauses(words: np.ndarray, moments: np.ndarray) -> np.ndarray:
    pause = np.zeros((len(moments), len(HORIZONS_S)), dtype=np.int64)
    for _, start_s, end_s in words:
        for head, horizon_s in enumerate(HORIZONS_S):
            pause[(start_s < moments + horizon_s) & (end_s > moments), head] = 1
    return pause


def _phones(sounds: np.ndarray, n_frames: int) -> np.ndarray:
    line = np.zeros(2 * n_frames, dtype=np.int64)
    centres = (np.arange(2 * n_frames) + 0.5) / _SUBFRAMES_PER_S
    for phone, start_s, end_s in sounds:
        first, last = np.searchsorted(centres, (start_s, end_s))
        line[first:last] = int(phone)
    ends = 2 * np.arange(1, n_frames + 1)
    back = ends[:, None] - 1 - np.arange(PHONE_SUBFRAMES)
    return np.where(back >= 0, line[np.maximum(back, 0)], UNKNOWN)
