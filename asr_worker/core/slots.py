"""Who holds which slot: the lowest free one first, and a generation that tells one lease of a slot from the next.

A lease is current from ``acquire`` until ``release`` or ``renew``. Whoever keeps a lease (or its two numbers) across
a model step asks afterwards whether it is still current; a result for a lease that is not belongs to nobody.
"""

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.units import SlotIndex


@dataclass(frozen=True, slots=True)
class Lease:
    """One session's right to one slot."""

    slot: SlotIndex
    generation: int


class StaleLeaseError(ValueError):
    """The lease has ended: its slot was released or renewed since."""


class SlotAllocator:
    """Leases the slots ``0 .. n_slots - 1``; O(log n_slots) for each call."""

    def __init__(self, n_slots: int) -> None:
        if n_slots < 1:
            message = f"a pool needs at least 1 slot, not {n_slots}"
            raise ValueError(message)
        self._free = [SlotIndex(slot) for slot in range(n_slots)]  # a sorted list is a heap
        self._taken = np.zeros(n_slots, np.bool_)
        self._generations = np.zeros(n_slots, np.int64)

    @property
    def n_slots(self) -> int:
        """All slots."""
        return len(self._taken)

    @property
    def n_free(self) -> int:
        """Slots that ``acquire`` can still give."""
        return len(self._free)

    @property
    def n_used(self) -> int:
        """Slots that are leased."""
        return self.n_slots - self.n_free

    @property
    def generations(self) -> NDArray[np.int64]:
        """``[n_slots]``: the current or last generation of each slot; odd while it is leased. Not to be written."""
        return self._generations

    def acquire(self) -> Lease | None:
        """Lease the lowest free slot, or return None if there is none."""
        if not self._free:
            return None
        slot = heapq.heappop(self._free)
        self._taken[slot] = True
        self._generations[slot] += 1
        return Lease(slot, int(self._generations[slot]))

    def release(self, lease: Lease) -> None:
        """End ``lease``; its slot is free.

        Raises:
            StaleLeaseError: it had ended before.
        """
        self._check(lease)
        self._taken[lease.slot] = False
        self._generations[lease.slot] += 1
        heapq.heappush(self._free, lease.slot)

    def renew(self, lease: Lease) -> Lease:
        """End ``lease`` and lease the same slot again: results under way for the old one are void.

        Raises:
            StaleLeaseError: it had ended before.
        """
        self._check(lease)
        self._generations[lease.slot] += 2
        return Lease(lease.slot, int(self._generations[lease.slot]))

    def is_current(self, lease: Lease) -> bool:
        """Return whether ``lease`` has not ended."""
        return bool(self._taken[lease.slot]) and int(self._generations[lease.slot]) == lease.generation

    def _check(self, lease: Lease) -> None:
        if not self.is_current(lease):
            message = f"{lease} has ended; slot {lease.slot} is at generation {self._generations[lease.slot]}"
            raise StaleLeaseError(message)
