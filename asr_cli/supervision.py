"""What a supervisor decides: what to start, what to signal, when to give up. No processes, no clock.

Each child goes round this circle until a stop is asked for:

    WAITING --due--> RUNNING --exited--> WAITING     after 1, 2, 4 ... 30 s; a long run starts at 1 s again
                      '--hung: killed--^

The workers begin, and the gateway follows when their models are loaded: whoever waits for the port, or for any answer
behind it, as one did with moshi-server, finds a service that takes sessions. Later it stays, whatever the workers do.

A stop goes in two phases, so that nobody loses a word: the gateway is asked first and finishes its sessions, and the
workers are asked when it is gone. Each phase has a deadline, after which its processes are killed.
"""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeAlias, assert_never

FIRST_DELAY_S: Final = 1.0
LONGEST_DELAY_S: Final = 30.0

STEADY_AFTER_S: Final = 60.0
"""A child that ran for this long was healthy: what ends it now is a new trouble."""

WRONG_SETTINGS: Final = frozenset({1, 2})
"""Exit statuses of a process whose configuration, files or flags are wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildExited:
    """A child has ended. ``status``: its exit status, or minus the signal that ended it."""

    name: str
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BecameReady:
    """A child says that it does its work: its settings are right."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildHung:
    """A child lives and does nothing any more."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequested:
    """Somebody asked for the end; asked twice, it means at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePassed:
    """``next_deadline`` has come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartChild:
    """Start this child now."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalChild:
    """Send a running child a signal."""

    name: str
    signal: signal.Signals


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnounceRestart:
    """Tell the operator that a child ended and when it is started again."""

    name: str
    status: int
    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnounceFailure:
    """Tell the operator that a child's settings are wrong, and that nothing is served for that."""

    name: str
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Nothing runs any more: leave with this exit status."""

    status: int


Event: TypeAlias = ChildExited | BecameReady | ChildHung | StopRequested | TimePassed
Action: TypeAlias = StartChild | SignalChild | AnnounceRestart | AnnounceFailure | Finish


class _Phase(Enum):
    RUNNING = auto()
    GATEWAYS_STOPPING = auto()
    WORKERS_STOPPING = auto()


@dataclass(slots=True, kw_only=True)
class _Child:
    name: str
    module: str | None
    """What it is a worker of; None: a gateway."""
    running: bool = False
    has_begun: bool = False
    has_been_ready: bool = False
    has_ended: bool = False
    started_at: float = 0.0
    due_at: float | None = None
    delay_s: float = FIRST_DELAY_S


class Supervision:
    """The state of all children.

    Args:
        gateways: names of the gateways.
        workers: the name of each worker, and of its module. No two children have the same name.
        gateway_drain_s, worker_drain_s: how long each kind may take to end after SIGTERM.
    """

    def __init__(
        self, *, gateways: Sequence[str], workers: Mapping[str, str], gateway_drain_s: float, worker_drain_s: float
    ) -> None:
        self._workers = [_Child(name=name, module=module) for name, module in workers.items()]
        self._gateways = [_Child(name=name, module=None) for name in gateways]
        self._children = {child.name: child for child in [*self._workers, *self._gateways]}
        self._drain_s = {_Phase.GATEWAYS_STOPPING: gateway_drain_s, _Phase.WORKERS_STOPPING: worker_drain_s}
        self._phase = _Phase.RUNNING
        self._kill_at: float | None = None
        self._status = 0

    def start(self, *, now: float) -> list[Action]:
        """Start the workers, or the gateways where there are none."""
        return [self._start(child, now) for child in self._workers or self._gateways]

    def handle(self, event: Event, *, now: float) -> list[Action]:
        """Return what to do about ``event``, in order."""
        match event:
            case ChildExited(name=name, status=status):
                return self._exited(self._children[name], status, now)
            case BecameReady(name=name):
                self._children[name].has_been_ready = True
                return self._start_gateways(now)
            case ChildHung(name=name):
                # A worker: its gateway has given it up long ago. A stop would wait for the same loop.
                return [SignalChild(name=name, signal=signal.SIGKILL)]
            case StopRequested():
                return self._stop_requested(now)
            case TimePassed():
                return self._time_passed(now)
            case _:
                assert_never(event)

    def next_deadline(self) -> float | None:
        """When ``TimePassed`` is wanted next; None if only an event can change anything."""
        deadlines = [child.due_at for child in self._children.values() if child.due_at is not None]
        if self._kill_at is not None:
            deadlines.append(self._kill_at)
        return min(deadlines, default=None)

    def _start(self, child: _Child, now: float) -> StartChild:
        child.running, child.has_begun, child.due_at, child.started_at = True, True, None, now
        return StartChild(name=child.name)

    def _start_gateways(self, now: float) -> list[Action]:
        """Start each gateway that never ran, once there is a ready worker and no module loads for the first time.

        A module whose worker ended before it was ready keeps the others waiting no longer.
        """
        loading = {worker.module for worker in self._workers}
        loading -= {worker.module for worker in self._workers if worker.has_been_ready or worker.has_ended}
        if loading or self._phase is not _Phase.RUNNING or not any(worker.has_been_ready for worker in self._workers):
            return []
        return [self._start(gateway, now) for gateway in self._gateways if not gateway.has_begun]

    def _exited(self, child: _Child, status: int, now: float) -> list[Action]:
        child.running, child.has_ended = False, True
        if self._phase is not _Phase.RUNNING:
            return self._advance(now)
        if status in WRONG_SETTINGS and not child.has_been_ready:
            # It has said what is wrong, and saying it again every few seconds will not mend it; and whether a start
            # fails must not hang on which worker was the first. Later, settings that once were right are no reason to
            # give up the sessions of the others.
            self._status = status
            return [AnnounceFailure(name=child.name, status=status), *self._stop_requested(now)]
        if now - child.started_at >= STEADY_AFTER_S:
            child.delay_s = FIRST_DELAY_S
        delay_s, child.delay_s = child.delay_s, min(2 * child.delay_s, LONGEST_DELAY_S)
        child.due_at = now + delay_s
        return [AnnounceRestart(name=child.name, status=status, delay_s=delay_s), *self._start_gateways(now)]

    def _stop_requested(self, now: float) -> list[Action]:
        if self._phase is not _Phase.RUNNING:
            return [SignalChild(name=child.name, signal=signal.SIGKILL) for child in self._running()]
        for child in self._children.values():
            child.due_at = None
        return self._enter(_Phase.GATEWAYS_STOPPING, now)

    def _enter(self, phase: _Phase, now: float) -> list[Action]:
        self._phase = phase
        self._kill_at = now + self._drain_s[phase]
        asked: list[Action] = [
            SignalChild(name=child.name, signal=signal.SIGTERM) for child in self._running_in_phase()
        ]
        return asked or self._advance(now)

    def _advance(self, now: float) -> list[Action]:
        """Go on to the next phase once nothing of this one runs."""
        if self._running_in_phase():
            return []
        if self._phase is _Phase.GATEWAYS_STOPPING:
            return self._enter(_Phase.WORKERS_STOPPING, now)
        self._kill_at = None
        return [Finish(status=self._status)]

    def _time_passed(self, now: float) -> list[Action]:
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            return [SignalChild(name=child.name, signal=signal.SIGKILL) for child in self._running_in_phase()]
        return [
            self._start(child, now)
            for child in self._children.values()
            if child.due_at is not None and now >= child.due_at
        ]

    def _running(self) -> list[_Child]:
        return [child for child in self._children.values() if child.running]

    def _running_in_phase(self) -> list[_Child]:
        gateways = self._phase is _Phase.GATEWAYS_STOPPING
        return [child for child in self._running() if (child.module is None) == gateways]
