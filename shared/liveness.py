"""Liveness: who has been silent for too long. Time is passed in; nothing here reads a clock.

The peer's own loop must be what is heard, so that silence means a stuck loop and not just a dead socket.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

Peer = TypeVar("Peer", bound=Hashable)


class Liveness(Generic[Peer]):
    """Deadlines of many peers, each renewed by whatever is heard from that peer."""

    def __init__(self) -> None:
        self._last_heard_s: dict[Peer, float] = {}
        self._timeout_s: dict[Peer, float] = {}

    def watch(self, peer: Peer, timeout_s: float, now: float) -> None:
        """Begin to watch ``peer``, or give it a new timeout; counts as having heard from it."""
        self._last_heard_s[peer] = now
        self._timeout_s[peer] = timeout_s

    def forget(self, peer: Peer) -> None:
        """Stop watching ``peer``; unknown peers are ignored."""
        self._last_heard_s.pop(peer, None)
        self._timeout_s.pop(peer, None)

    def heard_from(self, peer: Peer, now: float) -> None:
        """Renew the deadline of ``peer``; unknown peers are ignored."""
        if peer in self._last_heard_s:
            self._last_heard_s[peer] = now

    def next_deadline(self) -> float | None:
        """Return when the first peer will be late, or None if nobody is watched."""
        return min((heard + self._timeout_s[peer] for peer, heard in self._last_heard_s.items()), default=None)

    def expire(self, now: float) -> list[Peer]:
        """Forget and return the peers whose deadline has passed, in the order in which they were watched."""
        late = [peer for peer, heard in self._last_heard_s.items() if now >= heard + self._timeout_s[peer]]
        for peer in late:
            self.forget(peer)
        return late
