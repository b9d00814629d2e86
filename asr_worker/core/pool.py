"""The worker's core: messages of gateways in, one step at a time, messages to gateways out.

    handle(gateway, message)  ─►  replies             whenever something has arrived, even while a step is under way
    settle()                  ─►  blocks of events    between two steps
    plan()                    ─►  the next step, or None if nothing is ready
    spread(result)            ─►  blocks              exactly once for each plan

Time is passed in. A step under way belongs to the leases that it was planned for: those that ended or restarted
meanwhile get nothing of it. Everything that goes out is a pair of a gateway's routing id and a message.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from asr_worker.core.batch import Batch
from asr_worker.core.gateways import MAX_GATEWAYS, UNKNOWN, Gateway, OnceInAWhile
from asr_worker.core.leases import Leases
from asr_worker.core.load import StepTimes
from asr_worker.core.model import ModelFacts, StepPlan, StepResult
from asr_worker.core.pcm import rank_among_equals
from asr_worker.core.results import Results
from shared.config import WorkerConfig
from shared.errors import BadAudioError, LinkError
from shared.liveness import Liveness
from shared.messages import (
    PROTOCOL_VERSION,
    REJECT_DRAINING,
    REJECT_FULL,
    REJECT_HELLO,
    REJECT_RESUME,
    AudioBlock,
    Close,
    Closed,
    Evict,
    Flush,
    Heartbeat,
    Hello,
    Load,
    Marker,
    Open,
    Ready,
    Reject,
    Reset,
    SessionKind,
    StepBlock,
    ToGateway,
    ToWorker,
    Unwelcome,
    Welcome,
)
from shared.units import SlotIndex

Outgoing: TypeAlias = tuple[bytes, ToGateway]

SPOKEN_VERSIONS: Final = tuple(version for version in (PROTOCOL_VERSION, PROTOCOL_VERSION - 1) if version > 0)

MAX_SAMPLE: Final = 1e6
"""Beyond it, or not a number at all, a sample could leave infinities in a model's caches. Loud clients pass."""

CODE_UNKNOWN_SESSION: Final = "unknown_session"
CODE_GAP: Final = "gap"
CODE_GATEWAY_TIMEOUT: Final = "gateway_timeout"
CODE_HELLO: Final = "hello"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Names of the worker: its incarnation ``wk:<host>:<pid>:<uuid>`` and its module's NAME."""

    worker: str
    module: str


class Pool:
    """Slots, sessions and gateways of one model."""

    def __init__(
        self, *, facts: ModelFacts, identity: Identity, config: WorkerConfig, detokenize: Callable[[list[int]], str]
    ) -> None:
        self._facts = facts
        self._identity = identity
        self._config = config
        self._leases = Leases(facts=facts, window_frames=config.window_frames, detokenize=detokenize)
        generations = self._leases.allocator.generations
        self._batch = Batch(facts=facts, rows=self._leases.rows, rings=self._leases.rings, generations=generations)
        self._results = Results(facts=facts, leases=self._leases, batch=self._batch)
        self._step_times = StepTimes()
        self._gateways: dict[bytes, Gateway] = {}
        self._routing_ids: dict[int, bytes] = {}
        self._liveness: Liveness[bytes] = Liveness()
        self._n_gateways_ever = 0
        self._unknown_told = OnceInAWhile(1.0)
        self._is_draining = False

    # --- what the loop asks -----------------------------------------------------------------------------------

    @property
    def n_used(self) -> int:
        """Slots that sessions hold."""
        return self._leases.allocator.n_used

    @property
    def n_free(self) -> int:
        """Sessions that can still be opened."""
        most = self._config.max_sessions
        allocator = self._leases.allocator
        return allocator.n_free if most is None else max(0, min(allocator.n_free, most - allocator.n_used))

    @property
    def is_draining(self) -> bool:
        """Whether no session is admitted any more."""
        return self._is_draining

    @property
    def gateways(self) -> tuple[bytes, ...]:
        """Routing ids of the gateways that are served."""
        return tuple(self._gateways)

    @property
    def planned_generations(self) -> NDArray[np.int64]:
        """``[B]``: the generations of the slots when the last step was planned."""
        return self._batch.leases

    def load(self) -> Load:
        """Return how busy the worker is."""
        return Load(
            used=self.n_used,
            free=0 if self._is_draining else self.n_free,
            draining=self._is_draining,
            steps=self._results.steps,
            step_p50_ms=1e3 * self._step_times.percentile_s(50),
            step_p99_ms=1e3 * self._step_times.percentile_s(99),
            deadline_s=self._step_times.deadline_s(),
        )

    def take_ended(self) -> list[int]:
        """Return, once, the number of frames stepped of each session that has ended since the last call."""
        return self._leases.take_ended()

    def check(self) -> None:
        """Assert that everything agrees; for tests."""
        self._leases.check()
        held = {slot for gateway in self._gateways.values() for slot in gateway.slots.values()}
        assert len(held) == self.n_used, "a slot belongs to no gateway"

    # --- steps ------------------------------------------------------------------------------------------------

    def note_warm_up(self, step_s: float) -> None:
        """Let a warm-up step stand for the steps to come in the announced deadline."""
        self._step_times.add(step_s)

    def settle(self) -> list[Outgoing]:
        """Let markers, flushes and resets take effect that wait for nothing. No step may be under way."""
        return self._address(self._results.settle())

    def plan(self) -> StepPlan | None:
        """Return the next step, or None if no session has anything to step. The plan's arrays are reused."""
        return self._batch.plan()

    def spread(self, result: StepResult, step_s: float) -> list[Outgoing]:
        """Return what the last planned step, which took ``step_s``, means for each gateway."""
        self._step_times.add(step_s)
        return self._address(self._results.spread(result))

    def _address(self, blocks: dict[int, StepBlock]) -> list[Outgoing]:
        return [(self._routing_ids[number], block) for number, block in blocks.items()]

    # --- gateways ---------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Admit no session any more."""
        self._is_draining = True

    def next_deadline(self) -> float | None:
        """Return when the first gateway will have been silent for too long."""
        return self._liveness.next_deadline()

    def expire(self, now: float) -> list[Outgoing]:
        """Give up the gateways that have been silent for too long, and tell them in case they are not dead."""
        reason = f"no heartbeat of this gateway for {self._config.gateway_timeout_s:g} s"
        late = self._liveness.expire(now)
        return [out for key in late for out in self._forget(key, CODE_GATEWAY_TIMEOUT, reason)]

    def gateway_gone(self, routing_id: bytes) -> None:
        """Free the slots of a gateway that nothing can be sent to any more."""
        if routing_id in self._gateways:
            self._forget(routing_id, CODE_GATEWAY_TIMEOUT, "unreachable")

    def evict_all(self, code: str, reason: str) -> list[Outgoing]:
        """End every session, giving ``code`` and ``reason``."""
        return [out for gateway in self._gateways.values() for out in self._evict_of(gateway, code, reason)]

    def _forget(self, routing_id: bytes, code: str, reason: str) -> list[Outgoing]:
        gateway = self._gateways[routing_id]
        evicted = self._evict_of(gateway, code, reason)
        del self._gateways[routing_id], self._routing_ids[gateway.number]
        self._liveness.forget(routing_id)
        return evicted

    def _evict_of(self, gateway: Gateway, code: str, reason: str) -> list[Outgoing]:
        return [out for slot in tuple(gateway.slots.values()) for out in self._evict(gateway, slot, code, reason)]

    def _evict(self, gateway: Gateway, slot: SlotIndex, code: str, reason: str) -> list[Outgoing]:
        session, epoch = self._leases.session_of(slot), self._leases.epoch_of(slot)
        self._leases.end(gateway, slot)
        return [(gateway.routing_id, Evict(session=session, epoch=epoch, code=code, reason=reason))]

    # --- messages ---------------------------------------------------------------------------------------------

    def handle(self, routing_id: bytes, message: ToWorker, now: float) -> list[Outgoing]:
        """Take one message of the gateway ``routing_id`` and return the replies, in order."""
        if isinstance(message, Hello):
            return self._hello(routing_id, message, now)
        gateway = self._gateways.get(routing_id)
        if gateway is None:
            return self._stranger(routing_id, message, now)
        self._liveness.heard_from(routing_id, now)
        match message:
            case Open():
                return self._open(gateway, message)
            case AudioBlock():
                return self._audio(gateway, message, now)
            case Marker() | Flush() | Reset():
                return self._item(gateway, message, now)
            case Close():
                return self._close(gateway, message)
            case Heartbeat():
                return []

    def _hello(self, routing_id: bytes, message: Hello, now: float) -> list[Outgoing]:
        if message.version not in SPOKEN_VERSIONS:
            reason = f"this worker speaks version {PROTOCOL_VERSION} of the link, the gateway {message.version}"
            return [(routing_id, Unwelcome(versions=SPOKEN_VERSIONS, reason=reason))]
        gateway = self._gateways.get(routing_id)
        if gateway is None:
            return self._welcome(routing_id, now)
        # Hellos stop with the first Welcome, and one connection keeps the order: a Hello behind an Open means that
        # the gateway had given this worker up and has begun anew. Its sessions have ended there.
        evicted = self._evict_of(gateway, CODE_HELLO, "the gateway began anew")
        return evicted + self._welcome(routing_id, now)

    def _stranger(self, routing_id: bytes, message: ToWorker, now: float) -> list[Outgoing]:
        """Tell a gateway that takes this worker for another incarnation, or was given up, where it stands."""
        welcome = self._welcome(routing_id, now)
        if isinstance(message, Open):
            free = self.n_free
            reject = Reject(session=message.session, epoch=message.epoch, reason=REJECT_HELLO, free=free)
            return [*welcome, (routing_id, reject)]
        return welcome + (self.handle(routing_id, message, now) if routing_id in self._gateways else [])

    def _welcome(self, routing_id: bytes, now: float) -> list[Outgoing]:
        if routing_id not in self._gateways:
            if len(self._gateways) >= MAX_GATEWAYS:
                reason = f"this worker serves {MAX_GATEWAYS} gateways already"
                return [(routing_id, Unwelcome(versions=SPOKEN_VERSIONS, reason=reason))]
            self._n_gateways_ever += 1
            self._gateways[routing_id] = Gateway(routing_id, self._n_gateways_ever)
            self._routing_ids[self._n_gateways_ever] = routing_id
        self._liveness.watch(routing_id, self._config.gateway_timeout_s, now)
        facts = self._facts
        welcome = Welcome(
            version=PROTOCOL_VERSION,
            worker=self._identity.worker,
            module=self._identity.module,
            fingerprint=facts.fingerprint,
            n_slots=facts.n_slots,
            n_heads=facts.n_heads,
            n_codebooks=facts.n_codebooks,
            delay_frames=facts.delay_frames,
            context_frames=facts.context_frames,
            codec_context_frames=facts.codec_context_frames,
            window_frames=self._config.window_frames,
            device=facts.device,
            dtype=facts.dtype,
        )
        return [(routing_id, welcome)]

    def _open(self, gateway: Gateway, message: Open) -> list[Outgoing]:
        held = gateway.slots.get(message.session)
        if held is not None:
            epoch = self._leases.epoch_of(held)
            if message.epoch < epoch:
                return []
            if message.epoch == epoch:
                return self._evict(gateway, held, LinkError.code, f"epoch {epoch} of the session is open already")
            self._leases.end(gateway, held)
        reason = self._refusal(message)
        slot = None if reason else self._leases.open(gateway, message)
        if slot is None:
            refused = Reject(
                session=message.session, epoch=message.epoch, reason=reason or REJECT_FULL, free=self.n_free
            )
            return [(gateway.routing_id, refused)]
        return [(gateway.routing_id, Ready(session=message.session, epoch=message.epoch, slot=slot))]

    def _refusal(self, message: Open) -> str:
        if self._is_draining:
            return REJECT_DRAINING
        if message.resume is not None:
            return REJECT_RESUME
        if not self.n_free:
            return REJECT_FULL
        if message.kind is SessionKind.FILE:
            most = max(1, int(self._config.file_share * self._facts.n_slots))
            return REJECT_FULL if self._leases.n_files >= most else ""
        return ""

    def _close(self, gateway: Gateway, message: Close) -> list[Outgoing]:
        slot = gateway.slots.get(message.session)
        if slot is not None and self._leases.epoch_of(slot) <= message.epoch:
            self._leases.end(gateway, slot)
        return [(gateway.routing_id, Closed(session=message.session, epoch=message.epoch))]

    def _item(self, gateway: Gateway, message: Marker | Flush | Reset, now: float) -> list[Outgoing]:
        slot = gateway.slots.get(message.session)
        if slot is None or message.epoch > self._leases.epoch_of(slot):
            return self._unknown(gateway, [(message.session, message.epoch)], now)
        if message.epoch < self._leases.epoch_of(slot):
            return []
        if isinstance(message, Reset) and message.restart:
            self._leases.restart(slot, message.frame)
            return [(gateway.routing_id, Ready(session=message.session, epoch=message.epoch, slot=slot))]
        try:
            self._leases.push(slot, message)
        except LinkError as error:
            return self._evict(gateway, slot, error.code, str(error))
        return []

    def _unknown(self, gateway: Gateway, routes: Iterable[tuple[int, int]], now: float) -> list[Outgoing]:
        reason = "the worker holds no such session"
        return [
            (
                gateway.routing_id,
                Evict(session=session, epoch=epoch, code=CODE_UNKNOWN_SESSION, reason=reason),
            )
            for session, epoch in routes
            if self._unknown_told.allows((gateway.number, session, epoch), now)
        ]

    # --- audio ------------------------------------------------------------------------------------------------

    def _audio(self, gateway: Gateway, block: AudioBlock, now: float) -> list[Outgoing]:
        rows = self._leases.rows
        slots = gateway.find(block.sessions)
        epochs = np.where(slots == UNKNOWN, 0, rows.epoch[slots])
        is_unknown = block.epochs > epochs
        routes = np.unique(np.stack([block.sessions[is_unknown], block.epochs[is_unknown]], axis=1), axis=0)
        out = self._unknown(gateway, ((int(session), int(epoch)) for session, epoch in routes), now)
        chosen = np.flatnonzero(block.epochs == epochs)
        slots, frames, pcm = slots[chosen], block.frames[chosen], block.pcm[chosen]
        ranks = rank_among_equals(slots)
        faults = {
            CODE_GAP: frames != rows.next_frame[slots] + ranks,
            LinkError.code: rows.unacknowledged[slots] + ranks >= self._config.window_frames,
            BadAudioError.code: ~(np.abs(pcm).max(axis=1, initial=0.0) <= MAX_SAMPLE),
        }
        is_bad = np.zeros(self._facts.n_slots, np.bool_)
        for code, is_fault in faults.items():
            for slot in dict.fromkeys(slots[is_fault & ~is_bad[slots]].tolist()):
                is_bad[slot] = True
                out += self._evict(gateway, SlotIndex(slot), code, self._fault_text(code, SlotIndex(slot)))
        is_good = ~is_bad[slots]
        self._leases.rings.push(slots[is_good], pcm[is_good])
        np.add.at(rows.next_frame, slots[is_good], 1)
        np.add.at(rows.unacknowledged, slots[is_good], 1)
        return out

    def _fault_text(self, code: str, slot: SlotIndex) -> str:
        if code == CODE_GAP:
            return f"frame {self._leases.rows.next_frame[slot]} was to come next"
        if code == BadAudioError.code:
            return f"samples must be numbers of at most {MAX_SAMPLE:g}"
        return f"more frames than the window of {self._config.window_frames}"
