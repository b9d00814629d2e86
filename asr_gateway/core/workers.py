"""The workers that a gateway knows: what each has said of itself, and which is asked for a slot next.

A worker counts as alive while its own loop says so in time (``Load``); what it announced is its deadline, and two and a
half of them make it dead.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from random import Random
from typing import Final

from asr_gateway.core.fleet_actions import WorkerId
from shared.liveness import Liveness
from shared.messages import REJECT_DRAINING, Load, SessionKind, Welcome

DEAD_AFTER_DEADLINES: Final = 2.5
FIRST_LOAD_S: Final = 5.0
"""A welcomed worker's first Load has to come within this time."""
ANSWER_S: Final = 2.0
"""A worker has this long to answer an Open: it may be in the middle of a slow step. For a file, which can wait, at
least this long: as long as the worker may be silent. Then others are asked, if they have room."""
LIVE_ANSWER_S: Final = 0.4
"""For a live session no longer than this and two of the worker's slow steps: its client will not wait."""
FILES_AGAIN_S: Final = 1.0
"""How long a worker that rejected a file is asked for no other, unless one of its sessions ends: its share of files may
be used up, which ``Load.free`` does not tell."""


@dataclass(slots=True, kw_only=True)
class Worker:
    """One live worker."""

    facts: Welcome
    free: int
    """Slots to be had, as far as this gateway knows."""
    load: Load | None = None
    full_for: set[SessionKind] = field(default_factory=set)
    """Kinds that it rejected: live sessions since its last Load, files since a slot may have become free for one."""
    rejected_file_at: float = 0.0
    owes_answer: bool = False
    """It has left an Open unanswered for too long, and no Load has come since: as good as full."""

    @property
    def is_draining(self) -> bool:
        """Whether it has said that it will go."""
        return self.load is not None and self.load.draining

    def loaded(self, load: Load, *, n_asked: int, now: float) -> None:
        """It says how busy it is, and cannot know of ``n_asked`` sessions that it is being asked for."""
        has_fewer = self.load is not None and load.used < self.load.used
        if has_fewer or now >= self.rejected_file_at + FILES_AGAIN_S:
            self.full_for.clear()
        self.full_for.discard(SessionKind.LIVE)
        self.load = load
        self.free = load.free - n_asked
        self.owes_answer = False

    def rejected(self, kind: SessionKind, reason: str, free: int, now: float) -> None:
        """It has no slot for a session that it was asked for."""
        self.free = free
        self.full_for.add(kind)
        if kind is SessionKind.FILE:
            self.rejected_file_at = now
        if reason == REJECT_DRAINING:
            self.full_for.update(SessionKind)

    def freed(self) -> None:
        """A slot is free again."""
        self.free = min(self.free + 1, self.facts.n_sessions)
        self.full_for.clear()

    def patience_s(self, kind: SessionKind) -> float:
        """Return how long it has to answer an Open."""
        if self.load is None:
            return ANSWER_S
        if kind is SessionKind.FILE:
            return max(ANSWER_S, self.load.deadline_s)
        return min(ANSWER_S, LIVE_ANSWER_S + 2 * self.load.step_p99_ms / 1e3)

    def may_take(self, module: str, kind: SessionKind, fingerprint: str) -> bool:
        """Return whether it may be asked; ``fingerprint``: of the only model that will do, empty: any of the module."""
        return (
            self.facts.module == module
            and self.free > 0
            and kind not in self.full_for
            and not self.owes_answer
            and not self.is_draining
            and fingerprint in ("", self.facts.fingerprint)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleLoad:
    """How busy the workers of one module are, summed."""

    n_workers: int
    used_slots: int
    total_slots: int
    free_slots: int


class Workers(dict[WorkerId, Worker]):
    """All live workers by the endpoint at which they are reached."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random
        self._liveness: Liveness[WorkerId] = Liveness()

    def add(self, worker: WorkerId, facts: Welcome, now: float) -> None:
        """A worker has said Welcome."""
        self[worker] = Worker(facts=facts, free=facts.n_sessions)
        self._liveness.watch(worker, FIRST_LOAD_S, now)

    def remove(self, worker: WorkerId) -> Worker:
        """A worker is gone; return what was known of it."""
        self._liveness.forget(worker)
        return self.pop(worker)

    def heard_from(self, worker: WorkerId, deadline_s: float, now: float) -> None:
        """A worker says that its next Load comes within ``deadline_s``."""
        self._liveness.watch(worker, DEAD_AFTER_DEADLINES * deadline_s, now)

    def excuse_all(self, now: float) -> None:
        """Nobody was listened to until now."""
        for worker in self:
            self._liveness.heard_from(worker, now)

    def dead(self, now: float) -> list[WorkerId]:
        """Return the workers that have been silent for too long."""
        return list(self._liveness.expire(now))

    def draining(self, module: str) -> list[WorkerId]:
        """Return the workers of a module that will go."""
        return [name for name, worker in self.items() if worker.is_draining and worker.facts.module == module]

    def choose(
        self, module: str, kind: SessionKind, fingerprint: str = "", *, avoid: Collection[str] = ()
    ) -> WorkerId | None:
        """Return the better of two random workers that may be asked, None if none may.

        Those with a name that is in ``avoid`` are asked if there are no others.
        """
        candidates = [name for name, worker in self.items() if worker.may_take(module, kind, fingerprint)]
        if avoid:
            candidates = [name for name in candidates if self[name].facts.worker not in avoid] or candidates
        if not candidates:
            return None
        pair = candidates if len(candidates) == 1 else self._random.sample(candidates, 2)
        return max(pair, key=lambda name: self[name].free)

    def n_free(self, module: str) -> int:
        """Return how many slots those of a module have, as far as this gateway knows."""
        return sum(max(0, w.free) for w in self.values() if w.facts.module == module and not w.is_draining)

    def load_of(self, module: str) -> ModuleLoad:
        """Return how busy those of a module are; those that drain or never said how busy do not count."""
        # By name: one worker may be reached at two addresses, such as IPv4 and IPv6.
        by_name = {
            worker.facts.worker: (worker.load, worker.facts)
            for worker in self.values()
            if worker.facts.module == module and worker.load is not None and not worker.load.draining
        }
        loads = by_name.values()
        return ModuleLoad(
            n_workers=len(loads),
            used_slots=sum(load.used for load, _ in loads),
            total_slots=sum(facts.n_sessions for _, facts in loads),
            free_slots=sum(load.free for load, _ in loads),
        )
