"""From answers to figures: word errors, false words, time errors, latency, pause heads."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import numpy as np

from training.exam import seconds
from training.scoring import Errors, align, errors
from training.served import Answer
from training.targets import FRAMES_PER_S, HORIZONS_S
from training.testset import Recording


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The figures of one set for one checkpoint; times in milliseconds, None where nothing was measured."""

    errors: Errors
    n_foreign: int
    n_false: int
    audio_s: float
    start_error_ms: float | None
    stop_error_ms: float | None

    @property
    def false_per_100(self) -> float | None:
        """Return false words per 100 foreign ones."""
        return 100 * self.n_false / self.n_foreign if self.n_foreign else None


def figures(recordings: Sequence[Recording], answers: Sequence[Answer]) -> Figures:
    """Score one set."""
    total, starts, stops = Errors(), list[float](), list[float]()
    for recording, answer in zip(recordings, answers, strict=True):
        said, heard = [w.text for w in recording.words], [w.text for w in answer.words]
        total += errors(said, heard)
        for i, j in align(said, heard):
            if i is None or j is None or said[i] != heard[j]:
                continue
            true, word = recording.words[i], answer.words[j]
            starts.append(1000 * abs(word.start_s - true.start_s))
            if word.stop_s is not None:
                stops.append(1000 * abs(word.stop_s - true.end_s))
    return Figures(
        errors=total,
        n_foreign=sum(recording.n_foreign for recording in recordings),
        n_false=total.insertions,
        audio_s=seconds(recordings),
        start_error_ms=median(starts) if starts else None,
        stop_error_ms=median(stops) if stops else None,
    )


def latencies_ms(recordings: Sequence[Recording], answers: Sequence[Answer]) -> list[float]:
    """Return, for every right word of answers taken at real-time speed, how long after its end it came.

    The client sends a recording's frame when its time begins; a microphone has it only when it ends, so one frame is
    added.
    """
    found = []
    for recording, answer in zip(recordings, answers, strict=True):
        said, heard = [w.text for w in recording.words], [w.text for w in answer.words]
        for i, j in align(said, heard):
            if i is not None and j is not None and said[i] == heard[j]:
                found.append(1000 * (answer.words[j].after_s + 1 / FRAMES_PER_S - recording.words[i].end_s))
    return found


PAUSE_NAMES: Final = tuple(f"{horizon_s:g} s" for horizon_s in HORIZONS_S)


def pause_auc(recordings: Sequence[Recording], answers: Sequence[Answer], delay: int) -> list[float]:
    """Return for each pause head the chance that it ranks a true pause above a moment before speech."""
    scores: list[np.ndarray] = []
    truths: list[np.ndarray] = []
    for recording, answer in zip(recordings, answers, strict=True):
        heads = np.array(answer.pauses)
        moments = (np.arange(len(heads)) + 1 - delay) / FRAMES_PER_S
        ends_s = len(recording.pcm) / 24_000
        truth = np.ones((len(heads), len(HORIZONS_S)), dtype=bool)
        for word in recording.words:
            for head, horizon_s in enumerate(HORIZONS_S):
                truth[(word.start_s < moments + horizon_s) & (word.end_s > moments), head] = False
        inside = (moments >= 0) & (moments < ends_s)
        scores.append(heads[inside])
        truths.append(truth[inside])
    score, truth = np.concatenate(scores), np.concatenate(truths)
    return [_auc(score[:, head], truth[:, head]) for head in range(score.shape[1])]


def _auc(score: np.ndarray, truth: np.ndarray) -> float:
    order = np.argsort(score, kind="stable")
    ranks = np.empty(len(score))
    _, inverse, counts = np.unique(score[order], return_inverse=True, return_counts=True)
    means = np.cumsum(counts) - (counts - 1) / 2
    ranks[order] = means[inverse]
    positive = int(truth.sum())
    negative = len(truth) - positive
    if not positive or not negative:
        return float("nan")
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))
