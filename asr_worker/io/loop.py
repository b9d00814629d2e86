"""The worker's loop: one thread that owns the socket, the slots and the model. No locks.

    ┌─► take what has arrived ─► settle ─► plan, send ──nothing to step──► wait for input or the next deadline ─┐
    │                                       │                                                                   │
    │                                       └─► launch ─► collect ─► spread, send the results ───────────────────┤
    │                                             │  ▲                                                            │
    │                                             ▼  │ while a device computes                                    │
    │                                       take in, send, nap                                                   │
    └───────────────────────────────────────────────────────────────────────────────────────────────────────────┘

Not paced by a clock: it steps as soon as there is work, so a backlog goes as fast as the device allows. Its Load is a
sign that the model steps, not that some thread lives.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from asr_worker.core.arrivals import join_audio
from asr_worker.core.load import LoadSchedule
from asr_worker.core.model import AsrModel, StepPlan, StepResult
from asr_worker.core.naps import Naps
from asr_worker.core.pool import Pool
from asr_worker.core.sessions import Outgoing
from asr_worker.core.tokens import TokenRecorder
from asr_worker.io.link import Delivery, Link, Refused
from asr_worker.io.token_log import TokenLog
from asr_worker.metrics import WorkerMetrics
from shared.errors import ModelFaultError, RestartingError
from shared.log_events import (
    DRAIN_STARTED,
    DRAIN_TIMED_OUT,
    GATEWAY_JOINED,
    GATEWAY_LOST,
    GATEWAY_REFUSED,
    MODEL_FAILED,
    SESSION_EVICTED,
)
from shared.messages import EventKind, Evict, Reject, StepBlock, Unwelcome, Welcome

MAX_MESSAGES_PER_TURN: Final = 1_024
"""So that a flood cannot keep the model waiting; what is left waits in the socket's own bounded queues."""

UNREAD_S: Final = 5.0
"""How much longer than usual a gateway may be silent while messages of somebody are still unread."""

LAST_WORDS_S: Final = 0.5
"""How long gateways have to read why their sessions end."""

STUCK_AFTER_S: Final = 60.0
"""No step takes as long: a loop that has not turned meanwhile hangs, most likely in a driver."""

MAX_WAIT_S: Final = 0.2
"""A signal is noticed at the latest after so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTap:
    """Where fed tokens go, if they are logged."""

    recorder: TokenRecorder
    log: TokenLog


class Loop:
    """Runs ``pool`` and ``model`` on ``link`` until told to stop."""

    def __init__(
        self,
        *,
        pool: Pool,
        model: AsrModel,
        link: Link,
        metrics: WorkerMetrics,
        drain_s: float,
        tap: TokenTap | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._model = model
        self._link = link
        self._metrics = metrics
        self._drain_s = drain_s
        self._tap = tap
        self._clock = clock
        self._outbox: list[Outgoing] = []
        self._load_schedule = LoadSchedule()
        self._naps = Naps()
        self._stop_at_s: float | None = None
        self._n_stops = 0
        self._last_turn_s = clock()
        self._promise_s = pool.load().deadline_s
        self._log = structlog.get_logger()

    def stop(self) -> None:
        """Admit nobody any more and end when the last session has, or after ``drain_s``. For a signal handler.

        Called again, it ends without waiting for sessions.
        """
        self._n_stops += 1

    def is_ready(self) -> bool:
        """Return whether the loop turns and admits sessions. May be called from another thread."""
        return not self._pool.is_draining and self._clock() < self._last_turn_s + self._promise_s

    def is_stuck(self) -> bool:
        """Return whether the loop hangs for good. May be called from another thread."""
        return self._clock() >= self._last_turn_s + STUCK_AFTER_S

    def run(self) -> None:
        """Serve until stopped.

        Raises:
            ModelFaultError: the device can no longer be trusted. Gateways have been told.
        """
        try:
            while not self._is_over():
                self._turn()
        except ModelFaultError as error:
            self._log.error(MODEL_FAILED, reason=str(error))
            self._outbox = self._pool.evict_all(error.code, str(error))
            self._send()
            raise
        evicted = self._pool.evict_all(RestartingError.code, "the worker is shutting down")
        self._outbox += evicted
        self._send()
        if evicted:
            # A gateway that sees the connection end looks no further: most would not hear why.
            time.sleep(LAST_WORDS_S)

    def _turn(self) -> None:
        self._last_turn_s = self._clock()
        # The heartbeats of a gateway may be among what is still unread. But somebody may send without an end.
        spare_s = 0.0 if self._take_in() else UNREAD_S
        self._outbox += self._pool.expire(self._last_turn_s - spare_s)
        self._outbox += self._pool.settle()
        plan = self._pool.plan()
        if plan is None:
            self._send()
            self._send_load(has_stepped=False)
            self._link.wait(self._time_to_wait())
        else:
            self._step(plan)

    def _step(self, plan: StepPlan) -> None:
        self._send()
        n_frames = int(plan.active.sum())
        oldest_s = self._pool.planned_oldest_s
        self._metrics.step_lagged(0.0 if oldest_s is None else self._clock() - oldest_s)
        started_s = time.perf_counter()
        self._model.launch(plan)
        self._serve_meanwhile(started_s)
        result = self._model.collect()
        step_s = time.perf_counter() - started_s
        self._naps.note(step_s)
        self._outbox += self._pool.spread(result, step_s)
        # At once: what has arrived meanwhile, and the plan of the next step, would take longer than this does.
        self._send()
        self._record(plan, result)
        self._metrics.step_finished(step_s, n_frames=n_frames)
        self._send_load(has_stepped=True)

    def _serve_meanwhile(self, started_s: float) -> None:
        # A model that computes in its launch is done: its results go first.
        now_s = time.perf_counter()
        while not self._model.is_done():
            self._take_in()
            self._send()
            before_s, now_s = now_s, time.perf_counter()
            nap_s = self._naps.next_s(elapsed_s=now_s - started_s, taking_in_s=now_s - before_s)
            if nap_s is None:
                return
            time.sleep(nap_s)
            now_s = time.perf_counter()

    def _record(self, plan: StepPlan, result: StepResult) -> None:
        if self._tap is not None:
            self._tap.log.put(self._tap.recorder.record(plan, result, self._pool.planned_generations))

    def _take_in(self) -> bool:
        """Handle what has arrived; return whether that was all."""
        now = self._clock()
        n_arrived, messages = 0, []
        for n_arrived, arrived in enumerate(self._link.drain(MAX_MESSAGES_PER_TURN), 1):  # noqa: B007  (used behind)
            if isinstance(arrived, Refused):
                self._metrics.link_message_refused()
            else:
                messages.append(arrived)
        for routing_id, message in join_audio(messages):
            self._outbox += self._pool.handle(routing_id, message, now)
        return n_arrived < MAX_MESSAGES_PER_TURN

    def _send(self) -> None:
        outbox, self._outbox = self._outbox, []
        for routing_id, message in outbox:
            self._note(routing_id, message)
            delivery = self._link.send(routing_id, message)
            if delivery is not Delivery.TAKEN:
                # A lost block cannot be made good on the link, so a gateway that is too slow is as good as gone.
                self._metrics.result_dropped()
                self._give_up(routing_id, delivery)
        if outbox:
            self._show_occupancy()

    def _send_load(self, *, has_stepped: bool) -> None:
        if self._load_schedule.is_due(self._clock(), has_stepped=has_stepped):
            load = self._pool.load()
            self._promise_s = load.deadline_s
            if not has_stepped:
                # No step for a while, for want of frames: the lag of the last one is old news.
                self._metrics.step_lagged(0.0)
            for routing_id in self._pool.gateways:
                # A Load is worth nothing later: who is only slow gets the next one.
                if self._link.send(routing_id, load) is Delivery.UNREACHABLE:
                    self._give_up(routing_id, Delivery.UNREACHABLE)
            # Also without anything sent: a gateway may have gone.
            self._show_occupancy()

    def _show_occupancy(self) -> None:
        self._metrics.slots_changed(used=self._pool.n_used, free=self._pool.n_free)
        self._metrics.gateways_changed(len(self._pool.gateways))

    def _give_up(self, routing_id: bytes, delivery: Delivery) -> None:
        if routing_id in self._pool.gateways:
            self._log.warning(GATEWAY_LOST, gateway=_printable(routing_id), reason=delivery.name.lower())
            self._pool.gateway_gone(routing_id)

    def _note(self, routing_id: bytes, message: object) -> None:
        match message:
            case StepBlock():
                words = sum(event.kind is EventKind.WORD for event in message.events)
                self._metrics.words_recognised(words)
            case Evict():
                self._metrics.session_evicted(message.code)
                told = {"session": message.session, "gateway": _printable(routing_id)}
                self._log.warning(SESSION_EVICTED, **told, code=message.code, reason=message.reason)
            case Reject():
                self._metrics.session_rejected(message.reason)
            case Unwelcome():
                self._log.warning(GATEWAY_REFUSED, gateway=_printable(routing_id), reason=message.reason)
            case Welcome():
                self._log.info(GATEWAY_JOINED, gateway=_printable(routing_id))
            case _:
                pass

    def _time_to_wait(self) -> float:
        now = self._clock()
        deadlines = [now + MAX_WAIT_S, self._load_schedule.next_deadline()]
        expiry = self._pool.next_deadline()
        if expiry is not None:
            deadlines.append(expiry)
        return max(0.0, min(deadlines) - now)

    def _is_over(self) -> bool:
        if not self._n_stops:
            return False
        now = self._clock()
        if self._stop_at_s is None:
            self._stop_at_s = now + self._drain_s
            self._pool.drain()
            self._log.info(DRAIN_STARTED, sessions=self._pool.n_used, within_s=self._drain_s)
        if self._pool.n_used == 0:
            return True
        if now >= self._stop_at_s or self._n_stops > 1:
            self._log.warning(DRAIN_TIMED_OUT, sessions=self._pool.n_used)
            return True
        return False


def _printable(routing_id: bytes) -> str:
    return routing_id.decode("ascii", "backslashreplace")
