"""A real worker process with the fake model, and a gateway of a few lines that talks to it over real sockets."""

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from numpy.typing import NDArray

from asr_worker.core.words import WordEnded, WordEvent, WordSaid
from shared.messages import (
    AudioBlock,
    Close,
    Closed,
    EventKind,
    Flush,
    Heartbeat,
    Hello,
    Marker,
    Open,
    Ready,
    Reject,
    Reset,
    SessionKind,
    StepBlock,
    StepEvent,
    StepFlag,
    ToGateway,
    ToWorker,
    Welcome,
)
from shared.units import FRAME_SAMPLES, Epoch, FrameIndex, SessionId
from shared.wire import decode_to_gateway, encode

PATIENCE_S = 20.0
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("ASR_")} | {
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}

Pcm = NDArray[np.float32]


def speech(seed: int, n_frames: int) -> Pcm:
    """Noise with pauses: ``[n_frames, 1920]``."""
    random = np.random.default_rng(seed)
    pcm = (random.standard_normal((n_frames, FRAME_SAMPLES)) * 0.1).astype(np.float32)
    pcm[random.random(n_frames) < 0.25] = 0
    return pcm


class WorkerProcess:
    """``asr-worker`` in a folder of its own; ``endpoint`` is where it listens."""

    def __init__(self, folder: Path, *flags: str, bind: str = "tcp://127.0.0.1:0") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        announcement = folder / "endpoint"
        announcement.unlink(missing_ok=True)
        command = [sys.executable, "-m", "asr_worker", "--bind", bind, "--announce", str(announcement), *flags]
        self._output = folder / "output"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=output, stderr=output)
        deadline = time.monotonic() + PATIENCE_S
        while not announcement.exists():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.01)
        self.endpoint = announcement.read_text().strip()

    def output(self) -> str:
        return self._output.read_text()

    def metrics_url(self) -> str:
        match = re.search(r"http://[\d.:]+", self.output())
        assert match, self.output()
        return match[0]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


class Gateway:
    """One DEALER. What arrives is kept by session; credit is counted."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> None:
        self.name = f"gw:test:{uuid.uuid4()}"
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.ROUTING_ID, self.name.encode())
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(endpoint)
        self.sessions: dict[int, Session] = {}
        self.other: list[ToGateway] = []
        self._last_sent_s = 0.0

    def send(self, message: ToWorker) -> None:
        self.socket.send_multipart(encode(message))
        self._last_sent_s = time.monotonic()

    def hello(self) -> Welcome:
        """Introduce the gateway and return the worker's facts."""
        self.send(Hello(version=1, gateway=self.name))
        return self.expect(Welcome)

    def receive(self, within_s: float = PATIENCE_S) -> ToGateway | None:
        """Return the next message, sorted into its session too; None if none came. Heartbeats go out meanwhile."""
        deadline = time.monotonic() + within_s
        while (left_s := deadline - time.monotonic()) > 0:
            if time.monotonic() > self._last_sent_s + 1.0:
                self.send(Heartbeat())
            if self.socket.poll(int(1e3 * min(left_s, 0.5)) + 1):
                message = decode_to_gateway(self.socket.recv_multipart())
                self._sort(message)
                return message
        return None

    def run(self, until: Callable[[], Any], within_s: float = PATIENCE_S) -> None:
        """Receive, and let every session send what it has credit for, until ``until`` says true."""
        deadline = time.monotonic() + within_s
        while not until():
            assert time.monotonic() < deadline, f"waited in vain; last messages: {self.other[-3:]}"
            self._send_audio()
            self.receive(0.1)

    def expect(self, kind: type[Any], within_s: float = PATIENCE_S) -> Any:
        """Receive until a message of ``kind`` has come, and return it."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            message = self.receive(deadline - time.monotonic())
            if isinstance(message, kind):
                return message
        raise AssertionError(f"no {kind.__name__} came; last messages: {self.other[-3:]}")  # noqa: TRY003, EM102

    def open(self, session: int, *, kind: SessionKind = SessionKind.LIVE, prefix: int = 0) -> ToGateway:
        """Ask for a slot and return the answer."""
        self.sessions[session] = Session(self, session)
        self.send(
            Open(
                session=SessionId(session),
                epoch=Epoch(1),
                kind=kind,
                first_frame=FrameIndex(0),
                silence_prefix_frames=prefix,
            )
        )
        answer: ToGateway = self.expect((Ready, Reject))  # type: ignore[arg-type]
        return answer

    def close(self, session: int) -> Closed:
        """Give a session's slot back and return the answer."""
        self.send(Close(session=SessionId(session), epoch=Epoch(1)))
        answer: Closed = self.expect(Closed)
        del self.sessions[session]
        return answer

    def _send_audio(self) -> None:
        due = [(session, *frame) for session in self.sessions.values() for frame in session.take()]
        if due:
            block = AudioBlock(
                sessions=np.array([session.id for session, _, _ in due], np.int64),
                epochs=np.ones(len(due), np.int32),
                frames=np.array([number for _, number, _ in due], np.int64),
                pcm=np.stack([pcm for _, _, pcm in due]),
            )
            self.send(block)
        for session in self.sessions.values():
            session.send_items()

    def _sort(self, message: ToGateway) -> None:
        if not isinstance(message, StepBlock):
            self.other.append(message)
            return
        rows = zip(message.sessions.tolist(), message.frames.tolist(), message.flags.tolist(), strict=True)
        for number, frame, flag in rows:
            if session := self.sessions.get(number):
                session.rows.append((frame, flag))
                session.credit += flag == StepFlag.CLIENT
        for event in message.events:
            if session := self.sessions.get(event.session):
                session.events.append(event)


class Session:
    """What one session still has to send, and what it was sent."""

    def __init__(self, gateway: Gateway, number: int) -> None:
        self.id = number
        self.credit = 25
        self.rows: list[tuple[int, int]] = []
        self.events: list[StepEvent] = []
        self._gateway = gateway
        self._queue: list[Pcm] = []
        self._items: list[tuple[int, Callable[[int], ToWorker]]] = []
        self._n_sent = 0

    def say(self, pcm: Iterable[Pcm]) -> None:
        """Queue frames; they go out as credit allows."""
        self._queue += list(pcm)

    def marker(self, number: int) -> None:
        """Queue a marker behind what was queued."""
        self._ask(lambda frame: Marker(session=SessionId(self.id), epoch=Epoch(1), id=number, frame=FrameIndex(frame)))

    def flush(self, number: int | None = None, pad: int = 0) -> None:
        """Queue a flush behind what was queued."""
        self._ask(
            lambda frame: Flush(
                session=SessionId(self.id), epoch=Epoch(1), id=number, frame=FrameIndex(frame), pad_samples=pad
            )
        )

    def reset(self, number: int | None = None) -> None:
        """Queue a reset behind what was queued."""
        self._ask(
            lambda frame: Reset(
                session=SessionId(self.id), epoch=Epoch(1), id=number, restart=False, frame=FrameIndex(frame)
            )
        )

    def init(self) -> Ready:
        """Start afresh at once, whatever is under way."""
        self._queue.clear()
        self._items.clear()
        reset = Reset(session=SessionId(self.id), epoch=Epoch(1), id=None, restart=True, frame=FrameIndex(self._n_sent))
        self._gateway.send(reset)
        ready: Ready = self._gateway.expect(Ready)
        self.credit = 25
        self.rows.clear()
        self.events.clear()
        return ready

    def take(self) -> Iterator[tuple[int, Pcm]]:
        """Yield the frames that may be sent now."""
        while self._queue and self.credit:
            self.credit -= 1
            yield self._n_sent, self._queue.pop(0)
            self._n_sent += 1

    def send_items(self) -> None:
        """Send the items whose frames are all sent."""
        while self._items and self._items[0][0] <= self._n_sent:
            frame, build = self._items.pop(0)
            self._gateway.send(build(frame))

    @property
    def words(self) -> list[WordEvent]:
        """What was said, as the oracle writes it."""
        said: dict[EventKind, Callable[[StepEvent], WordEvent]] = {
            EventKind.WORD: lambda event: WordSaid(event.text, event.time_s),
            EventKind.END_WORD: lambda event: WordEnded(event.time_s),
        }
        return [said[event.kind](event) for event in self.events if event.kind in said]

    @property
    def answers(self) -> list[tuple[EventKind, int | None]]:
        """Markers, flushes and resets that were answered."""
        return [(e.kind, e.id) for e in self.events if e.kind not in (EventKind.WORD, EventKind.END_WORD)]

    def _ask(self, build: Callable[[int], ToWorker]) -> None:
        self._items.append((self._n_sent + len(self._queue), build))


@pytest.fixture(scope="module")
def start_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., WorkerProcess]]:
    """Return a function that starts a worker with the fake model; all are killed at the end."""
    started: list[WorkerProcess] = []

    def start(*flags: str, model: str | None = "fake", **places: Any) -> WorkerProcess:
        folder = places.pop("folder", None) or tmp_path_factory.mktemp("worker")
        chosen = ("--model", model) if model else ()
        started.append(WorkerProcess(folder, *chosen, *flags, **places))
        return started[-1]

    yield start
    for worker in started:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()


@pytest.fixture
def connect() -> Iterator[Callable[[WorkerProcess], Gateway]]:
    """Return a function that connects a new gateway to a worker."""
    context = zmq.Context()
    gateways: defaultdict[str, list[Gateway]] = defaultdict(list)

    def make(worker: WorkerProcess) -> Gateway:
        gateways[worker.endpoint].append(Gateway(context, worker.endpoint))
        return gateways[worker.endpoint][-1]

    yield make
    for gateway in (gateway for connected in gateways.values() for gateway in connected):
        gateway.socket.close()
    context.term()


@pytest.fixture(scope="session")
def make_speech() -> Callable[[int, int], Pcm]:
    return speech


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """What a process of this area is started with."""
    return ENVIRONMENT
