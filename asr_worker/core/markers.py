"""When each marker is due: a heap over all leases, ordered by due step, arrival order among equals.

Due steps count the steps of one lease, not those of the worker: a session that stalls must not get its marker early
because others kept the model busy. The heap can only be ordered by the worker's steps, so its key is the earliest
worker step at which the marker can be due, as if the lease took part in every step from now on:

    key = worker step + (due step of the lease - steps of the lease)

If the lease missed steps meanwhile, the marker is not due when its key comes up. It is parked on its slot then, and
goes back into the heap with a new key as soon as that slot steps again: a stalled session costs nothing.
"""

import heapq
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from shared.units import SlotIndex

M = TypeVar("M")


@dataclass(slots=True, order=True)
class _Entry(Generic[M]):
    key: int
    arrival: int
    slot: SlotIndex = field(compare=False)
    due: int = field(compare=False)
    lease: int = field(compare=False)
    """Which lease of the slot it belongs to, counted here."""
    marker: M = field(compare=False)


class MarkerHeap(Generic[M]):
    """Pending markers of all slots; ``steps`` below is always ``[n_slots]``, the steps of each lease."""

    def __init__(self, n_slots: int) -> None:
        self._heap: list[_Entry[M]] = []
        self._parked: dict[SlotIndex, list[_Entry[M]]] = {}
        self._is_parked = np.zeros(n_slots, np.bool_)
        self._pending = np.zeros(n_slots, np.int64)
        self._lease = np.zeros(n_slots, np.int64)
        self._n_stale = 0
        """Entries of the heap whose lease has ended."""
        self._arrivals = 0

    def pending(self, slot: SlotIndex) -> int:
        """Return how many markers of ``slot`` are not due yet."""
        return int(self._pending[slot])

    def push(self, slot: SlotIndex, due: int, marker: M, *, steps: int, worker_step: int) -> None:
        """Add ``marker``, due when the lease of ``slot``, now at ``steps``, has made ``due`` steps."""
        lease = int(self._lease[slot])
        entry = _Entry(worker_step + max(0, due - steps), self._arrivals, slot, due, lease, marker)
        self._arrivals += 1
        self._pending[slot] += 1
        heapq.heappush(self._heap, entry)

    def pop_due(
        self, stepped: NDArray[np.int64], steps: NDArray[np.int64], worker_step: int
    ) -> list[tuple[SlotIndex, M]]:
        """Return the markers that the worker's step number ``worker_step`` made due, in order.

        ``stepped`` are the slots that took part in it; ``steps`` already counts it.
        """
        for slot in stepped[self._is_parked[stepped]]:
            self._unpark(SlotIndex(int(slot)), int(steps[slot]), worker_step)
        due: list[tuple[SlotIndex, M]] = []
        while self._heap and self._heap[0].key <= worker_step:
            entry = heapq.heappop(self._heap)
            if entry.lease != self._lease[entry.slot]:
                self._n_stale -= 1
            elif entry.due <= steps[entry.slot]:
                self._pending[entry.slot] -= 1
                due.append((entry.slot, entry.marker))
            else:
                self._parked.setdefault(entry.slot, []).append(entry)
                self._is_parked[entry.slot] = True
        return due

    def drop(self, slot: SlotIndex) -> None:
        """Forget the markers of ``slot``: its lease has ended."""
        if not self._pending[slot]:
            return
        # Looking for them in the heap would take a worker that loses a full gateway seconds: they are told when met.
        self._n_stale += int(self._pending[slot]) - len(self._parked.pop(slot, ()))
        self._pending[slot] = 0
        self._is_parked[slot] = False
        self._lease[slot] += 1
        if 2 * self._n_stale > len(self._heap):
            self._heap = [entry for entry in self._heap if entry.lease == self._lease[entry.slot]]
            heapq.heapify(self._heap)
            self._n_stale = 0

    def _unpark(self, slot: SlotIndex, steps: int, worker_step: int) -> None:
        self._is_parked[slot] = False
        for entry in self._parked.pop(slot):
            entry.key = worker_step + max(0, entry.due - steps)
            heapq.heappush(self._heap, entry)
