"""Who waits for a slot, and who has one where.

    opened ───► first-come queue ──► better of two random workers ──OpenSlot──► granted
                    ▲      '──deadline──► RefuseSession                  │         │
                    ├────── rejected, or no answer ◄─ the worker has the last word │
                    '── before everybody new ◄──MoveSession── its worker is lost, or drains and another has room

Which worker is asked, and which counts as dead, is told in ``workers.py``. Before it judges, the gateway looks at its
own lag: who did not listen cannot say that nobody spoke. What is to be done comes back as actions
(``fleet_actions.py``), for the shell to perform in order.
"""

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
from asr_gateway.core.placement import Placement, Queues
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
"""A session under which so many workers were lost within ``DEATHS_WITHIN_S`` ends: the cause may be the session."""

_WORKER_LOST: Final = "the worker that held this session was lost; please open a new session"
_WORKER_RESTARTS: Final = "the worker of this session is restarting; please open a new session"


class Fleet:
    """Places sessions on workers. Everything that takes ``now`` may return actions."""

    def __init__(self, config: GatewayConfig, random: Random) -> None:
        self._wait_s = {SessionKind.LIVE: config.slot_wait_s, SessionKind.FILE: config.file_wait_s}
        self._move_wait_s = config.move_wait_s
        self._workers = Workers(random)
        self._sessions: dict[SessionId, Placement] = {}
        self._n_opened = 0
        self._queues = Queues()
        self._asked: dict[SessionId, Placement] = {}
        """Sessions whose worker has not answered yet."""
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
        for placement in self._sessions.values():
            placement.lives(facts.worker)
        return actions + self._serve(facts.module, now)

    def loaded(self, worker: WorkerId, load: Load, now: float) -> list[FleetAction]:
        """A worker's loop turned and says how busy it is."""
        known = self._workers.get(worker)
        if known is None:
            return []
        n_asked = sum(placement.worker == worker for placement in self._asked.values())
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
        actions.extend(self._end(p) if p.is_moving else self._refuse(p) for p in self._queues.expire(now))
        for module in self._queues.modules_moving:
            actions.extend(self._serve_moving(module, now))
        for session in [s for s, (_, deadline) in self._reserved.items() if deadline <= now]:
            del self._reserved[session]
        return actions

    # --- sessions -----------------------------------------------------------------------------------------

    def opened(self, session: SessionId, module: str, kind: SessionKind, now: float) -> list[FleetAction]:
        """A new session wants a slot."""
        self._n_opened += 1
        deadline = now + self._wait_s[kind]
        placement = Placement(number=self._n_opened, session=session, module=module, kind=kind, deadline=deadline)
        self._sessions[session] = placement
        self._queues.put(placement)
        return self._serve(module, now)

    def granted(self, session: SessionId, worker: WorkerId) -> None:
        """The worker has given the session a slot, be it late: while nobody else was asked it is welcome still."""
        self._asked.pop(session, None)
        placement = self._sessions.get(session)
        if placement is None:
            return
        if placement.worker is None:
            self._queues.remove(placement)
            placement.worker = worker
        placement.is_moving, placement.fingerprint = False, self._workers[worker].facts.fingerprint

    def reserved(self, session: SessionId, worker: WorkerId, now: float) -> list[FleetAction]:
        """The worker keeps a slot for a session that is still elsewhere: let it move there, if it still wants to."""
        placement = self._sessions.get(session)
        if placement is None or self._reserved.get(session, ("", 0.0))[0] != worker:
            return []
        del self._reserved[session]
        self._begin_move(placement, RestartingError(_WORKER_RESTARTS), now)
        move = MoveSession(session=session, is_restart=True, has_reserved=True)
        # The slot counts as taken already, and is taken over.
        self._workers[worker].free += 1
        return [move, self._ask(placement, worker, now)]

    def not_reserved(self, session: SessionId, worker: WorkerId, reason: str, free: int, now: float) -> None:
        """The worker cannot keep a slot for a session that is still elsewhere."""
        placement = self._sessions.get(session)
        if placement is not None and self._reserved.get(session, ("", 0.0))[0] == worker:
            del self._reserved[session]
            self._workers[worker].rejected(placement.kind, reason, free, now)

    def rejected(self, session: SessionId, reason: str, free: int, now: float) -> list[FleetAction]:
        """The worker that was asked has no slot: ask another, or wait on at the head of the queue."""
        placement = self._asked.get(session)
        if placement is None or placement.worker is None:
            return []
        if reason == REJECT_RESUME:
            self._asked.pop(session)
            return [self._end(placement), *self._serve(placement.module, now)]
        self._workers[placement.worker].rejected(placement.kind, reason, free, now)
        self._requeue(placement)
        return self._serve(placement.module, now)

    def released(self, session: SessionId) -> None:
        """A session is over."""
        placement = self._sessions.pop(session, None)
        self._asked.pop(session, None)
        self._reserved.pop(session, None)
        if placement is not None and placement.worker is None:
            self._queues.remove(placement)

    def evicted(self, session: SessionId, *, is_restart: bool, is_fault: bool, now: float) -> list[FleetAction]:
        """The worker that has the session gives it up.

        Args:
            session: which.
            is_restart: because the worker will go.
            is_fault: something is wrong with it, or with the session.
            now: the time.
        """
        placement = self._sessions.get(session)
        if placement is None or placement.worker is None:
            return []
        if session in self._asked:
            self._requeue(placement)
            return self._serve(placement.module, now)
        lost_by = self._workers[placement.worker].facts.worker if is_fault else ""
        move = self._move(placement, is_restart=is_restart, lost_by=lost_by, now=now)
        return [move, *self._serve(placement.module, now)]

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
        n_kept = len(self._queues.moving(module)) if len(actions) == MOVES_AT_ONCE else 0
        for worker in self._workers.draining(module):
            actions.extend(self._leave(worker, now))
        for kind in SessionKind:  # live before files
            while (placement := self._queues.first_new(module, kind)) and self._workers.n_free(module) > n_kept:
                chosen = self._workers.choose(module, kind)
                if chosen is None:
                    break
                self._queues.remove(placement)
                actions.append(self._ask(placement, chosen, now))
        return actions

    def _serve_moving(self, module: str, now: float) -> list[FleetAction]:
        actions: list[FleetAction] = []
        hopeless: set[tuple[SessionKind, str]] = set()
        for placement in self._queues.moving(module):
            model = placement.kind, placement.fingerprint
            if model in hopeless:
                continue
            # One that gave it up for a fault of its own may be there still.
            worker = self._workers.choose(module, *model, avoid=placement.lost_workers)
            if worker is None:
                hopeless.add(model)
                continue
            self._queues.remove(placement)
            actions.append(self._ask(placement, worker, now))
            if len(actions) == MOVES_AT_ONCE:
                break
        return actions

    def _leave(self, worker: WorkerId, now: float) -> list[FleetAction]:
        """Ask for slots for the sessions of a worker that drains, some at a time, as far as others have room."""
        actions: list[FleetAction] = []
        facts = self._workers[worker].facts
        for kind in SessionKind:
            if not self._move_wait_s or self._workers.choose(facts.module, kind, facts.fingerprint) is None:
                continue
            for placement in self._sessions.values():
                if placement.worker != worker or placement.kind is not kind or not self._may_reserve(placement):
                    continue
                chosen = self._workers.choose(facts.module, kind, facts.fingerprint)
                if chosen is None or len(self._reserved) == MOVES_AT_ONCE:
                    break
                self._reserved[placement.session] = chosen, now + ANSWER_S
                self._workers[chosen].free -= 1
                actions.append(ReserveSlot(session=placement.session, worker=chosen))
        return actions

    def _may_reserve(self, placement: Placement) -> bool:
        return placement.session not in self._asked and placement.session not in self._reserved

    def _ask(self, placement: Placement, worker: WorkerId, now: float) -> OpenSlot:
        placement.worker, placement.answer_deadline = worker, now + self._workers[worker].patience_s(placement.kind)
        self._asked[placement.session] = placement
        self._workers[worker].free -= 1
        return OpenSlot(session=placement.session, worker=worker)

    def _requeue(self, placement: Placement) -> None:
        """The worker that was asked has no slot, or does not answer: let the session wait where it stood before."""
        self._asked.pop(placement.session)
        placement.worker = None
        self._queues.put(placement)

    def _refuse(self, placement: Placement) -> RefuseSession:
        self._sessions.pop(placement.session)
        return RefuseSession(session=placement.session, error=NoFreeSlotError())

    def _end(self, placement: Placement) -> EndSession:
        self._sessions.pop(placement.session)
        return EndSession(session=placement.session, error=placement.error or WorkerLostError(_WORKER_LOST))

    def _lose(self, worker: WorkerId, now: float) -> list[FleetAction]:
        known = self._workers.remove(worker)
        self._reserved = {session: asked for session, asked in self._reserved.items() if asked[0] != worker}
        actions: list[FleetAction] = []
        for placement in [p for p in self._sessions.values() if p.worker == worker]:
            if placement.session in self._asked:
                self._requeue(placement)
            else:
                # One that drains has said that it would go; not everybody may have got its last words.
                lost_by = "" if known.is_draining else known.facts.worker
                actions.append(self._move(placement, is_restart=known.is_draining, lost_by=lost_by, now=now))
        return actions

    def _move(self, placement: Placement, *, is_restart: bool, lost_by: str, now: float) -> FleetAction:
        """Let a session whose worker is gone wait for another one, or end it; ``lost_by``: who may have died of it."""
        self._reserved.pop(placement.session, None)
        if lost_by:
            placement.died(lost_by, now)
        error = RestartingError(_WORKER_RESTARTS) if is_restart else WorkerLostError(_WORKER_LOST)
        if not self._move_wait_s or len(placement.deaths) >= MOST_DEATHS:
            placement.error = error
            return self._end(placement)
        self._begin_move(placement, error, now)
        self._queues.put(placement)
        return MoveSession(session=placement.session, is_restart=is_restart)

    def _begin_move(self, placement: Placement, error: AsrError, now: float) -> None:
        placement.is_moving, placement.worker, placement.error = True, None, error
        patience_s = self._wait_s[placement.kind] if placement.kind is SessionKind.FILE else 0.0
        placement.deadline = now + max(self._move_wait_s, patience_s)

    def _ask_others(self, now: float) -> list[FleetAction]:
        """Queue those again who got no answer in time. Another worker may have room, and files have time to wait."""
        unanswered = [placement for placement in self._asked.values() if placement.answer_deadline <= now]
        for placement in unanswered:
            assert placement.worker is not None, "who is asked has a worker"
            self._workers[placement.worker].owes_answer = True
            self._requeue(placement)
        modules = dict.fromkeys(placement.module for placement in unanswered)
        return [action for module in modules for action in self._serve(module, now)]
