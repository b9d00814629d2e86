"""Gateways, workers with the fake model, and a plain client of Kyutai's protocol."""

import asyncio
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgpack
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from asr_gateway.app import Gateway
from asr_gateway.config import GatewaySettings
from asr_gateway.core.modules import ServedModule
from asr_gateway.io.discovery import worker_source
from asr_gateway.io.listener import listening_socket
from asr_worker.core.words import WordSaid
from asr_worker.model.fake_oracle import expected_events
from asr_worker.model.fake_speech import FakeSettings
from shared.config import GatewayConfig
from shared.units import FRAME_SAMPLES

PATH = "/api/asr-streaming"
KEY = "right"
N_SLOTS = 4
PATIENCE_S = 15.0
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


class Worker:
    """A worker process with the fake model, which can be killed and started again at its endpoint."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self._folder = folder
        self._flags = flags
        self._announcement = folder / "endpoint"
        self._bind = "tcp://127.0.0.1:0"
        self.process = self.start()
        self.endpoint = self._announcement.read_text().strip()
        self._bind = self.endpoint

    def start(self) -> subprocess.Popen[bytes]:
        self._announcement.unlink(missing_ok=True)
        command = [sys.executable, "-m", "asr_worker", "--model", "fake", "--bind", self._bind, "--silent"]
        command += ["--announce", str(self._announcement), *self._flags]
        with (self._folder / "worker.log").open("wb") as log:
            self.process = subprocess.Popen(command, cwd=self._folder, env=ENVIRONMENT, stdout=log, stderr=log)
        wait_until(self._announcement.exists)
        return self.process

    def kill(self, how: signal.Signals = signal.SIGKILL) -> int:
        self.process.send_signal(how)
        return self.process.wait(PATIENCE_S)


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class Client:
    """One WebSocket, message by message."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send_bytes(msgpack.packb({"type": kind, **fields}, use_single_float=True))

    async def speak(self, pcm: NDArray[np.float32], packet: int = FRAME_SAMPLES) -> None:
        for start in range(0, len(pcm), packet):
            await self.send("Audio", pcm=pcm[start : start + packet].tolist())

    async def receive(self) -> dict[str, Any]:
        message = await self.socket.receive(timeout=PATIENCE_S)
        assert message.type is aiohttp.WSMsgType.BINARY, message
        fields: dict[str, Any] = msgpack.unpackb(message.data)
        return fields

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """Everything up to and including the next message of type ``kind``."""
        messages = [await self.receive()]
        while messages[-1]["type"] != kind:
            messages.append(await self.receive())
        return messages

    async def ready(self) -> Self:
        assert await self.receive() == {"type": "Ready"}
        return self

    async def refusal(self) -> tuple[str, str, int | None]:
        """Code and message of the Error that comes next (Steps aside), and the close code after it."""
        error = (await self.until("Error"))[-1]
        closing = await self.socket.receive(timeout=PATIENCE_S)
        assert closing.type is aiohttp.WSMsgType.CLOSE, closing
        return error["code"], error["message"], self.socket.close_code


def upgrade(key: str = KEY) -> bytes:
    """The request that turns a raw socket into a WebSocket."""
    return (
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nkyutai-api-key: {key}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


class RunningGateway:
    """A gateway that listens on this machine."""

    def __init__(self, port: int, http: aiohttp.ClientSession) -> None:
        self.port = port
        self.http = http
        self.url = f"http://127.0.0.1:{port}"

    @asynccontextmanager
    async def client(self, **how: Any) -> AsyncIterator[Client]:
        how.setdefault("headers", {"kyutai-api-key": KEY})
        async with self.http.ws_connect(self.url + PATH, **how) as socket:
            yield Client(socket)

    @asynccontextmanager
    async def ready_client(self, **how: Any) -> AsyncIterator[Client]:
        async with self.client(**how) as client:
            yield await client.ready()

    async def json(self, path: str) -> Any:
        async with self.http.get(self.url + path) as response:
            return await response.json()

    async def status(self, path: str) -> int:
        async with self.http.get(self.url + path) as response:
            return response.status

    async def used_slots(self) -> int:
        return int((await self.json("/api/modules_info"))[0]["used_slots"])

    async def metric(self, line: str) -> float:
        async with self.http.get(self.url + "/metrics") as response:
            for text in (await response.text()).splitlines():
                if text.startswith(line + " "):
                    return float(text.rsplit(" ", 1)[1])
        return 0.0


@asynccontextmanager
async def gateway_in_process(
    *endpoints: str,
    wait: bool = True,
    module: str = "fake",
    keys: tuple[str, ...] = (KEY,),
    prefix_frames: int = 0,
    **limits: Any,
) -> AsyncIterator[RunningGateway]:
    """A gateway on the loop of the test, whose limits can be set."""
    limits = {"port": 0, "drain_s": 0.0, **limits}
    settings = GatewaySettings(
        gateway=GatewayConfig(**limits),
        modules=(
            ServedModule(
                name=module,
                path=PATH,
                lm="fake.lm",
                audio_tokenizer="fake.mimi",
                silence_prefix_frames=prefix_frames,
            ),
        ),
        keys=keys,
        sources=tuple(worker_source(endpoint) for endpoint in endpoints),
    )
    stop = asyncio.Event()
    with listening_socket("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        running = asyncio.create_task(Gateway(settings).run(listener, stop))
        try:
            async with aiohttp.ClientSession() as http:
                gateway = RunningGateway(port, http)
                await eventually(lambda: is_ready(gateway, len(endpoints) if wait else 0))
                yield gateway
        finally:
            stop.set()
            await asyncio.wait_for(running, PATIENCE_S)


async def is_ready(gateway: RunningGateway, n_workers: int) -> bool:
    try:
        answer = await gateway.json("/readyz")
    except aiohttp.ClientConnectionError:
        return False
    return sum(facts["workers"] for facts in answer["modules"].values()) >= n_workers


async def eventually(is_true: Callable[[], Any]) -> None:
    """Wait until the awaitable that ``is_true`` makes is true."""
    async with asyncio.timeout(PATIENCE_S):
        while not await is_true():  # noqa: ASYNC110 what is waited for happens in another process
            await asyncio.sleep(0.02)


@contextmanager
def gateway_process(folder: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A gateway as a process of its own, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    command = [sys.executable, "-m", "asr_gateway", "--port", str(port), "--key", KEY, *flags]
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=log, stderr=log)
    try:
        yield process, port
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE_S)


def noise(n_frames: float, seed: int = 1) -> NDArray[np.float32]:
    """Audio that the fake model hears as speech."""
    n_samples = int(n_frames * FRAME_SAMPLES)
    return np.random.default_rng(seed).uniform(-0.3, 0.3, n_samples).astype(np.float32)


def words_of(messages: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Words and ends among ``messages``."""
    lines: list[tuple[Any, ...]] = []
    for message in messages:
        if message["type"] == "Word":
            lines.append(("Word", message["text"], round(message["start_time"], 3)))
        elif message["type"] == "EndWord":
            lines.append(("EndWord", round(message["stop_time"], 3)))
    return lines


def expected_words(
    pcm: NDArray[np.float32], *, flush: bool = False, prefix_frames: int = 0, **settings: Any
) -> list[tuple[Any, ...]]:
    """What the fake model says about ``pcm``; a last partial frame counts only with ``flush``, which pads it."""
    n_zeros = -len(pcm) % FRAME_SAMPLES if flush else 0
    padded = np.concatenate([pcm, np.zeros(n_zeros, np.float32)])
    frames = padded[: len(padded) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    events = expected_events(
        frames, FakeSettings(**settings), flush=flush, pad_samples=n_zeros, prefix_frames=prefix_frames
    )
    return [
        ("Word", event.text, round(event.start_s, 3))
        if isinstance(event, WordSaid)
        else ("EndWord", round(event.stop_s, 3))
        for event in events
    ]


class Rig:
    """What a test file needs of this module, which it cannot import."""

    KEY, PATH, N_SLOTS = KEY, PATH, N_SLOTS
    Client, RunningGateway = Client, RunningGateway
    noise = staticmethod(noise)
    words_of = staticmethod(words_of)
    expected_words = staticmethod(expected_words)
    eventually = staticmethod(eventually)
    upgrade = staticmethod(upgrade)
    gateway_process = staticmethod(gateway_process)
    is_ready = staticmethod(is_ready)

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._workers: list[Worker] = []

    def worker(self, *flags: str) -> Worker:
        """Start a worker of the test's own."""
        folder = self._folder / f"worker-{len(self._workers)}"
        folder.mkdir(parents=True)
        worker = Worker(folder, *flags)
        self._workers.append(worker)
        return worker

    def gateway(self, *endpoints: str, **limits: Any) -> AbstractAsyncContextManager[RunningGateway]:
        return gateway_in_process(*endpoints, **limits)

    def stop(self) -> None:
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.kill()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.stop()


@pytest.fixture(scope="session")
def shared_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker with four slots that all tests share: none may leave a session behind."""
    worker = Worker(tmp_path_factory.mktemp("worker"), "--fake-slots", str(N_SLOTS))
    yield worker
    worker.kill()


@pytest.fixture
async def gateway(shared_worker: Worker) -> AsyncIterator[RunningGateway]:
    """A gateway with the shared worker, whose slots are all free again when the test ends."""
    async with gateway_in_process(shared_worker.endpoint) as running:
        yield running
        await eventually(lambda: _all_free(running))


@pytest.fixture
def wav_of() -> Callable[[NDArray[np.float32]], bytes]:
    """Return what makes a WAV file of samples, to the bit."""

    def make(pcm: NDArray[np.float32]) -> bytes:
        file = io.BytesIO()
        soundfile.write(file, pcm, 24_000, format="WAV", subtype="FLOAT")
        return file.getvalue()

    return make


async def _all_free(gateway: RunningGateway) -> bool:
    return await gateway.used_slots() == 0
