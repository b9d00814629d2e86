"""Audio that waits for its step: a ring of whole frames for each slot, filled and read by rows.

    frames [B, W, 1920]          slot 0 │ ····▓▓▓▓▓··· │   head: the oldest waiting frame
                                 slot 1 │ ▓▓·······▓▓▓ │   count: how many wait

Whole rows make both directions one fancy assignment, however many slots take part.
"""

import numpy as np
from numpy.typing import NDArray

from shared.units import FRAME_BYTES, FRAME_SAMPLES, SlotIndex


def rank_among_equals(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``[n]``: for each of the ``[n]`` values, how many equal ones stand before it."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    positions = np.arange(len(values))
    starts = np.concatenate(([True], ordered[1:] != ordered[:-1]))[: len(values)]
    ranks = np.empty(len(values), np.int64)
    ranks[order] = positions - np.maximum.accumulate(np.where(starts, positions, 0))
    return ranks


def ring_bytes(n_slots: int, window: int) -> int:
    """Return how many bytes of audio ``n_slots`` rings of ``window`` frames hold."""
    return n_slots * window * FRAME_BYTES


class PcmRings:
    """``n_slots`` rings of ``window`` frames each. ``count`` is ``[n_slots]``, not to be written by others."""

    def __init__(self, n_slots: int, window: int) -> None:
        self.window = window
        self.count = np.zeros(n_slots, np.int64)
        self._head = np.zeros(n_slots, np.int64)
        self._arrived_s = np.zeros((n_slots, window), np.float64)
        self._frames = np.zeros((n_slots, window, FRAME_SAMPLES), np.float32)
        self._flat = self._frames.reshape(n_slots * window, FRAME_SAMPLES)
        self._first_cells = np.arange(n_slots) * window
        self._scratch = np.zeros((n_slots // 2 + 1, FRAME_SAMPLES), np.float32)

    def push(
        self,
        slots: NDArray[np.int64],
        pcm: NDArray[np.float32],
        now: float,
        *,
        ranks: NDArray[np.int64] | None = None,
    ) -> None:
        """Append ``pcm`` ``[n, 1920]``, arrived ``now``, to the rings of ``slots`` ``[n]``.

        A slot may come several times, its frames in order; ``ranks`` are ``rank_among_equals(slots)``, if known.

        The caller sees to it that no ring overflows: credit does.
        """
        if ranks is None:
            ranks = rank_among_equals(slots)
        assert not len(slots) or int((self.count[slots] + ranks).max()) < self.window, "more frames than credit"
        cells = (self._head[slots] + self.count[slots] + ranks) % self.window
        self._frames[slots, cells] = pcm
        self._arrived_s[slots, cells] = now
        np.add.at(self.count, slots, 1)

    def oldest_s(self, slots: NDArray[np.int64]) -> float | None:
        """Return when the oldest of the frames arrived that wait for ``slots`` (none empty); None without slots."""
        return float(self._arrived_s[slots, self._head[slots]].min()) if len(slots) else None

    def pop(self, slots: NDArray[np.int64], out: NDArray[np.float32]) -> None:
        """Move the oldest frame of each of ``slots`` (each once, none empty) into its row of ``out`` ``[B, 1920]``.

        Other rows may change too, to whatever lay in a ring.
        """
        assert not len(slots) or int(self.count[slots].min()) > 0, "popped an empty ring"
        # "clip" below, though every index is right: "raise" would have numpy copy first.
        if 2 * len(slots) >= len(self.count):
            # Some frames in vain are less than all of them twice.
            np.take(self._flat, self._first_cells + self._head, axis=0, out=out, mode="clip")
        else:
            cells = self._first_cells[slots] + self._head[slots]
            out[slots] = np.take(self._flat, cells, axis=0, out=self._scratch[: len(slots)], mode="clip")
        self._head[slots] = (self._head[slots] + 1) % self.window
        self.count[slots] -= 1

    def clear(self, slot: SlotIndex) -> None:
        """Forget what waits for ``slot``."""
        self.count[slot] = 0
