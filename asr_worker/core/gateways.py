"""The gateways that a worker serves: which sessions each has here, and in which slots.

A gateway is known by its routing id, which names one incarnation of one process. Sessions are looked up within their
gateway only: no gateway can reach into another's.
"""

from collections import OrderedDict
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.units import SessionId, SlotIndex

MAX_GATEWAYS: Final = 1_024
"""Gateway incarnations that one worker serves at once."""

UNKNOWN: Final = -1
"""Stands for a slot where a session has none."""


class Gateway:
    """One gateway incarnation. ``number`` is never used again for another."""

    def __init__(self, routing_id: bytes, number: int) -> None:
        self.routing_id = routing_id
        self.number = number
        self.slots: dict[SessionId, SlotIndex] = {}
        self._table: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    def add(self, session: SessionId, slot: SlotIndex) -> None:
        """Remember that ``session`` holds ``slot``."""
        self.slots[session] = slot
        self._table = None

    def remove(self, session: SessionId) -> None:
        """Forget ``session``."""
        del self.slots[session]
        self._table = None

    def find(self, sessions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return ``[n]``: the slot of each of the ``[n]`` sessions, or UNKNOWN."""
        if not self.slots:
            return np.full(len(sessions), UNKNOWN, np.int64)
        if self._table is None:
            known = np.fromiter(self.slots.keys(), np.int64, len(self.slots))
            slots = np.fromiter(self.slots.values(), np.int64, len(self.slots))
            order = np.argsort(known)
            self._table = known[order], slots[order]
        known, slots = self._table
        places = np.minimum(np.searchsorted(known, sessions), len(known) - 1)
        return np.where(known[places] == sessions, slots[places], UNKNOWN)


class OnceInAWhile:
    """Says yes to each key once in ``period_s``: so that a stream of bad messages gets one answer, not as many."""

    def __init__(self, period_s: float, max_keys: int = 4_096) -> None:
        self._period_s = period_s
        self._max_keys = max_keys
        self._last_s: OrderedDict[tuple[int, ...], float] = OrderedDict()

    def allows(self, key: tuple[int, ...], now: float) -> bool:
        """Return whether ``key`` was not allowed within the last period; if so, it is now."""
        last_s = self._last_s.get(key)
        if last_s is not None and now < last_s + self._period_s:
            return False
        self._last_s[key] = now
        self._last_s.move_to_end(key)
        if len(self._last_s) > self._max_keys:
            self._last_s.popitem(last=False)
        return True
