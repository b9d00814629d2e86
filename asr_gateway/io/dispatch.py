"""Where sessions and workers meet: performs what the cores decide, and routes what the links bring.

    websocket.py ──┐                                    ┌── WorkerLink ── worker A
    FileStream ────┴── Stream ──► Dispatch ◄── Fleet ───┴── WorkerLink ── worker B
                         ▲            │
                         '─ StepBlock ┘  handed out by session: fan_out.py

A shell that has a client opens a ``Stream`` for it and is called back through its ``Listener``. For whole files there
is an awaitable front, ``FileStream``:

    async with dispatch.open_file("asr") as stream:         # waits its turn; NoFreeSlotError, RestartingError
        async for pcm in audio:
            await stream.push(pcm)             # float32 [n], 24 kHz mono; waits while the session is full
        await stream.finish()                  # end of audio: flush
        async for event in stream:             # StepEvent of kind WORD or END_WORD, in order, to the last one
            ...                                # push, finish and iterating raise WorkerLostError and its like

Leaving the block frees the slot, whatever happened. Everything here runs on the event loop's thread.
"""

import asyncio
import secrets
from collections.abc import Iterable
from random import Random
from typing import Final, NoReturn

import structlog

from asr_gateway.core.fleet import Fleet
from asr_gateway.core.fleet_actions import (
    DropWorker,
    EndSession,
    FleetAction,
    MoveSession,
    OpenSlot,
    RefuseSession,
    ReserveSlot,
)
from asr_gateway.core.limits import AudioAccount, AudioBounds, ByteBudget
from asr_gateway.core.modules import ServedModule
from asr_gateway.core.replay import ReplayBounds, ReplayLog
from asr_gateway.core.session import Session, SessionState
from asr_gateway.core.workers import ModuleLoad
from asr_gateway.io.fan_out import FanOut
from asr_gateway.io.file_stream import FileStream
from asr_gateway.io.stream import Listener, Stream
from asr_gateway.io.worker_link import WorkerLink
from asr_gateway.io.worker_links import WorkerLinks
from asr_gateway.metrics import LOST, RESTART, GatewayMetrics
from shared.config import GatewayConfig
from shared.errors import AsrError, BadAudioError, LinkError, NoFreeSlotError, RestartingError, WorkerLostError
from shared.log_events import SESSION_MOVED, WORKER_JOINED, WORKER_LOST, WORKER_REFUSED
from shared.messages import (
    EVICT_GATEWAY_TIMEOUT,
    EVICT_HELLO,
    EVICT_UNKNOWN_SESSION,
    Close,
    Closed,
    Evict,
    Load,
    Ready,
    Reject,
    SessionKind,
    StepBlock,
    ToGateway,
    Unwelcome,
    Welcome,
)
from shared.units import SessionId

PULSE_S: Final = 0.05
"""How often waits and workers are looked at."""

_NOBODYS_FAULTS: Final = (RestartingError.code, EVICT_GATEWAY_TIMEOUT, EVICT_HELLO, EVICT_UNKNOWN_SESSION)
"""Why a worker may give a session up though neither did anything wrong; of others the session may be the cause."""

_OWN_FAULTS: Final = (BadAudioError.code, LinkError.code)
"""Why a worker may give up a session that would have it no better elsewhere."""


class Dispatch:
    """All sessions and all workers of one gateway process."""

    def __init__(
        self, *, config: GatewayConfig, modules: Iterable[ServedModule], random: Random, metrics: GatewayMetrics
    ) -> None:
        self._prefix_frames = {module.name: module.silence_prefix_frames for module in modules}
        self._metrics = metrics
        self._fleet = Fleet(config, random)
        self._budget = ByteBudget(config.audio_budget_bytes)
        self._replay = ReplayBounds.of(config.replay_s, ByteBudget(config.replay_budget_bytes))
        self._can_move = config.move_wait_s > 0
        self._bounds = AudioBounds.of(config)
        self._max_sessions = config.max_sessions
        self._file_bounds = AudioBounds(
            guaranteed_samples=self._bounds.guaranteed_samples, max_samples=self._bounds.guaranteed_samples
        )
        self._log = structlog.get_logger()
        self.links = WorkerLinks(owner=self, metrics=metrics)
        self._streams: dict[SessionId, Stream] = {}
        self._fan_out = FanOut(self._streams, self._end)
        self._is_draining = False

    def load_of(self, module: str) -> ModuleLoad:
        """Return how busy the workers of a module are."""
        return self._fleet.load_of(module)

    # --- sessions -----------------------------------------------------------------------------------------

    @property
    def is_draining(self) -> bool:
        """Whether no new sessions are taken."""
        return self._is_draining

    @property
    def n_sessions(self) -> int:
        """Sessions open or waiting."""
        return len(self._streams)

    def open(self, *, module: str, kind: SessionKind, listener: Listener, has_silence_prefix: bool = False) -> Stream:
        """Begin a session; the listener hears ``ready`` or ``ended``, possibly before this returns.

        With ``has_silence_prefix`` it begins with the module's silence, which files always do.

        Raises:
            RestartingError: the gateway drains, and this is no file: those are asked for once it has been uploaded, and
                which of them may come was decided before.
            NoFreeSlotError: it has as many sessions as it may have.
        """
        if kind is SessionKind.LIVE:
            self.check_not_draining(kind)
        if len(self._streams) >= self._max_sessions:
            self._refuse(kind, NoFreeSlotError())
        is_file = kind is SessionKind.FILE
        session = Session(
            session_id=SessionId(secrets.randbits(63)),
            kind=kind,
            account=AudioAccount(self._budget, self._file_bounds if is_file else self._bounds),
            silence_prefix_frames=self._prefix_frames.get(module, 0) if is_file or has_silence_prefix else 0,
            replay=ReplayLog(self._replay) if self._can_move else None,
        )
        stream = Stream(session=session, listener=listener)
        self._streams[session.id] = stream
        self._perform(self._fleet.opened(session.id, module, kind, self._now()))
        return stream

    def check_not_draining(self, kind: SessionKind) -> None:
        """Refuse what would become a session while the gateway drains.

        Raises:
            RestartingError: it drains.
        """
        if self._is_draining:
            self._refuse(kind, RestartingError("this gateway is shutting down"))

    def _refuse(self, kind: SessionKind, error: AsrError) -> NoReturn:
        self._count_refused(kind, error.code)
        raise error

    def _count_refused(self, kind: SessionKind, code: str) -> None:
        # Files are counted by their route: most of those that it refuses have not come as far as this.
        if kind is SessionKind.LIVE:
            self._metrics.session_refused(kind.name.lower(), code=code)

    def open_file(self, module: str) -> FileStream:
        """Ask for a slot for a whole file, first come, first served; entering what is returned waits for it.

        Raises:
            NoFreeSlotError: the gateway has as many sessions as it may have. Entering: the wait took too long.
            RestartingError: entering: the gateway has drained for as long as it may.
        """
        front = FileStream()
        front.opened(self.open(module=module, kind=SessionKind.FILE, listener=front), close=self.close)
        return front

    def close(self, stream: Stream, *, code: str) -> None:
        """End a session; closing twice does nothing. ``code`` tells the metrics why: an error's, or ``done``."""
        session = stream.session
        if self._streams.pop(session.id, None) is None:
            return
        self._fleet.released(session.id)
        if session.state is SessionState.WAITING:
            self._count_refused(session.kind, code)
        else:
            self._metrics.session_closed(session.kind.name.lower(), code=code, n_steps=session.frames_stepped)
        close = session.close()
        if stream.link is None:
            return
        stream.link.forget(session)
        if close is not None and stream.link.is_welcome:
            stream.link.send(close)

    def drain(self) -> None:
        """Take no new sessions."""
        self._is_draining = True

    def end_all(self, error: AsrError) -> None:
        """End every session with an error."""
        for stream in list(self._streams.values()):
            self._end(stream, error)

    # --- life ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look at waits and workers until cancelled, then disconnect."""
        due = self._now()
        try:
            while True:
                now = self._now()
                self._metrics.loop_lagged(now - due)
                self.links.pulse(now)
                # Judged only after everything that has arrived was heard.
                self._perform(self._fleet.expire(self._now()))
                due = self._now() + PULSE_S
                await asyncio.sleep(PULSE_S)
        finally:
            self.links.close()

    # --- LinkOwner ----------------------------------------------------------------------------------------

    def received(self, link: WorkerLink, message: ToGateway) -> None:
        """Route what a worker sent."""
        match message:
            case StepBlock():
                self._fan_out.hand_out(message)
            case Ready() | Reject() | Evict():
                self._answered(link, message)
            case Welcome():
                if not link.welcome():
                    self.link_lost(link, "it began anew")
                link.worker = message.worker
                self._log.info(WORKER_JOINED, endpoint=link.endpoint, worker=message.worker, module=message.module)
                if message.module not in self._prefix_frames:
                    # No reason to part: it just gets no session. But somebody may wait for it to get one.
                    reason = f"it serves the module {message.module!r}, this gateway {', '.join(self._prefix_frames)}"
                    self._log.warning(WORKER_REFUSED, endpoint=link.endpoint, reason=reason)
                self._perform(self._fleet.welcomed(link.endpoint, message, self._now()))
            case Unwelcome():
                link.refuse()
                self._log.warning(WORKER_REFUSED, endpoint=link.endpoint, reason=message.reason)
            case Load():
                self._metrics.worker_heard(link.label, used=message.used, free=message.free)
                self._perform(self._fleet.loaded(link.endpoint, message, self._now()))
            case Closed():
                self._perform(self._fleet.freed(link.endpoint, self._now()))

    def link_lost(self, link: WorkerLink, reason: str) -> None:
        """A connection broke: the sessions on it are lost."""
        self._note_lost(link, reason)
        self._perform(self._fleet.lost(link.endpoint, self._now()))

    # --- inside -------------------------------------------------------------------------------------------

    def _note_lost(self, link: WorkerLink, reason: str) -> None:
        # Clients are told no names and addresses: who wants to know which worker a session had finds it by these.
        self._log.warning(WORKER_LOST, endpoint=link.endpoint, worker=link.worker, reason=reason)
        self._metrics.worker_lost(link.label)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _answered(self, link: WorkerLink, message: Ready | Reject | Evict) -> None:
        stream = self._streams.get(message.session)
        if stream is not None and message.epoch == stream.session.reserved_epoch:
            self._reserved(stream, link, message)
            return
        if stream is None or stream.session.epoch != message.epoch or stream.link is not link:
            if isinstance(message, Ready):
                # Nobody waits for this slot any more, or another worker was asked: without a Close it would stay taken.
                link.send(Close(session=message.session, epoch=message.epoch))
            return
        match message:
            case Ready():
                self._grant(stream, link)
            case Reject():
                self._perform(self._fleet.rejected(message.session, message.reason, message.free, self._now()))
            case Evict() if message.code in _OWN_FAULTS:
                self._end(stream, WorkerLostError(f"the worker gave this session up: {message.reason}"))
            case Evict():
                is_restart, is_fault = message.code == RestartingError.code, message.code not in _NOBODYS_FAULTS
                now = self._now()
                self._perform(self._fleet.evicted(message.session, is_restart=is_restart, is_fault=is_fault, now=now))

    def _reserved(self, stream: Stream, link: WorkerLink, message: Ready | Reject | Evict) -> None:
        """A worker keeps a slot, or none, for a session that another one still has."""
        now = self._now()
        match message:
            case Ready():
                actions = self._fleet.reserved(message.session, link.endpoint, now)
                if not actions or stream.session.state is SessionState.CLOSED:
                    link.send(Close(session=message.session, epoch=message.epoch))
                self._perform(actions)
            case Reject():
                self._fleet.not_reserved(message.session, link.endpoint, message.reason, message.free, now)
            case Evict():
                pass

    def _grant(self, stream: Stream, link: WorkerLink) -> None:
        session = stream.session
        self._fleet.granted(session.id, link.endpoint)
        facts = self._fleet.facts(link.endpoint)
        stream.delay_frames = facts.delay_frames
        if session.state is SessionState.WAITING:
            self._metrics.session_opened(session.kind.name.lower())
            if session.replay is not None:
                session.replay.begin(context_frames=facts.context_frames, delay_frames=facts.delay_frames)
        elif session.state is SessionState.MOVING:
            self._log.info(SESSION_MOVED, **stream.place())
        try:
            n_readys = session.grant(facts.window_frames)
        except LinkError as error:
            self._end(stream, WorkerLostError(str(error)))
            return
        for _ in range(n_readys):
            stream.listener.ready()
        stream.wake()

    def _perform(self, actions: list[FleetAction]) -> None:
        for action in actions:
            match action:
                case OpenSlot():
                    self._open_slot(self._streams[action.session], self.links[action.worker])
                case ReserveSlot():
                    self.links[action.worker].send(self._streams[action.session].session.reservation())
                case MoveSession():
                    self._leave(self._streams[action.session], action)
                case RefuseSession() | EndSession():
                    stream = self._streams[action.session]
                    self._end(stream, action.error)
                case DropWorker():
                    link = self.links[action.worker]
                    self._note_lost(link, "it was silent past its deadline")
                    link.reopen()

    def _open_slot(self, stream: Stream, link: WorkerLink) -> None:
        if stream.session.state is SessionState.CLOSED:
            return
        if stream.link is not None:
            # It was asked before and did not answer. What waits for its socket must not be this session's frames.
            stream.link.forget(stream.session)
        stream.link, stream.worker = link, link.worker
        link.send(stream.session.opening())

    def _leave(self, stream: Stream, move: MoveSession) -> None:
        """Let a session wait for another worker."""
        session, link = stream.session, stream.link
        if session.state is SessionState.CLOSED:
            # The last word of a file is out: it needs no slot any more.
            self._fleet.released(session.id)
            return
        self._metrics.session_moved(session.kind.name.lower(), cause=RESTART if move.is_restart else LOST)
        if link is not None:
            link.forget(session)
            if move.has_reserved and link.is_welcome:
                link.send(Close(session=session.id, epoch=session.epoch))
        stream.link = None
        session.lose()

    def _end(self, stream: Stream, error: AsrError) -> None:
        if stream.session.state is SessionState.CLOSED:
            # The last word of a file is out, and nothing can go wrong with it any more.
            self._fleet.released(stream.session.id)
            return
        self.close(stream, code=error.code)
        stream.listener.ended(error)
