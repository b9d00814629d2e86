"""The gateways that a worker serves: who they are, who is still there, which slots their sessions hold.

A gateway is known by its routing id, which names one incarnation of one process. Sessions are looked up within their
gateway only: no gateway can reach into another's.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.liveness import Liveness
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


class GatewayTable:
    """All gateways that a worker serves, by routing id and by number. Silent for ``timeout_s``, one is given up."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._by_id: dict[bytes, Gateway] = {}
        self._by_number: dict[int, Gateway] = {}
        self._liveness: Liveness[bytes] = Liveness()
        self._n_ever = 0

    def __iter__(self) -> Iterator[Gateway]:
        return iter(tuple(self._by_id.values()))

    def get(self, routing_id: bytes) -> Gateway | None:
        """Return the gateway of that routing id, if it is known."""
        return self._by_id.get(routing_id)

    def numbered(self, number: int) -> Gateway:
        """Return the gateway of that number."""
        return self._by_number[number]

    def enter(self, routing_id: bytes, now: float) -> Gateway | None:
        """Return the gateway of that routing id, made known if it was not; None if there are too many."""
        gateway = self._by_id.get(routing_id)
        if gateway is None:
            if len(self._by_id) == MAX_GATEWAYS:
                return None
            self._n_ever += 1
            gateway = Gateway(routing_id, self._n_ever)
            self._by_id[routing_id] = self._by_number[gateway.number] = gateway
        self._liveness.watch(routing_id, self._timeout_s, now)
        return gateway

    def leave(self, gateway: Gateway) -> None:
        """Forget ``gateway``, whose sessions have ended."""
        assert not gateway.slots, "a gateway left its sessions behind"
        del self._by_id[gateway.routing_id], self._by_number[gateway.number]
        self._liveness.forget(gateway.routing_id)

    def heard_from(self, gateway: Gateway, now: float) -> None:
        """Count a sign of life of ``gateway``."""
        self._liveness.heard_from(gateway.routing_id, now)

    def expired(self, now: float) -> list[Gateway]:
        """Return, once, the gateways that have been silent for too long."""
        return [self._by_id[routing_id] for routing_id in self._liveness.expire(now)]

    def next_deadline(self) -> float | None:
        """Return when the first gateway will have been silent for too long."""
        return self._liveness.next_deadline()


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
