"""The service as its users start it, and a client that was written from the protocol's description alone.

No code of the service is used here: what both sides got wrong in the same way would not be seen otherwise.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import aiohttp
import msgpack
import numpy as np
import psutil
import pytest
import soundfile

KEY = "public_token"
FRAME_S = 0.08
FRAME_SAMPLES = 1920
START_S = 60.0
SAMPLES = Path(__file__).parents[2] / "asr_worker" / "demo" / "samples"


# --- the service -----------------------------------------------------------------------------------------


class Service:
    """``asr serve`` on a free port, in a folder of its own."""

    def __init__(self, folder: Path, *flags: str, **settings: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        (folder / "tmp").mkdir()
        self._output = (folder / "output.txt").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "asr_cli", "serve", "--port", str(self.port), "--device", "cpu", *flags],
            cwd=folder,
            env={**os.environ, "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1", **settings},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    def output(self) -> str:
        return (self.folder / "output.txt").read_text(errors="replace")

    def status(self, path: str = "/readyz") -> int | None:
        """Return the HTTP status of a GET, or None if nobody answers."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return None

    def wait_for(self, statuses: set[int | None]) -> None:
        self.wait_until(lambda: self.status() in statuses)

    def wait_until(self, is_done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_S
        while not is_done():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.02)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, module: str) -> psutil.Process:
        """Return the process of a module, the first of several."""
        return next(child for child in self.children() if module in child.cmdline())

    def text(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=5) as answer:
            return str(answer.read().decode())

    def stop(self) -> int:
        """End the service as Ctrl-C does; return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self._output.close()


@pytest.fixture(scope="session")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    # Files may take all slots: with the usual quarter of them the test would take four times as long.
    service = Service(tmp_path_factory.mktemp("service"), ASR_FILE_SHARE="1")
    yield service
    service.stop()


@pytest.fixture
def service(shared_service: Service) -> Service:
    """One service with the demo model for many tests; ready when the test begins."""
    shared_service.wait_for({200})
    return shared_service


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start a service that the test may treat as it likes."""
    started: list[Service] = []

    def start(*flags: str, **settings: str) -> Service:
        started.append(Service(tmp_path, *flags, **settings))
        return started[-1]

    yield start
    for service in started:
        service.stop()


# --- the client ------------------------------------------------------------------------------------------


@dataclass
class Heard:
    """What the service said about one recording."""

    messages: list[dict[str, Any]] = field(default_factory=list)

    def words(self) -> list[tuple[str, float, float | None]]:
        words: list[tuple[str, float, float | None]] = []
        for message in self.messages:
            if message["type"] == "Word":
                words.append((message["text"], message["start_time"], None))
            elif message["type"] == "EndWord":
                text, start, _ = words[-1]
                words[-1] = (text, start, message["stop_time"])
        return words

    def types(self) -> list[str]:
        return [message["type"] for message in self.messages]


class Client:
    """One WebSocket session."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.heard = Heard()

    async def send(self, **fields: Any) -> None:
        await self.socket.send_bytes(msgpack.packb(fields, use_single_float=True))

    async def next(self, timeout_s: float = 30.0) -> dict[str, Any] | None:
        """Return the next message; None when the service has closed the connection."""
        packet = await self.socket.receive(timeout=timeout_s)
        if packet.type is not aiohttp.WSMsgType.BINARY:
            return None
        message: dict[str, Any] = msgpack.unpackb(packet.data)
        self.heard.messages.append(message)
        return message

    async def until(self, wanted: str, timeout_s: float = 30.0) -> dict[str, Any]:
        while True:
            message = await self.next(timeout_s)
            assert message is not None, f"closed with {self.socket.close_code} before {wanted}"
            assert message["type"] != "Error" or wanted == "Error", message
            if message["type"] == wanted:
                return message


@asynccontextmanager
async def open_client(service: Service) -> AsyncIterator[Client]:
    path = f"{service.url}/api/asr-streaming"
    async with aiohttp.ClientSession() as http, http.ws_connect(path, headers={"kyutai-api-key": KEY}) as ws:
        yield Client(ws)


@pytest.fixture
def connect() -> Callable[[Service], Any]:
    """``async with connect(service) as client``."""
    return open_client


async def pace(started_at: float, audio_s: float) -> None:
    """Wait until this much audio would have been spoken since ``started_at``."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(max(0.0, started_at + audio_s - loop.time()))


@pytest.fixture
def speak_live() -> Callable[[Service, "Recording"], Awaitable[Heard]]:
    """Send a recording as float arrays at the pace of speech, then a marker, then silence until it comes back."""

    async def speak(service: Service, recording: Recording) -> Heard:
        async with open_client(service) as client:
            await client.until("Ready")
            listener = asyncio.create_task(client.until("Marker"))
            started_at = asyncio.get_running_loop().time()
            for start in range(0, len(recording.pcm), FRAME_SAMPLES):
                await client.send(type="Audio", pcm=recording.pcm[start : start + FRAME_SAMPLES].tolist())
                await pace(started_at, (start + FRAME_SAMPLES) / 24_000)
            await client.send(type="Marker", id=7)
            for silence in range(100):
                if listener.done():
                    break
                await client.send(type="Audio", pcm=[0.0] * FRAME_SAMPLES)
                await pace(started_at, (len(recording.pcm) + (silence + 1) * FRAME_SAMPLES) / 24_000)
            assert await listener == {"type": "Marker", "id": 7}
            return client.heard

    return speak


@pytest.fixture
def speak_opus(tmp_path: Path) -> Callable[[Service, "Recording"], Awaitable[Heard]]:
    """Send a recording as one Ogg Opus stream, cut anywhere, at the pace of speech; then ask for the rest."""

    async def speak(service: Service, recording: Recording) -> Heard:
        stream = recording.encoded(tmp_path, "opus")
        async with open_client(service) as client:
            await client.until("Ready")
            listener = asyncio.create_task(client.until("Flushed"))
            started_at = asyncio.get_running_loop().time()
            duration_s, piece_bytes = len(recording.pcm) / 24_000, 331
            for start in range(0, len(stream), piece_bytes):
                await client.send(type="OggOpus", data=stream[start : start + piece_bytes])
                await pace(started_at, duration_s * (start + piece_bytes) / len(stream))
            await client.send(type="Flush", id=3)
            assert await listener == {"type": "Flushed", "id": 3}
            return client.heard

    return speak


@pytest.fixture
def post(tmp_path: Path) -> Callable[[Service, "Recording", str], Awaitable[Heard]]:
    """Send a recording as a file of the given kind by POST."""

    async def send(service: Service, recording: Recording, kind: str) -> Heard:
        async with (
            aiohttp.ClientSession() as http,
            http.post(
                f"{service.url}/api/asr-streaming",
                data=recording.encoded(tmp_path, kind),
                headers={"kyutai-api-key": KEY},
            ) as answer,
        ):
            assert answer.status == 200, await answer.text()
            return Heard(json.loads(await answer.text()))

    return send


# --- what was said ---------------------------------------------------------------------------------------

KINDS = {
    "wav": {"format": "WAV"},
    "flac": {"format": "FLAC"},
    "mp3": {"format": "MP3"},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
}


@dataclass(frozen=True)
class Recording:
    """One sample utterance."""

    name: str
    pcm: np.ndarray[Any, np.dtype[np.float32]]
    expected: list[tuple[str, float, float]]
    """What the checkpoint says offline: word, start, end."""

    @property
    def expected_words(self) -> list[str]:
        return [word for word, _, _ in self.expected]

    def encoded(self, folder: Path, kind: str) -> bytes:
        path = folder / f"{self.name}.{kind}"
        soundfile.write(path, self.pcm, 24_000, **KINDS[kind])
        return path.read_bytes()


@pytest.fixture(scope="session")
def recordings() -> list[Recording]:
    described = json.loads((SAMPLES / "samples.json").read_text())
    return [
        Recording(
            name=Path(one["file"]).stem,
            pcm=soundfile.read(SAMPLES / one["file"], dtype="float32")[0],
            expected=[tuple(word) for word in one["expected"]],
        )
        for one in described
    ]


@dataclass(frozen=True)
class Score:
    """How much of what was expected of all recordings was heard."""

    n_expected: int
    n_right: int
    differences: list[str]
    worst_time_error_s: float


@pytest.fixture
def score(recordings: list[Recording]) -> Callable[[list[Heard]], Score]:
    """Compare what was heard with what the checkpoint says offline, words and times; what was said, it may mishear."""

    def compare(all_heard: list[Heard]) -> Score:
        n_right, differences, errors = 0, [], [0.0]
        for recording, heard in zip(recordings, all_heard, strict=True):
            words = heard.words()
            texts = [text for text, _, _ in words]
            matcher = SequenceMatcher(None, recording.expected_words, texts, autojunk=False)
            for block in matcher.get_matching_blocks():
                n_right += block.size
                for offset in range(block.size):
                    _, start, end = words[block.b + offset]
                    _, true_start, true_end = recording.expected[block.a + offset]
                    assert end is not None
                    errors += [abs(start - true_start), abs(end - true_end)]
            differences += [
                f"{recording.name}: expected {recording.expected_words[a:b]}, heard {texts[c:d]}"
                for kind, a, b, c, d in matcher.get_opcodes()
                if kind != "equal"
            ]
        return Score(sum(len(recording.expected) for recording in recordings), n_right, differences, max(errors))

    return compare
