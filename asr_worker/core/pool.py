"""The worker's core: messages of gateways in, one step at a time, messages to gateways out.

    handle(gateway, message)  ─►  replies             whenever something has arrived, even while a step is under way
    settle()                  ─►  blocks of events    between two steps
    plan()                    ─►  the next step, or None if nothing is ready
    spread(result)            ─►  blocks              exactly once for each plan

Time is passed in. A step under way belongs to the leases that it was planned for: those that ended or restarted
meanwhile get nothing of it. Everything that goes out is a pair of a gateway's routing id and a message.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from asr_worker.core.admission import Admission
from asr_worker.core.batch import Batch, in_pieces
from asr_worker.core.gateways import MAX_GATEWAYS, Gateway, GatewayTable
from asr_worker.core.handshake import Identity, unwelcome, welcome, wrong_version
from asr_worker.core.leases import Leases
from asr_worker.core.load import StepTimes
from asr_worker.core.model import ModelFacts, StepPlan, StepResult
from asr_worker.core.results import Results
from asr_worker.core.sessions import Outgoing, Sessions
from shared.config import WorkerConfig
from shared.messages import EVICT_GATEWAY_TIMEOUT, EVICT_HELLO, REJECT_HELLO, Hello, Load, Open, StepBlock, ToWorker


class Pool:
    """Slots, sessions and gateways of one model; what is said about one session is told ``Sessions``."""

    def __init__(
        self,
        *,
        facts: ModelFacts,
        identity: Identity,
        config: WorkerConfig,
        admission: Admission,
        detokenize: Callable[[list[int]], str],
    ) -> None:
        self._facts = facts
        self._admission = admission
        self._identity = identity
        self._config = config
        self._leases = Leases(facts=facts, window_frames=config.window_frames, detokenize=detokenize)
        self._batch = Batch(
            facts=facts,
            rows=self._leases.rows,
            rings=self._leases.rings,
            replays=self._leases.replays,
            generations=self._leases.allocator.generations,
        )
        self._sessions = Sessions(facts=facts, leases=self._leases, admission=admission)
        self._results = Results(facts=facts, leases=self._leases, batch=self._batch)
        self._step_times = StepTimes()
        self._gateways = GatewayTable(config.gateway_timeout_s)

    # --- how it is -------------------------------------------------------------------------------------------

    @property
    def n_used(self) -> int:
        """Slots that sessions hold."""
        return self._sessions.n_used

    @property
    def n_free(self) -> int:
        """Sessions that can still be opened: none while draining."""
        return self._sessions.n_free

    @property
    def is_draining(self) -> bool:
        """Whether no session is admitted any more."""
        return self._sessions.is_draining

    @property
    def gateways(self) -> tuple[bytes, ...]:
        """Routing ids of the gateways that are served."""
        return tuple(gateway.routing_id for gateway in self._gateways)

    def load(self) -> Load:
        """Return how busy the worker is."""
        return Load(
            used=self.n_used,
            free=self.n_free,
            draining=self.is_draining,
            steps=self._results.steps,
            step_p50_ms=1e3 * self._step_times.percentile_s(50),
            step_p99_ms=1e3 * self._step_times.percentile_s(99),
            deadline_s=self._step_times.deadline_s(),
        )

    def check(self) -> None:
        """Assert that slots, sessions and gateways agree; for tests."""
        self._leases.check()
        held = [slot for gateway in self._gateways for slot in gateway.slots.values()]
        assert len(held) == len(set(held)) == self.n_used, "a slot belongs to no gateway, or to two"

    # --- steps ------------------------------------------------------------------------------------------------

    @property
    def planned_generations(self) -> NDArray[np.int64]:
        """``[B]``: the generations of the slots when the last step was planned."""
        return self._batch.planned_generations

    @property
    def planned_oldest_s(self) -> float | None:
        """When the oldest frame of a live session in the last planned step arrived, if it had any."""
        return self._batch.oldest_s

    def note_warm_up(self, step_s: float) -> None:
        """Let a warm-up step stand for the steps to come in the announced deadline."""
        self._step_times.add(step_s)

    def settle(self) -> list[Outgoing]:
        """Let markers, flushes and resets take effect that wait for nothing. No step may be under way."""
        return self._address(self._results.settle())

    def plan(self) -> StepPlan | None:
        """Return the next step, or None if no session has anything to step. Settle first.

        The plan's arrays are reused.
        """
        return self._batch.plan()

    def spread(self, result: StepResult, step_s: float) -> list[Outgoing]:
        """Return what the last planned step, which took ``step_s``, means for each gateway."""
        self._step_times.add(step_s)
        return self._address(self._results.spread(result))

    def _address(self, blocks: dict[int, StepBlock]) -> list[Outgoing]:
        return [
            (self._gateways.numbered(number).routing_id, piece)
            for number, block in blocks.items()
            for piece in in_pieces(block)
        ]

    # --- comings and goings of gateways -----------------------------------------------------------------------

    def drain(self) -> None:
        """Admit no session any more."""
        self._sessions.is_draining = True

    def next_deadline(self) -> float | None:
        """Return when the first gateway will have been silent for too long."""
        return self._gateways.next_deadline()

    def expire(self, now: float) -> list[Outgoing]:
        """Give up the gateways that have been silent for too long, and tell them in case they are not dead."""
        reason = f"no heartbeat of this gateway for {self._config.gateway_timeout_s:g} s"
        return [out for gateway in self._gateways.expired(now) for out in self._give_up(gateway, reason)]

    def gateway_gone(self, routing_id: bytes) -> None:
        """Free the slots of a gateway that nothing can be sent to any more."""
        gateway = self._gateways.get(routing_id)
        if gateway is not None:
            self._give_up(gateway, "unreachable")

    def evict_all(self, code: str, reason: str) -> list[Outgoing]:
        """End every session, giving ``code`` and ``reason``."""
        return [out for gateway in self._gateways for out in self._sessions.evict_all_of(gateway, code, reason)]

    def _give_up(self, gateway: Gateway, reason: str) -> list[Outgoing]:
        evicted = self._sessions.evict_all_of(gateway, EVICT_GATEWAY_TIMEOUT, reason)
        self._gateways.leave(gateway)
        return evicted

    # --- messages ---------------------------------------------------------------------------------------------

    def handle(self, routing_id: bytes, message: ToWorker, now: float) -> list[Outgoing]:
        """Take one message of the gateway ``routing_id`` and return the replies, in order."""
        if isinstance(message, Hello):
            return self._hello(routing_id, message, now)
        gateway = self._gateways.get(routing_id)
        if gateway is None:
            return self._stranger(routing_id, message, now)
        self._gateways.heard_from(gateway, now)
        return self._sessions.handle(gateway, message, now)

    def _hello(self, routing_id: bytes, message: Hello, now: float) -> list[Outgoing]:
        refusal = wrong_version(message.version)
        if refusal is not None:
            return [(routing_id, refusal)]
        gateway = self._gateways.get(routing_id)
        # Hellos stop with the first Welcome, and one connection keeps the order: a Hello behind an Open means that
        # the gateway had given this worker up and has begun anew. Its sessions have ended there.
        evicted = self._sessions.evict_all_of(gateway, EVICT_HELLO, "the gateway began anew") if gateway else []
        return evicted + self._welcome(routing_id, now)

    def _stranger(self, routing_id: bytes, message: ToWorker, now: float) -> list[Outgoing]:
        """Tell a gateway that takes this worker for another incarnation, or was given up, where it stands."""
        answer = self._welcome(routing_id, now)
        gateway = self._gateways.get(routing_id)
        if gateway is None:
            return answer
        if isinstance(message, Open):
            return [*answer, self._sessions.reject(gateway, message, REJECT_HELLO)]
        return answer + self._sessions.handle(gateway, message, now)

    def _welcome(self, routing_id: bytes, now: float) -> list[Outgoing]:
        if self._gateways.enter(routing_id, now) is None:
            return [(routing_id, unwelcome(f"this worker serves {MAX_GATEWAYS} gateways already"))]
        window_frames, n_sessions = self._config.window_frames, self._admission.sessions
        return [(routing_id, welcome(self._facts, self._identity, n_sessions=n_sessions, window_frames=window_frames))]
