"""Who waits for a slot, and who has one where.

    request ──► first-come queue ──► better of two random workers ──OpenSlot──► granted
                    ▲      '──deadline──► RefuseSession                  │         │
                    ├────── rejected, or no answer ◄─ the worker has the last word │
                    '── before everybody new ◄──MoveSession── its worker is lost, or drains and another has room

Which worker is asked, and which counts as dead, is told in ``workers.py``. Before it judges, the gateway looks at its
own lag: who did not listen cannot say that nobody spoke. What is to be done comes back as actions
(``fleet_actions.py``), for the shell to perform in order.
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
    ReserveSlot,
    WorkerId,
)
from asr_gateway.core.workers import ANSWER_S, ModuleLoad, Workers
from shared.config import GatewayConfig
from shared.errors import AsrError, NoFreeSlotError, RestartingError, WorkerLostError
from shared.messages import REJECT_RESUME, Load, SessionKind, Welcome
from shared.units import SessionId

MAX_LAG_S: Final = 0.5
"""If this loop itself stood still for longer, nobody is judged in this turn."""

MOVES_AT_ONCE: Final = 16
"""Sessions that are opened elsewhere in one turn, and that look for a slot before they leave: each brings its log, and
the others are not to wait for hundreds of them."""

MOST_DEATHS: Final = 2
DEATHS_WITHIN_S: Final = 60.0
"""A session under which so many workers were lost within so long ends: the cause may be the session."""

_WORKER_LOST: Final = "the worker that held this session was lost; please open a new session"
_WORKER_RESTARTS: Final = "the worker of this session is restarting; please open a new session"


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
    deaths: tuple[tuple[str, float], ...] = ()
    """Which workers it has lost that had not said that they would go, and when."""
    error: AsrError | None = None
    """What it ends with if it gets no other worker."""


class Fleet:
    """Places sessions on workers. Everything that takes ``now`` may return actions."""

    def __init__(self, config: GatewayConfig, random: Random) -> None:
        self._wait_s = {SessionKind.LIVE: config.slot_wait_s, SessionKind.FILE: config.file_wait_s}
        self._move_wait_s = config.move_wait_s
        self._workers = Workers(random)
        self._sessions: dict[SessionId, _Request] = {}
        self._asked: dict[SessionId, _Request] = {}
        self._n_requests = 0
        self._queues: dict[tuple[str, SessionKind], deque[_Request]] = {}
        self._moving: dict[str, list[_Request]] = {}
        """By module, in the order in which they first came."""
        self._reserved: dict[SessionId, tuple[WorkerId, float]] = {}
        """Sessions that another worker was asked to keep a slot for, and until when it may answer."""
        self._judged_at: float | None = None

    # --- workers ------------------------------------------------------------------------------------------

    def welcomed(self, worker: WorkerId, facts: Welcome, now: float) -> list[FleetAction]:
        """A worker is there; if another incarnation of it was known, that one is lost."""
        known = self._workers.get(worker)
        if known is not None and known.facts.worker == facts.worker:
            return []
        actions = self._lose(worker, now) if known is not None else []
        self._workers.add(worker, facts, now)
        for request in self._sessions.values():
            # It was out of reach for a while, and did not die.
            request.deaths = tuple(death for death in request.deaths if death[0] != facts.worker)
        return actions + self._serve(facts.module, now)

    def loaded(self, worker: WorkerId, load: Load, now: float) -> list[FleetAction]:
        """A worker's loop turned and says how busy it is."""
        known = self._workers.get(worker)
        if known is None:
            return []
        n_asked = sum(request.worker == worker for request in self._asked.values())
        n_asked += sum(asked == worker for asked, _ in self._reserved.values())
        known.loaded(load, n_asked=n_asked, now=now)
        self._workers.heard_from(worker, load.deadline_s, now)
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
            self._workers.excuse_all(now)
        else:
            actions.extend(self._ask_others(now))
        for worker in self._workers.dead(now):
            actions.append(DropWorker(worker=worker))
            actions.extend(self.lost(worker, now))
        for queue in self._queues.values():
            while queue and queue[0].deadline <= now:
                actions.append(self._refuse(queue.popleft()))
        for module, moving in self._moving.items():
            for request in [r for r in moving if r.deadline <= now]:
                moving.remove(request)
                actions.append(self._end(request))
            actions.extend(self._serve_moving(module, now))
        for session in [s for s, (_, deadline) in self._reserved.items() if deadline <= now]:
            del self._reserved[session]
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

    def reserved(self, session: SessionId, worker: WorkerId, now: float) -> list[FleetAction]:
        """The worker keeps a slot for a session that is still elsewhere: let it move there, if it still wants to."""
        request = self._sessions.get(session)
        if request is None or self._reserved.get(session, ("", 0.0))[0] != worker:
            return []
        del self._reserved[session]
        self._begin_move(request, RestartingError(_WORKER_RESTARTS), now)
        move = MoveSession(session=session, is_restart=True, has_reserved=True)
        # The slot counts as taken already, and is taken over.
        self._workers[worker].free += 1
        return [move, self._ask(request, worker, now)]

    def not_reserved(self, session: SessionId, worker: WorkerId, reason: str, free: int, now: float) -> None:
        """The worker cannot keep a slot for a session that is still elsewhere."""
        request = self._sessions.get(session)
        if request is not None and self._reserved.get(session, ("", 0.0))[0] == worker:
            del self._reserved[session]
            self._workers[worker].rejected(request.kind, reason, free, now)

    def rejected(self, session: SessionId, reason: str, free: int, now: float) -> list[FleetAction]:
        """The worker that was asked has no slot: ask another, or wait on at the head of the queue."""
        request = self._asked.get(session)
        if request is None or request.worker is None:
            return []
        if reason == REJECT_RESUME:
            self._asked.pop(session)
            return [self._end(request), *self._serve(request.module, now)]
        self._workers[request.worker].rejected(request.kind, reason, free, now)
        self._requeue(request)
        return self._serve(request.module, now)

    def released(self, session: SessionId) -> None:
        """A session is over."""
        request = self._sessions.pop(session, None)
        self._asked.pop(session, None)
        self._reserved.pop(session, None)
        if request is not None and request.worker is None:
            self._queue_of(request).remove(request)

    def evicted(self, session: SessionId, *, is_restart: bool, is_fault: bool, now: float) -> list[FleetAction]:
        """The worker that has the session gives it up.

        Args:
            session: which.
            is_restart: because the worker will go.
            is_fault: something is wrong with it, or with the session.
            now: the time.
        """
        request = self._sessions.get(session)
        if request is None or request.worker is None:
            return []
        if session in self._asked:
            self._requeue(request)
            return self._serve(request.module, now)
        lost_by = self._workers[request.worker].facts.worker if is_fault else ""
        move = self._move(request, is_restart=is_restart, lost_by=lost_by, now=now)
        return [move, *self._serve(request.module, now)]

    def freed(self, worker: WorkerId, now: float) -> list[FleetAction]:
        """The worker says that a slot of ours is free again."""
        known = self._workers.get(worker)
        if known is None:
            return []
        known.freed()
        return self._serve(known.facts.module, now)

    # --- what is known ------------------------------------------------------------------------------------

    def facts(self, worker: WorkerId) -> Welcome:
        """Return what a live worker said in its Welcome."""
        return self._workers[worker].facts

    def load_of(self, module: str) -> ModuleLoad:
        """Return how busy the live workers of a module are; those that drain or never said how busy do not count."""
        return self._workers.load_of(module)

    # --- inside -------------------------------------------------------------------------------------------

    def _serve(self, module: str, now: float) -> list[FleetAction]:
        actions = self._serve_moving(module, now)
        # Those that only wait for their turn to move come before everybody new.
        n_kept = len(self._moving.get(module, ())) if len(actions) == MOVES_AT_ONCE else 0
        for worker in self._workers.draining(module):
            actions.extend(self._leave(worker, now))
        for kind in SessionKind:  # live before files
            queue = self._queues.get((module, kind))
            while queue and self._workers.n_free(module) > n_kept:
                chosen = self._workers.choose(module, kind)
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
            is_hopeless = model in hopeless or len(actions) == MOVES_AT_ONCE
            worker = None if is_hopeless else self._workers.choose(module, request.kind, request.fingerprint)
            if worker is None:
                hopeless.add(model)
                waiting.append(request)
            else:
                actions.append(self._ask(request, worker, now))
        self._moving[module] = waiting
        return actions

    def _leave(self, worker: WorkerId, now: float) -> list[FleetAction]:
        """Ask for slots for the sessions of a worker that drains, some at a time, as far as others have room."""
        actions: list[FleetAction] = []
        facts = self._workers[worker].facts
        for kind in SessionKind:
            if not self._move_wait_s or self._workers.choose(facts.module, kind, facts.fingerprint) is None:
                continue
            for request in self._sessions.values():
                if request.worker != worker or request.kind is not kind or not self._may_reserve(request):
                    continue
                chosen = self._workers.choose(facts.module, kind, facts.fingerprint)
                if chosen is None or len(self._reserved) == MOVES_AT_ONCE:
                    break
                self._reserved[request.session] = chosen, now + ANSWER_S
                self._workers[chosen].free -= 1
                actions.append(ReserveSlot(session=request.session, worker=chosen))
        return actions

    def _may_reserve(self, request: _Request) -> bool:
        return request.session not in self._asked and request.session not in self._reserved

    def _ask(self, request: _Request, worker: WorkerId, now: float) -> OpenSlot:
        request.worker, request.answer_deadline = worker, now + self._workers[worker].patience_s(request.kind)
        self._asked[request.session] = request
        self._workers[worker].free -= 1
        return OpenSlot(session=request.session, worker=worker)

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
        return EndSession(session=request.session, error=request.error or WorkerLostError(_WORKER_LOST))

    def _lose(self, worker: WorkerId, now: float) -> list[FleetAction]:
        known = self._workers.remove(worker)
        self._reserved = {session: asked for session, asked in self._reserved.items() if asked[0] != worker}
        actions: list[FleetAction] = []
        for request in [r for r in self._sessions.values() if r.worker == worker]:
            if request.session in self._asked:
                self._requeue(request)
            else:
                # One that drains has said that it would go; not everybody may have got its last words.
                lost_by = "" if known.is_draining else known.facts.worker
                actions.append(self._move(request, is_restart=known.is_draining, lost_by=lost_by, now=now))
        return actions

    def _move(self, request: _Request, *, is_restart: bool, lost_by: str, now: float) -> FleetAction:
        """Let a session whose worker is gone wait for another one, or end it; ``lost_by``: who may have died of it."""
        self._reserved.pop(request.session, None)
        if lost_by:
            recent = (death for death in request.deaths if death[1] > now - DEATHS_WITHIN_S)
            request.deaths = (*recent, (lost_by, now))
        error = RestartingError(_WORKER_RESTARTS) if is_restart else WorkerLostError(_WORKER_LOST)
        if not self._move_wait_s or len(request.deaths) >= MOST_DEATHS:
            request.error = error
            return self._end(request)
        self._begin_move(request, error, now)
        self._put(request)
        return MoveSession(session=request.session, is_restart=is_restart)

    def _begin_move(self, request: _Request, error: AsrError, now: float) -> None:
        request.is_moving, request.worker, request.error = True, None, error
        patience_s = self._wait_s[request.kind] if request.kind is SessionKind.FILE else 0.0
        request.deadline = now + max(self._move_wait_s, patience_s)

    def _ask_others(self, now: float) -> list[FleetAction]:
        """Queue those again who got no answer in time. Another worker may have room, and files have time to wait."""
        unanswered = [request for request in self._asked.values() if request.answer_deadline <= now]
        for request in unanswered:
            assert request.worker is not None, "who is asked has a worker"
            self._workers[request.worker].owes_answer = True
            self._requeue(request)
        modules = dict.fromkeys(request.module for request in unanswered)
        return [action for module in modules for action in self._serve(module, now)]
