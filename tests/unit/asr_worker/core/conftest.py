"""A pool and the fake model in memory, and gateways that talk to it by plain method calls."""

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from asr_worker.core.admission import admit
from asr_worker.core.handshake import Identity
from asr_worker.core.model import StepPlan
from asr_worker.core.pool import Pool
from asr_worker.core.sessions import Outgoing
from asr_worker.core.words import WordEnded, WordEvent, WordSaid
from asr_worker.model.fake import FakeModel
from asr_worker.model.fake_speech import FakeSettings
from shared.config import WorkerConfig
from shared.messages import (
    AudioBlock,
    Close,
    EventKind,
    Flush,
    Hello,
    Load,
    Marker,
    Open,
    Reset,
    SessionKind,
    StepBlock,
    StepEvent,
    ToGateway,
    ToWorker,
    Welcome,
)
from shared.units import FRAME_SAMPLES, Epoch, FrameIndex, SessionId

Pcm = NDArray[np.float32]


def speech(seed: int, n_frames: int) -> Pcm:
    """Noise with pauses: ``[n_frames, 1920]``."""
    random = np.random.default_rng(seed)
    pcm = (random.standard_normal((n_frames, FRAME_SAMPLES)) * 0.1).astype(np.float32)
    quiet = random.random(n_frames) < 0.25
    pcm[quiet] = 0
    return pcm


class Worker:
    """One pool with a fake model. What it sent is kept by session, in ``inbox`` also by gateway and in order."""

    def __init__(self, settings: FakeSettings, config: WorkerConfig) -> None:
        self.settings = settings
        self.model = FakeModel(settings)
        self.pool = Pool(
            facts=self.model.facts,
            identity=Identity(worker="wk:test", module="fake"),
            config=config,
            admission=admit(self.model.facts, config),
            detokenize=self.model.detokenize,
        )
        self.now = 100.0
        self.inbox: defaultdict[bytes, list[ToGateway]] = defaultdict(list)
        self.events: defaultdict[tuple[int, int], list[StepEvent]] = defaultdict(list)
        self.rows: defaultdict[tuple[int, int], list[tuple[int, int, int]]] = defaultdict(list)
        """(frame, steps, flag) of each row of a session, by (session, epoch)."""
        self.log: defaultdict[tuple[int, int], list[object]] = defaultdict(list)
        """Rows as ``"row"`` and events of a session, as they came."""

    def tell(self, message: ToWorker, gateway: bytes = b"gw") -> list[ToGateway]:
        """Give the pool one message; return its replies."""
        return self.keep(self.pool.handle(gateway, message, self.now))

    def greet(self, gateway: bytes = b"gw") -> Welcome:
        """Say Hello and return the Welcome."""
        (welcome,) = self.tell(Hello(version=1, gateway=gateway.decode()), gateway)
        assert isinstance(welcome, Welcome)
        return welcome

    def open(
        self,
        session: int,
        *,
        epoch: int = 1,
        gateway: bytes = b"gw",
        kind: SessionKind = SessionKind.LIVE,
        first_frame: int = 0,
        prefix: int = 0,
    ) -> ToGateway:
        """Open a session and return the answer."""
        message = Open(
            session=SessionId(session),
            epoch=Epoch(epoch),
            kind=kind,
            first_frame=FrameIndex(first_frame),
            silence_prefix_frames=prefix,
        )
        (answer,) = self.tell(message, gateway)
        return answer

    def audio(self, *frames: tuple[int, int, Pcm], epoch: int = 1, gateway: bytes = b"gw") -> list[ToGateway]:
        """Send one block of (session, frame index, samples)."""
        block = AudioBlock(
            sessions=np.array([session for session, _, _ in frames], np.int64),
            epochs=np.full(len(frames), epoch, np.int32),
            frames=np.array([frame for _, frame, _ in frames], np.int64),
            pcm=np.array([pcm for _, _, pcm in frames], np.float32).reshape(len(frames), FRAME_SAMPLES),
        )
        return self.tell(block, gateway)

    def send(self, session: int, pcm: Pcm, first: int = 0) -> list[ToGateway]:
        """Send the frames ``pcm`` of one session."""
        return self.audio(*((session, first + place, frame) for place, frame in enumerate(pcm)))

    def marker(self, session: int, number: int, frame: int, gateway: bytes = b"gw") -> list[ToGateway]:
        """Send a marker."""
        message = Marker(session=SessionId(session), epoch=Epoch(1), id=number, frame=FrameIndex(frame))
        return self.tell(message, gateway)

    def flush(
        self, session: int, number: int | None, frame: int, pad: int = 0, gateway: bytes = b"gw"
    ) -> list[ToGateway]:
        """Send a flush."""
        session_id, index = SessionId(session), FrameIndex(frame)
        return self.tell(Flush(session=session_id, epoch=Epoch(1), id=number, frame=index, pad_samples=pad), gateway)

    def reset(
        self, session: int, number: int | None, frame: int, *, restart: bool = False, gateway: bytes = b"gw"
    ) -> list[ToGateway]:
        """Send a reset, or an Init."""
        session_id, index = SessionId(session), FrameIndex(frame)
        return self.tell(Reset(session=session_id, epoch=Epoch(1), id=number, restart=restart, frame=index), gateway)

    def close(self, session: int, epoch: int = 1, gateway: bytes = b"gw") -> list[ToGateway]:
        """Close a session."""
        return self.tell(Close(session=SessionId(session), epoch=Epoch(epoch)), gateway)

    def launch(self) -> StepPlan | None:
        """Settle and launch one step, if there is one."""
        self.keep(self.pool.settle())
        plan = self.pool.plan()
        if plan is not None:
            self.model.launch(plan)
        return plan

    def collect(self) -> list[ToGateway]:
        """Finish the step under way."""
        return self.keep(self.pool.spread(self.model.collect(), 0.01))

    def run(self, limit: int = 1_000) -> int:
        """Step until nothing is ready; return the number of steps."""
        for n_steps in range(limit):
            if self.launch() is None:
                return n_steps
            self.collect()
        message = f"still busy after {limit} steps"
        raise AssertionError(message)

    def load(self) -> Load:
        return self.pool.load()

    def keep(self, outgoing: list[Outgoing]) -> list[ToGateway]:
        """Sort what the pool sent."""
        for gateway, message in outgoing:
            self.inbox[gateway].append(message)
            if isinstance(message, StepBlock):
                self._keep_block(message)
        self.pool.check()
        return [message for _, message in outgoing]

    def _keep_block(self, block: StepBlock) -> None:
        columns = (block.sessions, block.epochs, block.frames, block.steps, block.flags)
        for session, epoch, frame, steps, flag in zip(*(column.tolist() for column in columns), strict=True):
            self.rows[session, epoch].append((frame, steps, flag))
            self.log[session, epoch].append("row")
        for event in block.events:
            self.events[event.session, event.epoch].append(event)
            self.log[event.session, event.epoch].append(event)

    def words(self, session: int, epoch: int = 1, *, since: int = 0) -> list[WordEvent]:
        """Return the words of a session after its first ``since`` events, as the oracle writes them."""
        said: list[WordEvent] = []
        for event in self.events[session, epoch][since:]:
            if event.kind is EventKind.WORD:
                said.append(WordSaid(event.text, event.time_s))
            elif event.kind is EventKind.END_WORD:
                said.append(WordEnded(event.time_s))
        return said

    def answers(self, session: int, epoch: int = 1, *, since: int = 0) -> list[tuple[EventKind, int | None]]:
        """Return the markers, flushes and resets of a session that were answered after its first ``since`` events."""
        events = self.events[session, epoch][since:]
        return [(e.kind, e.id) for e in events if e.kind not in (EventKind.WORD, EventKind.END_WORD)]


MakeWorker = Callable[..., Worker]


@pytest.fixture
def make_worker() -> MakeWorker:
    """Return a function that makes a worker of 3 slots that gateway ``gw`` has greeted."""

    def make(config: WorkerConfig | None = None, **settings: int) -> Worker:
        chosen = {"n_slots": 3, "context_frames": 100} | settings
        worker = Worker(FakeSettings(**chosen), config or WorkerConfig())  # type: ignore[arg-type]
        worker.greet()
        return worker

    return make


@pytest.fixture
def worker(make_worker: MakeWorker) -> Worker:
    return make_worker()


@pytest.fixture
def make_speech() -> Callable[[int, int], Pcm]:
    return speech
