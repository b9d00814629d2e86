"""The workers a gateway knows, how busy they are, and who waits for a slot.

    request ──► first-come queue ──► better of two random workers ──OpenSlot──► granted
                    ▲      '──deadline──► RefuseSession                  │         │
                    ├────── rejected, or no answer ◄─ the worker has the last word │
                    '── before everybody new ◄──MoveSession── its worker is lost, or drains and another has room

A worker counts as alive while its own loop says so in time (``Load``); what it announced is its deadline, and two and a
half of them make it dead. Before it judges, the gateway looks at its own lag: who did not listen cannot say that
nobody spoke. What is to be done comes back as actions (``fleet_actions.py``), for the shell to perform in order.
"""

from collections import deque
from collections.abc import MutableSequence
from dataclasses import dataclass
from random import Random
from typing import Final

from asr_gateway.core.fleet_actions import (
    DropWorker,
    EndSession,
    FleetAction,
    MoveSession,
    OpenSlot,
    RefuseSession,
    WorkerId,
)
from shared.config import GatewayConfig
from shared.errors import AsrError, NoFreeSlotError, RestartingError, WorkerLostError
from shared.liveness import Liveness
from shared.messages import REJECT_DRAINING, REJECT_RESUME, Load, SessionKind, Welcome
from shared.units import SessionId

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
MAX_LAG_S: Final = 0.5
"""If this loop itself stood still for longer, nobody is judged in this turn."""

MOST_DEATHS: Final = 2
DEATHS_WITHIN_S: Final = 60.0
"""A session under which so many workers were lost within so long ends: the cause may be the session."""

_WORKER_LOST: Final = "the worker that held this session was lost; please open a new session"
WORKER_RESTARTS: Final = "the worker of this session is restarting; please open a new session"


@dataclass(slots=True, kw_only=True)
class _Worker:
    facts: Welcome
    free: int
    load: Load | None = None
    full_for: set[SessionKind]
    """Kinds that it rejected: live sessions since its last Load, files since a slot may have become free for one."""
    rejected_file_at: float = 0.0
    owes_answer: bool = False
    """It has left an Open unanswered for too long, and no Load has come since: as good as full."""

    @property
    def is_draining(self) -> bool:
        return self.load is not None and self.load.draining


@dataclass(slots=True, kw_only=True, eq=False)
class _Request:
    number: int
    session: SessionId
    module: str
    kind: SessionKind
    deadline: float
    worker: WorkerId | None = None
    """Who holds the session, or was asked to."""
    answer_deadline: float = 0.0
    """When the worker that was asked must have answered."""
    fingerprint: str = ""
    """Of the model that had the session: only one like it can go on. Empty: the session never had a slot."""
    is_moving: bool = False
    """Whether it had a slot and waits for another."""
    lost_at: tuple[float, ...] = ()
    """When it lost workers that had not said that they would go."""
    error: AsrError | None = None
    """What it ends with if it gets no other worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleLoad:
    """How busy the workers of one module are, summed."""

    n_workers: int
    used_slots: int
    total_slots: int
    free_slots: int


class Fleet:
    """Places sessions on workers. Everything that takes ``now`` may return actions."""

    def __init__(self, config: GatewayConfig, random: Random) -> None:
        self._wait_s = {SessionKind.LIVE: config.slot_wait_s, SessionKind.FILE: config.file_wait_s}
        self._move_wait_s = config.move_wait_s
        self._random = random
        self._workers: dict[WorkerId, _Worker] = {}
        self._liveness: Liveness[WorkerId] = Liveness()
        self._sessions: dict[SessionId, _Request] = {}
        self._asked: dict[SessionId, _Request] = {}
        self._n_requests = 0
        self._queues: dict[tuple[str, SessionKind], deque[_Request]] = {}
        self._moving: dict[str, list[_Request]] = {}
        """By module, in the order in which they first came."""
        self._judged_at: float | None = None

    # --- workers ------------------------------------------------------------------------------------------

    def welcomed(self, worker: WorkerId, facts: Welcome, now: float) -> list[FleetAction]:
        """A worker is there; if another incarnation of it was known, that one is lost."""
        known = self._workers.get(worker)
        if known is not None and known.facts.worker == facts.worker:
            return []
        actions = self._lose(worker, now) if known is not None else []
        self._workers[worker] = _Worker(facts=facts, free=facts.n_sessions, full_for=set())
        self._liveness.watch(worker, FIRST_LOAD_S, now)
        return actions + self._serve(facts.module, now)

    def loaded(self, worker: WorkerId, load: Load, now: float) -> list[FleetAction]:
        """A worker's loop turned and says how busy it is."""
        known = self._workers.get(worker)
        if known is None:
            return []
        has_fewer = known.load is not None and load.used < known.load.used
        if has_fewer or now >= known.rejected_file_at + FILES_AGAIN_S:
            known.full_for.clear()
        known.full_for.discard(SessionKind.LIVE)
        known.load = load
        known.free = load.free - sum(request.worker == worker for request in self._asked.values())
        known.owes_answer = False
        self._liveness.watch(worker, DEAD_AFTER_DEADLINES * load.deadline_s, now)
        return self._serve(known.facts.module, now)

    def lost(self, worker: WorkerId, now: float) -> list[FleetAction]:
        """A worker is gone; its sessions go to others, and who only waits for its answer waits on."""
        known = self._workers.get(worker)
        return self._lose(worker, now) + self._serve(known.facts.module, now) if known is not None else []

    def expire(self, now: float) -> list[FleetAction]:
        """Judge the workers, and end waits whose time is over. Hear what has arrived before you ask."""
        actions: list[FleetAction] = []
        lag_s = 0.0 if self._judged_at is None else now - self._judged_at
        self._judged_at = now
        if lag_s > MAX_LAG_S:
            for worker in self._workers:
                self._liveness.heard_from(worker, now)
        else:
            actions.extend(self._ask_others(now))
        for worker in self._liveness.expire(now):
            actions.append(DropWorker(worker=worker))
            actions.extend(self.lost(worker, now))
        for queue in self._queues.values():
            while queue and queue[0].deadline <= now:
                actions.append(self._refuse(queue.popleft()))
        for moving in self._moving.values():
            for request in [r for r in moving if r.deadline <= now]:
                moving.remove(request)
                actions.append(self._end(request))
        return actions

    # --- sessions -----------------------------------------------------------------------------------------

    def request(self, session: SessionId, module: str, kind: SessionKind, now: float) -> list[FleetAction]:
        """A session wants a slot."""
        self._n_requests += 1
        deadline = now + self._wait_s[kind]
        request = _Request(number=self._n_requests, session=session, module=module, kind=kind, deadline=deadline)
        self._sessions[session] = request
        # Nobody bounds the queue here: ``Dispatch`` counts the sessions, and ``FileTranscriber`` the files that wait.
        self._queues.setdefault((module, kind), deque()).append(request)
        return self._serve(module, now)

    def granted(self, session: SessionId, worker: WorkerId) -> None:
        """The worker has given the session a slot, be it late: while nobody else was asked it is welcome still."""
        self._asked.pop(session, None)
        request = self._sessions.get(session)
        if request is None:
            return
        if request.worker is None:
            self._queue_of(request).remove(request)
            request.worker = worker
        request.is_moving, request.fingerprint = False, self._workers[worker].facts.fingerprint

    def rejected(self, session: SessionId, reason: str, free: int, now: float) -> list[FleetAction]:
        """The worker that was asked has no slot: ask another, or wait on at the head of the queue."""
        request = self._asked.get(session)
        if request is None or request.worker is None:
            return []
        worker = self._workers[request.worker]
        worker.free = free
        if reason == REJECT_RESUME:
            self._asked.pop(session)
            return [self._end(request), *self._serve(request.module, now)]
        worker.full_for.add(request.kind)
        if request.kind is SessionKind.FILE:
            worker.rejected_file_at = now
        if reason == REJECT_DRAINING:
            worker.full_for.update(SessionKind)
        self._requeue(request)
        return self._serve(request.module, now)

    def released(self, session: SessionId) -> None:
        """A session is over."""
        request = self._sessions.pop(session, None)
        self._asked.pop(session, None)
        if request is not None and request.worker is None:
            self._queue_of(request).remove(request)

    def evicted(self, session: SessionId, *, is_restart: bool, now: float) -> list[FleetAction]:
        """The worker that has the session gives it up; ``is_restart``: because it will go itself."""
        request = self._sessions.get(session)
        if request is None or request.worker is None:
            return []
        self._asked.pop(session, None)
        return [self._move(request, is_restart=is_restart, now=now), *self._serve(request.module, now)]

    def freed(self, worker: WorkerId, now: float) -> list[FleetAction]:
        """The worker says that a slot of ours is free again."""
        known = self._workers.get(worker)
        if known is None:
            return []
        known.free = min(known.free + 1, known.facts.n_sessions)
        known.full_for.clear()
        return self._serve(known.facts.module, now)

    # --- what is known ------------------------------------------------------------------------------------

    def facts(self, worker: WorkerId) -> Welcome:
        """Return what a live worker said in its Welcome."""
        return self._workers[worker].facts

    def load_of(self, module: str) -> ModuleLoad:
        """Return how busy the live workers of a module are; those that drain or never said how busy do not count."""
        # By name: one worker may be reached at two addresses, such as IPv4 and IPv6.
        by_name = {
            worker.facts.worker: (worker.load, worker.facts)
            for worker in self._workers.values()
            if worker.facts.module == module and worker.load is not None and not worker.load.draining
        }
        loads = by_name.values()
        return ModuleLoad(
            n_workers=len(loads),
            used_slots=sum(load.used for load, _ in loads),
            total_slots=sum(facts.n_sessions for _, facts in loads),
            free_slots=sum(load.free for load, _ in loads),
        )

    # --- inside -------------------------------------------------------------------------------------------

    def _serve(self, module: str, now: float) -> list[FleetAction]:
        actions = self._serve_moving(module, now)
        for worker in [name for name, worker in self._workers.items() if worker.is_draining]:
            actions.extend(self._leave(worker, now))
        for kind in SessionKind:  # live before files
            queue = self._queues.get((module, kind))
            while queue:
                chosen = self._choose(module, kind)
                if chosen is None:
                    break
                actions.append(self._ask(queue.popleft(), chosen, now))
        return actions

    def _serve_moving(self, module: str, now: float) -> list[FleetAction]:
        actions: list[FleetAction] = []
        waiting: list[_Request] = []
        hopeless: set[tuple[str, SessionKind]] = set()
        for request in self._moving.get(module, ()):
            model = request.fingerprint, request.kind
            worker = None if model in hopeless else self._choose(module, request.kind, request.fingerprint)
            if worker is None:
                hopeless.add(model)
                waiting.append(request)
            else:
                actions.append(self._ask(request, worker, now))
        self._moving[module] = waiting
        return actions

    def _leave(self, worker: WorkerId, now: float) -> list[FleetAction]:
        """Move the sessions of a worker that drains, as far as others have room for them."""
        actions: list[FleetAction] = []
        if not self._move_wait_s:
            return actions
        for request in [r for r in self._sessions.values() if r.worker == worker and r.session not in self._asked]:
            chosen = self._choose(request.module, request.kind, request.fingerprint)
            if chosen is not None:
                self._begin_move(request, RestartingError(WORKER_RESTARTS), now)
                actions.append(MoveSession(session=request.session, is_drained=True))
                actions.append(self._ask(request, chosen, now))
        return actions

    def _ask(self, request: _Request, worker: WorkerId, now: float) -> OpenSlot:
        request.worker, request.answer_deadline = worker, now + self._patience_s(worker, request.kind)
        self._asked[request.session] = request
        self._workers[worker].free -= 1
        return OpenSlot(session=request.session, worker=worker)

    def _patience_s(self, worker: WorkerId, kind: SessionKind) -> float:
        load = self._workers[worker].load
        if load is None:
            return ANSWER_S
        if kind is SessionKind.FILE:
            return max(ANSWER_S, load.deadline_s)
        return min(ANSWER_S, LIVE_ANSWER_S + 2 * load.step_p99_ms / 1e3)

    def _choose(self, module: str, kind: SessionKind, fingerprint: str = "") -> WorkerId | None:
        candidates = [
            name
            for name, worker in self._workers.items()
            if worker.facts.module == module
            and worker.free > 0
            and kind not in worker.full_for
            and not worker.owes_answer
            and not worker.is_draining
            and fingerprint in ("", worker.facts.fingerprint)
        ]
        if not candidates:
            return None
        pair = candidates if len(candidates) == 1 else self._random.sample(candidates, 2)
        return max(pair, key=lambda name: self._workers[name].free)

    def _requeue(self, request: _Request) -> None:
        """Put a request back to where it stood: before everybody who came later."""
        self._asked.pop(request.session)
        request.worker = None
        self._put(request)

    def _put(self, request: _Request) -> None:
        queue = self._queue_of(request)
        place = next((i for i, other in enumerate(queue) if other.number > request.number), len(queue))
        queue.insert(place, request)

    def _queue_of(self, request: _Request) -> MutableSequence[_Request]:
        if request.is_moving:
            return self._moving.setdefault(request.module, [])
        return self._queues[request.module, request.kind]

    def _refuse(self, request: _Request) -> RefuseSession:
        self._sessions.pop(request.session)
        return RefuseSession(session=request.session, error=NoFreeSlotError())

    def _end(self, request: _Request) -> EndSession:
        self._sessions.pop(request.session)
        assert request.error is not None, "only who had a slot ends so"
        return EndSession(session=request.session, error=request.error)

    def _lose(self, worker: WorkerId, now: float) -> list[FleetAction]:
        known = self._workers.pop(worker)
        self._liveness.forget(worker)
        actions: list[FleetAction] = []
        for request in [r for r in self._sessions.values() if r.worker == worker]:
            if request.session in self._asked:
                self._requeue(request)
            else:
                # One that drains has said that it would go; not everybody may have got its last words.
                actions.append(self._move(request, is_restart=known.is_draining, now=now))
        return actions

    def _move(self, request: _Request, *, is_restart: bool, now: float) -> FleetAction:
        """Let a session whose worker is gone wait for another one, or end it."""
        if not is_restart:
            request.lost_at = (*(at for at in request.lost_at if at > now - DEATHS_WITHIN_S), now)
        error = RestartingError(WORKER_RESTARTS) if is_restart else WorkerLostError(_WORKER_LOST)
        if not self._move_wait_s or len(request.lost_at) >= MOST_DEATHS:
            request.error = error
            return self._end(request)
        self._begin_move(request, error, now)
        self._put(request)
        return MoveSession(session=request.session, is_drained=False)

    def _begin_move(self, request: _Request, error: AsrError, now: float) -> None:
        request.is_moving, request.worker, request.error = True, None, error
        request.deadline = now + self._move_wait_s

    def _ask_others(self, now: float) -> list[FleetAction]:
        """Queue those again who got no answer in time. Another worker may have room, and files have time to wait."""
        unanswered = [request for request in self._asked.values() if request.answer_deadline <= now]
        for request in unanswered:
            assert request.worker is not None, "who is asked has a worker"
            self._workers[request.worker].owes_answer = True
            self._requeue(request)
        modules = dict.fromkeys(request.module for request in unanswered)
        return [action for module in modules for action in self._serve(module, now)]
