"""Plan and result of a step as words of 32 bits, so that each crosses the bus once. Numpy only.

A step of n rows uses a contiguous beginning of the plan, whose layout depends on n:

    plan    | n x 1920 samples (float32) | n x (slot, active, reset, encode, forced text, codes)  (int32) |
    result  | n x ( text, codes (int32) | pauses (float32) ) |

A row of the step is some slot: those that step come first, then those that are only reset, then padding, which
stands for the scratch slot behind all others.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from asr_worker.core.model import NO_TOKEN, StepPlan, StepResult
from shared.units import FRAME_SAMPLES

N_FLAG_WORDS: Final = 5
SLOT, ACTIVE, RESET, ENCODE, TEXT = range(N_FLAG_WORDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which slots a step takes: ``slots`` ``[m]``, of which the first ``n_active`` step."""

    slots: NDArray[np.int64]
    n_active: int
    has_reset: bool


def select(plan: StepPlan) -> Selection:
    """Return the slots that step, in rising order, and behind them those that are only reset."""
    active = np.flatnonzero(plan.active)
    if not plan.reset.any():
        return Selection(slots=active, n_active=len(active), has_reset=False)
    only_reset = np.flatnonzero(plan.reset & ~plan.active)
    return Selection(slots=np.concatenate((active, only_reset)), n_active=len(active), has_reset=True)


class PlanWords:
    """Writes plans into the host's buffer.

    Args:
        buffer: 1-D float32 of ``plan_words(n_slots, n_codebooks)``.
        n_slots: B; also the number of the scratch slot.
        n_codebooks: codes for each frame.
    """

    def __init__(self, buffer: NDArray[np.float32], *, n_slots: int, n_codebooks: int) -> None:
        self._buffer = buffer
        self._n_slots = n_slots
        self._n_codebooks = n_codebooks

    def write(self, plan: StepPlan, slots: NDArray[np.int64], n_rows: int) -> None:
        """Write the rows of ``slots``, one at least, then padding up to ``n_rows``."""
        n = len(slots)
        samples, words = self._views(n_rows)
        if n == self._n_slots and (slots[:-1] < slots[1:]).all():
            samples[:] = plan.pcm
        else:
            # "clip" only because the default copies twice; the slots are in range.
            np.take(plan.pcm, slots, axis=0, out=samples[:n], mode="clip")
        words[:n, SLOT] = slots
        words[:n, ACTIVE] = plan.active[slots]
        words[:n, RESET] = plan.reset[slots]
        words[:n, ENCODE] = _encodes(plan)[slots]
        words[:n, TEXT] = NO_TOKEN if plan.text is None else plan.text[slots]
        words[:n, N_FLAG_WORDS:] = NO_TOKEN if plan.codes is None else plan.codes[slots]
        self._pad(words[n:])

    def write_padding(self, n_rows: int) -> None:
        """Write a plan in which no slot takes part."""
        self._pad(self._views(n_rows)[1])

    def _views(self, n_rows: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        split = n_rows * FRAME_SAMPLES
        words = self._buffer[split : plan_words(n_rows, self._n_codebooks)].view(np.int32)
        return self._buffer[:split].reshape(n_rows, FRAME_SAMPLES), words.reshape(n_rows, -1)

    def _pad(self, words: NDArray[np.int32]) -> None:
        words[:] = NO_TOKEN
        words[:, SLOT] = self._n_slots
        words[:, ACTIVE : ENCODE + 1] = 0


class ResultWords:
    """Reads results from the host's buffer ``[B, 1 + n_codebooks + n_heads]`` float32."""

    def __init__(self, buffer: NDArray[np.float32], *, n_codebooks: int) -> None:
        n_words = 1 + n_codebooks
        self._words = buffer.view(np.int32)[:, :n_words]
        self._pauses = buffer[:, n_words:]

    def read(self, into: StepResult, slots: NDArray[np.int64]) -> None:
        """Copy what the rows of ``slots`` said; other slots keep what they had."""
        n = len(slots)
        into.text[slots] = self._words[:n, 0]
        into.codes[slots] = self._words[:n, 1:]
        into.pauses[slots] = self._pauses[:n]


def plan_words(n_rows: int, n_codebooks: int) -> int:
    """Return how many words a plan of ``n_rows`` takes."""
    return n_rows * (FRAME_SAMPLES + N_FLAG_WORDS + n_codebooks)


def _encodes(plan: StepPlan) -> NDArray[np.bool_]:
    """Return ``[B]``, which rows' codec steps. A row without given codes needs its own, whatever the plan says."""
    if plan.encode is None or plan.codes is None:
        return plan.active
    return plan.active & (plan.encode | (plan.codes[:, 0] < 0))
