"""From words with times to what the model must say at every step.

With delay D, step s hears audio up to s frames and speaks of the moment (s + 1 - D) / 12.5 s. A word that starts in
frame b and ends in frame e becomes

    step     b+D-1    b+D     b+D+1 .. e+D-2    e+D-1
    token      0     pieces          3             0

The first 0 gives the word its start, the last one its end. Words that touch share one 0. Foreign words are 3
throughout.

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


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What to predict for one utterance of F frames.

    ``text`` ``[F + 1]`` token of each step; ``weight`` ``[F + 1]`` of its loss; ``pause`` ``[F + 1, heads]`` 1 where
    speech comes within the horizon; ``phones`` ``[F, 6]`` sounds of the 40 ms before the end of each frame, latest
    first.
    """

    text: np.ndarray
    weight: np.ndarray
    pause: np.ndarray
    phones: np.ndarray


def layout(words: Iterable[tuple[Sequence[int], float, float]], n_frames: int, delay: int) -> np.ndarray:
    """Return the token of every step, ``[n_frames + 1]``.

    Args:
        words: pieces, start and end in seconds of each word, in order.
        n_frames: F.
        delay: D.
    """
    text = np.full(n_frames + 1, PAD, dtype=np.int64)
    free_from = 0

    def put(step: int, token: int) -> None:
        if 0 <= step <= n_frames:
            text[step] = token

    for pieces, start_s, end_s in words:
        begin = max(round(start_s * FRAMES_PER_S), free_from)
        end = max(round(end_s * FRAMES_PER_S), begin + len(pieces) + 1)
        put(begin + delay - 1, END_OF_WORD)
        for offset, piece in enumerate(pieces):
            put(begin + delay + offset, int(piece))
        put(end + delay - 1, END_OF_WORD)
        free_from = end
    return text


@dataclass(frozen=True, kw_only=True)
class PadWeights:
    """How much a step of padding counts beside one of a word: the less, the sooner the model says something."""

    in_silence: float = 0.5
    in_foreign_words: float = 1.5
    """Keeping silent while somebody speaks is the hard part of keeping silent."""


def targets(words: np.ndarray, sounds: np.ndarray, n_frames: int, delay: int, pads: PadWeights) -> Targets:
    """Return all targets; ``words`` and ``sounds`` are rows of (id, start, end in s)."""
    known = [((int(token),), start_s, end_s) for token, start_s, end_s in words if token >= 0]
    text = layout(known, n_frames, delay)
    moments = (np.arange(n_frames + 1) + 1 - delay) / FRAMES_PER_S
    return Targets(
        text=text,
        weight=_weights(text, words, moments, pads),
        pause=_pauses(words, moments),
        phones=_phones(sounds, n_frames),
    )


def _weights(text: np.ndarray, words: np.ndarray, moments: np.ndarray, pads: PadWeights) -> np.ndarray:
    weight = np.where(text == PAD, pads.in_silence, 1.0).astype(np.float32)
    for token, start_s, end_s in words:
        if token < 0:
            at = (moments >= start_s - 0.1) & (moments < end_s + 0.1) & (text == PAD)
            weight[at] = pads.in_foreign_words
    return weight


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
