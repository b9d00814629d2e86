"""One session as the fleet sees it, and the queues of those that wait until a worker may be asked for a slot.

Who had a slot and lost it comes before everybody new; of the new ones live sessions come before files. Within each of
these whoever came first is first.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from asr_gateway.core.fleet_actions import WorkerId
from shared.errors import AsrError
from shared.messages import SessionKind
from shared.units import SessionId

DEATHS_WITHIN_S: Final = 60.0
"""How long it is held against a session that a worker was lost under it."""


@dataclass(slots=True, kw_only=True, eq=False)
class Placement:
    """Who has a session, or what it waits for."""

    number: int
    """Counts the sessions in the order in which they came."""
    session: SessionId
    module: str
    kind: SessionKind
    deadline: float
    """Until when it waits."""
    worker: WorkerId | None = None
    """Who holds the session, or was asked to; None: it stands in a queue."""
    answer_deadline: float = 0.0
    """When the worker that was asked must have answered."""
    fingerprint: str = ""
    """Of the model that had the session: only one like it can go on. Empty: the session never had a slot."""
    is_moving: bool = False
    """Whether it had a slot and waits for another."""
    deaths: tuple[tuple[str, float], ...] = ()
    """Which workers it has lost that had not said that they would go, and when."""
    error: AsrError | None = None
    """What it ends with if it gets no other worker."""

    def died(self, worker: str, now: float) -> None:
        """A worker was lost under it that had not said that it would go."""
        self.deaths = (*(death for death in self.deaths if death[1] > now - DEATHS_WITHIN_S), (worker, now))

    @property
    def lost_workers(self) -> list[str]:
        """Those that may have died of it, or given it up for a fault."""
        return [worker for worker, _ in self.deaths]

    def lives(self, worker: str) -> None:
        """The worker was only out of reach for a while."""
        self.deaths = tuple(death for death in self.deaths if death[0] != worker)


class Queues:
    """All sessions that wait for a worker to be asked."""

    def __init__(self) -> None:
        self._new: dict[tuple[str, SessionKind], deque[Placement]] = {}
        self._moving: dict[str, list[Placement]] = {}

    def put(self, placement: Placement) -> None:
        """Let a session wait where it belongs: before everybody who came later."""
        queue = self._queue_of(placement)
        place = len(queue)
        while place and queue[place - 1].number > placement.number:
            place -= 1
        queue.insert(place, placement)

    def remove(self, placement: Placement) -> None:
        """A session that waits does so no more."""
        self._queue_of(placement).remove(placement)

    def first_new(self, module: str, kind: SessionKind) -> Placement | None:
        """Return the session whose turn it is among those that had no slot yet."""
        queue = self._new.get((module, kind))
        return queue[0] if queue else None

    def moving(self, module: str) -> list[Placement]:
        """Return the sessions that wait for another slot, those first that came first."""
        return list(self._moving.get(module, ()))

    @property
    def modules_moving(self) -> list[str]:
        """The modules of sessions that wait for another slot."""
        return [module for module, queue in self._moving.items() if queue]

    def expire(self, now: float) -> Iterator[Placement]:
        """Remove and yield the sessions that have waited for too long."""
        for queue in self._new.values():
            # Whoever came first has waited longest, and all of a queue may wait equally long.
            while queue and queue[0].deadline <= now:
                yield queue.popleft()
        for moving in self._moving.values():
            for placement in [p for p in moving if p.deadline <= now]:
                moving.remove(placement)
                yield placement

    def _queue_of(self, placement: Placement) -> deque[Placement] | list[Placement]:
        # Nobody bounds these here: ``Dispatch`` counts the sessions, and ``FileTranscriber`` the files that wait.
        if placement.is_moving:
            return self._moving.setdefault(placement.module, [])
        return self._new.setdefault((placement.module, placement.kind), deque())
