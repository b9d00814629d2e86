"""The cores of a gateway and of a worker, joined by lists of message parts: no socket, no clock, no process.

    client played by rules ──► Session ──► Outbound ──► parts ──► Pool ──► fake model
             ▲                    │  Fleet                          │
             '──── what was sent ─'◄──────────── parts ◄────────────'

Hypothesis decides who does what and when anything travels. In the end every client must have been told exactly what a
plain computation over its own audio says, whatever its neighbours did.
"""

from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from numpy.typing import NDArray

from asr_gateway.core.fleet import Fleet
from asr_gateway.core.fleet_actions import EndSession, FleetAction, OpenSlot, RefuseSession
from asr_gateway.core.limits import AudioAccount, AudioBounds, ByteBudget
from asr_gateway.core.outbound import Outbound
from asr_gateway.core.session import Session, SessionState
from asr_worker.core.admission import admit
from asr_worker.core.handshake import Identity
from asr_worker.core.pool import Pool
from asr_worker.core.words import WordSaid
from asr_worker.model.fake import FakeModel
from asr_worker.model.fake_oracle import FakeTranscript
from asr_worker.model.fake_speech import FakeSettings
from shared.config import GatewayConfig, WorkerConfig
from shared.messages import (
    PROTOCOL_VERSION,
    Close,
    Closed,
    EventKind,
    Hello,
    Ready,
    Reject,
    SessionKind,
    StepBlock,
    StepEvent,
    StepFlag,
    ToGateway,
    ToWorker,
    Welcome,
)
from shared.units import FRAME_SAMPLES, SessionId
from shared.wire import decode_to_gateway, decode_to_worker, encode

GATEWAY = b"gw:memory"
WORKER = "ipc://memory"
FAKE = FakeSettings(n_slots=2, n_heads=2, n_codebooks=4, delay_frames=3)
N_SLOTS = FAKE.n_slots
MAX_CLIENTS = 4


@dataclass
class Client:
    """What one client did, and what it was told since its last Ready."""

    session: Session
    is_refused: bool = False
    n_readys: int = 0
    n_inits: int = 0
    told: list[str] = field(default_factory=list)
    markers: list[int] = field(default_factory=list)
    markers_told: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    buffered: int = 0
    ops: list[NDArray[np.float32] | int | None] = field(default_factory=list)
    """Frames, the padding of a flush, or None for a reset."""
    partial: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    n_received: int = 0

    def restart(self) -> None:
        self.n_inits += 1
        self.told, self.markers, self.markers_told, self.steps, self.ops = [], [], [], [], []
        self.partial = np.empty(0, np.float32)
        self.n_received = self.buffered = 0

    def heard(self, pcm: NDArray[np.float32]) -> None:
        samples = np.concatenate([self.partial, pcm])
        n_whole = len(samples) // FRAME_SAMPLES * FRAME_SAMPLES
        self.ops.append(samples[:n_whole].reshape(-1, FRAME_SAMPLES))
        self.partial = samples[n_whole:]
        self.n_received += len(pcm)

    def pad(self) -> int:
        n_zeros = -len(self.partial) % FRAME_SAMPLES
        self.heard(np.zeros(n_zeros, np.float32))
        return n_zeros

    def expected(self) -> list[str]:
        transcript = FakeTranscript(FAKE)
        lines: list[str] = []
        for op in self.ops:
            match op:
                case np.ndarray():
                    lines += map(_line, transcript.feed(op))
                case int():
                    lines += map(_line, transcript.flush(op))
                    lines.append("FLUSHED")
                case _:
                    transcript.reset()
                    lines.append("RESET_DONE")
        return lines


def _line(event: Any) -> str:
    return f"{event.text} {event.start_s:.3f}" if isinstance(event, WordSaid) else f"/ {event.stop_s:.3f}"


class CoresInMemory(RuleBasedStateMachine):
    """One gateway with up to four clients, one worker with two slots."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.model = FakeModel(FAKE)
        self.pool = Pool(
            facts=self.model.facts,
            identity=Identity(worker="wk:memory", module="asr"),
            config=WorkerConfig(window_frames=3),
            admission=admit(self.model.facts, WorkerConfig()),
            detokenize=self.model.detokenize,
        )
        self.fleet = Fleet(GatewayConfig(), Random(0))
        self.budget = ByteBudget(1 << 30)
        self.clients: dict[SessionId, Client] = {}
        self.gone: list[Client] = []
        self.to_worker: deque[list[Any]] = deque()
        self.to_gateway: deque[list[Any]] = deque()
        self.noise = np.random.default_rng(1)
        self.n_sessions = 0
        self.send(Hello(version=PROTOCOL_VERSION, gateway="memory"))
        self.run_to_the_end()

    # --- the link -----------------------------------------------------------------------------------------

    def send(self, message: ToWorker) -> None:
        self.to_worker.append(encode(message))

    def reply(self, outgoing: list[tuple[bytes, ToGateway]]) -> None:
        self.to_gateway.extend(encode(message) for _, message in outgoing)

    @rule()
    def gather(self) -> None:
        out = Outbound(5)
        for client in self.clients.values():
            client.session.take(out)
        for control in out.controls:
            self.send(control)
        block = out.block()
        if block is not None:
            self.send(block)

    @precondition(lambda self: self.to_worker)
    @rule()
    def worker_hears(self) -> None:
        self.reply(self.pool.handle(GATEWAY, decode_to_worker(self.to_worker.popleft()), self.now))

    @rule()
    def worker_steps(self) -> None:
        self.reply(self.pool.settle())
        plan = self.pool.plan()
        if plan is not None:
            self.model.launch(plan)
            self.reply(self.pool.spread(self.model.collect(), 0.01))

    @precondition(lambda self: self.to_gateway)
    @rule()
    def gateway_hears(self) -> None:
        message = decode_to_gateway(self.to_gateway.popleft())
        match message:
            case Welcome():
                self.perform(self.fleet.welcomed(WORKER, message, self.now))
            case Ready():
                client = self.current(message)
                if client is None:
                    self.send(Close(session=message.session, epoch=message.epoch))
                else:
                    self.fleet.granted(client.session.id, WORKER)
                    client.n_readys += client.session.grant(self.fleet.facts(WORKER).window_frames)
            case Reject():
                if self.current(message) is not None:
                    self.perform(self.fleet.rejected(message.session, message.reason, message.free, self.now))
            case StepBlock():
                self.fan_out(message)
            case Closed():
                self.perform(self.fleet.freed(WORKER, self.now))
            case _:
                raise AssertionError(message)

    def fan_out(self, block: StepBlock) -> None:
        for row, session in enumerate(block.sessions.tolist()):
            client = self.clients.get(session)
            if client is None or block.flags[row] != StepFlag.CLIENT:
                continue
            buffered = client.session.stepped(int(block.frames[row]))
            if buffered is not None:
                client.steps.append(int(block.steps[row]))
                client.buffered = buffered
        for event in block.events:
            client = self.clients.get(event.session)
            if client is not None and client.session.deliver(event):
                self.tell(client, event)

    def tell(self, client: Client, event: StepEvent) -> None:
        match event.kind:
            case EventKind.WORD:
                client.told.append(f"{event.text} {event.time_s:.3f}")
            case EventKind.END_WORD:
                client.told.append(f"/ {event.time_s:.3f}")
            case EventKind.MARKER:
                assert event.id is not None
                client.markers_told.append(event.id)
            case _:
                client.told.append(event.kind.name)

    def current(self, message: Ready | Reject) -> Client | None:
        client = self.clients.get(message.session)
        return client if client is not None and client.session.epoch == message.epoch else None

    def perform(self, actions: list[FleetAction]) -> None:
        for action in actions:
            match action:
                case OpenSlot():
                    self.send(self.clients[action.session].session.opening())
                case RefuseSession():
                    client = self.clients[action.session]
                    client.is_refused = True
                    self.close(client)
                case EndSession():
                    raise AssertionError(action)

    # --- clients ------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.clients) < MAX_CLIENTS)
    @rule()
    def open(self) -> None:
        self.n_sessions += 1
        account = AudioAccount(self.budget, AudioBounds(guaranteed_samples=0, max_samples=1 << 40))
        session = Session(session_id=SessionId(self.n_sessions), kind=SessionKind.LIVE, account=account)
        self.clients[session.id] = Client(session)
        self.perform(self.fleet.request(session.id, "asr", SessionKind.LIVE, self.now))

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), n_samples=st.sampled_from([1, 500, 1_920, 2_000, 9_600, 40_000]), loud=st.booleans())
    def speak(self, data: st.DataObject, n_samples: int, loud: bool) -> None:  # noqa: FBT001
        client = self.any_client(data)
        pcm = self.noise.standard_normal(n_samples, np.float32) * np.float32(0.2 if loud else 0.0)
        client.session.receive_audio(pcm)
        client.heard(pcm)

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def ask_for_marker(self, data: st.DataObject) -> None:
        client = self.any_client(data)
        client.markers.append(len(client.markers))
        client.session.receive_marker(client.markers[-1])

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def flush(self, data: st.DataObject) -> None:
        self.ask_for_flush(self.any_client(data))

    def ask_for_flush(self, client: Client) -> None:
        client.session.receive_flush(None)
        client.ops.append(client.pad())

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def reset(self, data: st.DataObject) -> None:
        client = self.any_client(data)
        client.session.receive_reset(None)
        client.ops.append(None)

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def init(self, data: st.DataObject) -> None:
        client = self.any_client(data)
        client.session.receive_init()
        client.restart()

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), full=st.booleans())
    def read_slowly(self, data: st.DataObject, full: bool) -> None:  # noqa: FBT001
        self.any_client(data).session.is_output_full = full

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.close(self.any_client(data))

    @rule()
    def wait(self) -> None:
        self.now += 0.15
        self.perform(self.fleet.expire(self.now))

    def any_client(self, data: st.DataObject) -> Client:
        return data.draw(st.sampled_from(sorted(self.clients.values(), key=lambda client: client.session.id)))

    def close(self, client: Client) -> None:
        del self.clients[client.session.id]
        self.fleet.released(client.session.id)
        close = client.session.close()
        if close is not None:
            self.send(close)

    # --- what must hold -----------------------------------------------------------------------------------

    @invariant()
    def every_slot_is_free_or_leased_once(self) -> None:
        self.pool.check()

    @invariant()
    def steps_are_counted_from_one_without_a_gap(self) -> None:
        for client in self.clients.values():
            assert client.steps == list(range(1, len(client.steps) + 1))
            assert client.buffered >= 0

    def run_to_the_end(self) -> None:
        while True:
            before = len(self.to_worker), len(self.to_gateway), self.pool.load().steps
            self.gather()
            # One turn takes only so much of what sessions hold.
            has_sent = bool(self.to_worker)
            while self.to_worker:
                self.worker_hears()
            self.worker_steps()
            while self.to_gateway:
                self.gateway_hears()
            if before == (0, 0, self.pool.load().steps) and not has_sent and not self.to_worker:
                return

    def teardown(self) -> None:
        for client in self.clients.values():
            client.session.is_output_full = False
            self.ask_for_flush(client)
        self.run_to_the_end()
        # Who did not answer in time is asked again after its next Load, which workers send all the time.
        self.perform(self.fleet.loaded(WORKER, self.pool.load(), self.now))
        self.run_to_the_end()
        served = [client for client in self.clients.values() if client.session.state is SessionState.STREAMING]
        assert len(served) == min(N_SLOTS, len(self.clients))
        for client in served:
            assert client.told == client.expected()
            assert client.markers_told == client.markers
            assert client.n_readys == 1 + client.n_inits
            assert client.buffered == 0
            assert len(client.steps) * FRAME_SAMPLES == client.n_received
            assert not client.session.is_busy
        for client in list(self.clients.values()):
            self.close(client)
        self.run_to_the_end()
        assert self.pool.n_used == 0
        assert self.budget.used_bytes == 0


CoresInMemory.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_clients_are_told_what_their_own_audio_says = CoresInMemory.TestCase
