"""The cores of a gateway and of two workers, joined by lists of message parts: no socket, no clock, no process.

    client played by rules ──► Session ──► Outbound ──► parts ──► Pool ──► fake model
             ▲                    │  Fleet                          │
             '──── what was sent ─'◄──────────── parts ◄────────────'

Hypothesis decides who does what, when anything travels, and when a worker dies, drains or gives its sessions up. In the
end every client must have been told exactly what a plain computation over its own audio says, whatever its neighbours
did and wherever it was served.
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
from asr_gateway.core.outbound import Outbound
from asr_gateway.core.replay import ReplayBounds, ReplayLog, step_records
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
    Evict,
    Hello,
    Load,
    Ready,
    Reject,
    SessionKind,
    StepBlock,
    StepEvent,
    ToGateway,
    ToWorker,
    Welcome,
)
from shared.units import FRAME_SAMPLES, SessionId
from shared.wire import decode_to_gateway, decode_to_worker, encode

GATEWAY = b"gw:memory"
FAKE = FakeSettings(n_slots=2, n_heads=2, n_codebooks=4, delay_frames=3)
N_SLOTS = FAKE.n_slots
N_WORKERS = 2
MAX_CLIENTS = 5


@dataclass
class Client:
    """What one client did, and what it was told since its last Ready."""

    session: Session
    worker: "Worker | None" = None
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


class Worker:
    """One worker and what travels between it and the gateway, in the incarnations that follow each other."""

    def __init__(self, number: int) -> None:
        self.endpoint = f"ipc://memory-{number}"
        self.n_lives = 0
        self.begin()

    def begin(self) -> None:
        """Be another process: nothing of the one before is left, on the way neither."""
        self.n_lives += 1
        self.model = FakeModel(FAKE)
        self.pool = Pool(
            facts=self.model.facts,
            identity=Identity(worker=f"wk:{self.endpoint}:{self.n_lives}", module="asr"),
            config=WorkerConfig(window_frames=3),
            admission=admit(self.model.facts, WorkerConfig()),
            detokenize=self.model.detokenize,
        )
        self.inbox: deque[list[Any]] = deque()
        self.outbox: deque[list[Any]] = deque()
        self.send(Hello(version=PROTOCOL_VERSION, gateway="memory"))

    def send(self, message: ToWorker) -> None:
        self.inbox.append(encode(message))

    def reply(self, outgoing: list[tuple[bytes, ToGateway]]) -> None:
        self.outbox.extend(encode(message) for _, message in outgoing)

    def hear(self, now: float) -> None:
        self.reply(self.pool.handle(GATEWAY, decode_to_worker(self.inbox.popleft()), now))

    def step(self) -> None:
        self.reply(self.pool.settle())
        plan = self.pool.plan()
        if plan is not None:
            self.model.launch(plan)
            self.reply(self.pool.spread(self.model.collect(), 0.01))


class CoresInMemory(RuleBasedStateMachine):
    """One gateway with up to five clients, two workers with two slots each."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.fleet = Fleet(GatewayConfig(), Random(0))
        self.budget = ByteBudget(1 << 30)
        self.replay_budget = ByteBudget(1 << 30)
        self.clients: dict[SessionId, Client] = {}
        self.workers = {worker.endpoint: worker for worker in map(Worker, range(N_WORKERS))}
        self.noise = np.random.default_rng(1)
        self.n_sessions = 0
        self.run_to_the_end()

    # --- the link -----------------------------------------------------------------------------------------

    @rule()
    def gather(self) -> None:
        for worker in self.workers.values():
            out = Outbound(5)
            for client in self.clients.values():
                if client.worker is worker:
                    client.session.take(out)
            for control in out.controls:
                worker.send(control)
            block = out.block()
            if block is not None:
                worker.send(block)

    @rule(data=st.data())
    def worker_hears(self, data: st.DataObject) -> None:
        worker = self.any_worker(data)
        if worker.inbox:
            worker.hear(self.now)

    @rule(data=st.data())
    def worker_steps(self, data: st.DataObject) -> None:
        self.any_worker(data).step()

    @rule(n_turns=st.integers(1, 8))
    def time_goes_on(self, n_turns: int) -> None:
        for _ in range(n_turns):
            self.turn()

    @rule(data=st.data())
    def gateway_hears_from(self, data: st.DataObject) -> None:
        worker = self.any_worker(data)
        if worker.outbox:
            self.gateway_hears(worker)

    def gateway_hears(self, worker: Worker) -> None:
        message = decode_to_gateway(worker.outbox.popleft())
        match message:
            case Ready():
                client = self.current(worker, message)
                if self.is_reserved(message):
                    actions = self.fleet.reserved(message.session, worker.endpoint, self.now)
                    if not actions:
                        worker.send(Close(session=message.session, epoch=message.epoch))
                    self.perform(actions)
                elif client is None:
                    worker.send(Close(session=message.session, epoch=message.epoch))
                else:
                    self.grant(client, worker)
            case StepBlock():
                self.fan_out(message)
            case _:
                self.perform(self.hear_of(worker, message))

    def hear_of(self, worker: Worker, message: ToGateway) -> list[FleetAction]:
        match message:
            case Welcome():
                return self.fleet.welcomed(worker.endpoint, message, self.now)
            case Load():
                return self.fleet.loaded(worker.endpoint, message, self.now)
            case Closed():
                return self.fleet.freed(worker.endpoint, self.now)
            case Reject() | Evict():
                return self.hear_no(worker, message)
            case _:
                raise AssertionError(message)

    def hear_no(self, worker: Worker, message: Reject | Evict) -> list[FleetAction]:
        session = message.session
        if self.is_reserved(message) and isinstance(message, Reject):
            self.fleet.not_reserved(session, worker.endpoint, message.reason, message.free, self.now)
        if self.current(worker, message) is None:
            return []
        if isinstance(message, Reject):
            return self.fleet.rejected(session, message.reason, message.free, self.now)
        return self.fleet.evicted(session, is_restart=True, is_fault=False, now=self.now)

    def grant(self, client: Client, worker: Worker) -> None:
        session, facts = client.session, self.fleet.facts(worker.endpoint)
        self.fleet.granted(session.id, worker.endpoint)
        if session.state is SessionState.WAITING:
            assert session.replay is not None
            session.replay.begin(context_frames=facts.context_frames, delay_frames=facts.delay_frames)
        client.n_readys += session.grant(facts.window_frames)

    def fan_out(self, block: StepBlock) -> None:
        for row, (number, epoch, record) in enumerate(
            zip(block.sessions.tolist(), block.epochs.tolist(), step_records(block), strict=True)
        ):
            client = self.clients.get(number)
            if client is None or client.session.epoch != epoch:
                continue
            buffered = client.session.stepped(record)
            if buffered is not None:
                client.steps.append(int(block.steps[row]))
                client.buffered = buffered
        for event in block.events:
            client = self.clients.get(event.session)
            if client is not None and client.session.epoch == event.epoch and client.session.deliver(event):
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

    def current(self, worker: Worker, message: Ready | Reject | Evict) -> Client | None:
        client = self.clients.get(message.session)
        is_meant = client is not None and client.session.epoch == message.epoch and client.worker is worker
        return client if is_meant else None

    def is_reserved(self, message: Ready | Reject | Evict) -> bool:
        client = self.clients.get(message.session)
        return client is not None and client.session.reserved_epoch == message.epoch

    def perform(self, actions: list[FleetAction]) -> None:
        for action in actions:
            match action:
                case OpenSlot():
                    client, worker = self.clients[action.session], self.workers[action.worker]
                    client.worker = worker
                    worker.send(client.session.opening())
                case ReserveSlot():
                    self.workers[action.worker].send(self.clients[action.session].session.reservation())
                case MoveSession():
                    client = self.clients[action.session]
                    if action.has_reserved and client.worker is not None:
                        client.worker.send(Close(session=client.session.id, epoch=client.session.epoch))
                    client.worker = None
                    client.session.lose()
                case RefuseSession() | EndSession():
                    client = self.clients[action.session]
                    client.is_refused = True
                    self.close(client)
                case DropWorker():
                    self.begin_anew(self.workers[action.worker])

    def begin_anew(self, worker: Worker) -> None:
        worker.begin()
        for client in self.clients.values():
            if client.worker is worker and client.session.state is SessionState.WAITING:
                client.worker = None

    # --- what befalls workers -----------------------------------------------------------------------------

    @rule(data=st.data(), much_later=st.booleans())
    def worker_dies(self, data: st.DataObject, much_later: bool) -> None:  # noqa: FBT001
        # Somebody under whom two die within a minute is suspected, and ends.
        self.now += 61.0 if much_later else 0.0
        self.kill(self.any_worker(data))

    def kill(self, worker: Worker) -> None:
        self.begin_anew(worker)
        self.perform(self.fleet.lost(worker.endpoint, self.now))

    @rule(data=st.data())
    def worker_drains(self, data: st.DataObject) -> None:
        self.drain(self.any_worker(data))

    def drain(self, worker: Worker) -> None:
        worker.pool.drain()
        worker.reply([(GATEWAY, worker.pool.load())])

    @rule(data=st.data())
    def worker_gives_all_up(self, data: st.DataObject) -> None:
        self.give_up_all(self.any_worker(data))

    def give_up_all(self, worker: Worker) -> None:
        worker.reply(worker.pool.evict_all("gap", "frames are missing"))

    @precondition(lambda self: any(worker.pool.is_draining for worker in self.workers.values()))
    @rule()
    def worker_goes(self) -> None:
        for worker in self.workers.values():
            if worker.pool.is_draining:
                worker.reply(worker.pool.evict_all("restarting", "the worker is shutting down"))
                while worker.outbox:
                    self.gateway_hears(worker)
                self.kill(worker)

    @rule(data=st.data())
    def worker_says_how_busy_it_is(self, data: st.DataObject) -> None:
        worker = self.any_worker(data)
        worker.reply([(GATEWAY, worker.pool.load())])

    def any_worker(self, data: st.DataObject) -> Worker:
        return self.workers[data.draw(st.sampled_from(sorted(self.workers)))]

    # --- clients ------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.clients) < MAX_CLIENTS)
    @rule()
    def open(self) -> None:
        self.n_sessions += 1
        account = AudioAccount(self.budget, AudioBounds(guaranteed_samples=0, max_samples=1 << 40))
        session = Session(
            session_id=SessionId(self.n_sessions),
            kind=SessionKind.LIVE,
            account=account,
            replay=ReplayLog(ReplayBounds.of(20.0, self.replay_budget)),
        )
        self.clients[session.id] = Client(session)
        self.perform(self.fleet.opened(session.id, "asr", SessionKind.LIVE, self.now))

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
        if close is not None and client.worker is not None:
            client.worker.send(close)

    # --- what must hold -----------------------------------------------------------------------------------

    @invariant()
    def every_slot_is_free_or_leased_once(self) -> None:
        for worker in self.workers.values():
            worker.pool.check()

    @invariant()
    def steps_are_counted_from_one_without_a_gap(self) -> None:
        for client in self.clients.values():
            assert client.steps == list(range(1, len(client.steps) + 1))
            assert client.buffered >= 0

    def turn(self) -> bool:
        """Let everything travel and every worker step once; return whether anything happened."""
        workers = self.workers.values()
        before = [worker.pool.load().steps for worker in workers]
        # One turn takes only so much of what sessions hold.
        self.gather()
        is_busy = any(worker.inbox for worker in workers)
        for worker in workers:
            while worker.inbox:
                worker.hear(self.now)
            worker.step()
            is_busy |= bool(worker.outbox)
            while worker.outbox:
                self.gateway_hears(worker)
        return is_busy or any(worker.inbox for worker in workers) or before != [w.pool.load().steps for w in workers]

    def run_to_the_end(self) -> None:
        while self.turn():
            pass

    def teardown(self) -> None:
        for client in self.clients.values():
            client.session.is_output_full = False
            self.ask_for_flush(client)
        self.run_to_the_end()
        for worker in self.workers.values():
            if worker.pool.is_draining:
                self.worker_goes()
        self.run_to_the_end()
        # Who did not answer in time is asked again after its next Load, which workers send all the time.
        for worker in self.workers.values():
            self.perform(self.fleet.loaded(worker.endpoint, worker.pool.load(), self.now))
        self.run_to_the_end()
        served = [client for client in self.clients.values() if client.session.state is SessionState.STREAMING]
        assert len(served) == min(N_SLOTS * N_WORKERS, len(self.clients))
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
        assert [worker.pool.n_used for worker in self.workers.values()] == [0] * N_WORKERS
        assert self.budget.used_bytes == self.replay_budget.used_bytes == 0


CoresInMemory.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
test_clients_are_told_what_their_own_audio_says = CoresInMemory.TestCase


def talk_through_losses(seed: int) -> int:
    """Let one client talk while its workers die, drain or give it up again and again; return how often that was."""
    random, cores = Random(seed), CoresInMemory()
    cores.open()
    (client,) = cores.clients.values()
    n_losses = 0
    for _ in range(40):
        match random.choices(("speak", "marker", "flush", "reset", "init", "lose"), (12, 3, 4, 2, 1, 4))[0]:
            case "speak":
                n_samples, level = random.choice((1, 700, 1_920, 5_000, 30_000)), random.choice((0.0, 0.2))
                pcm = cores.noise.standard_normal(n_samples, np.float32) * np.float32(level)
                client.session.receive_audio(pcm)
                client.heard(pcm)
            case "marker":
                client.markers.append(len(client.markers))
                client.session.receive_marker(client.markers[-1])
            case "flush":
                cores.ask_for_flush(client)
            case "reset":
                client.session.receive_reset(None)
                client.ops.append(None)
            case "init":
                client.session.receive_init()
                client.restart()
            case "lose" if client.worker is not None and client.session.state is SessionState.STREAMING:
                n_losses += 1
                cores.now += 61.0
                lose = random.choice((cores.kill, cores.drain, cores.give_up_all))
                lose(client.worker)
        for _ in range(random.choice((0, 1, 3, 12))):
            cores.turn()
    cores.teardown()
    return n_losses


def test_a_session_may_move_at_any_moment() -> None:
    assert sum(talk_through_losses(seed) for seed in range(40)) > 100
