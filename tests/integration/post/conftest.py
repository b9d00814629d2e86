"""A gateway and a worker with the fake model for POST, and files whose words are known."""

import asyncio
import io
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
import pytest
import soundfile
from numpy.typing import NDArray

from asr_gateway.audio.files import FileLimits, open_decoder
from asr_worker.core.words import WordSaid
from asr_worker.model.fake_oracle import expected_events
from asr_worker.model.fake_speech import FakeSettings
from shared.units import FRAME_SAMPLES

CONFIG = """
static_dir = "static"
log_dir = "logs"
instance_name = "post"
authorized_ids = ["right"]

[modules.asr]
path = "/api/asr-streaming"
type = "BatchedAsr"
lm_model_file = "lm.safetensors"
text_tokenizer_file = "tokenizer.model"
audio_tokenizer_file = "mimi.safetensors"
asr_delay_in_tokens = 6
batch_size = {batch_size}
temperature = 0.0

[modules.asr.model]
audio_vocab_size = 2049
text_in_vocab_size = 49
text_out_vocab_size = 48
audio_codebooks = 8

[modules.asr.model.transformer]
d_model = 192
num_heads = 4
num_layers = 3
dim_feedforward = 756
causal = true
norm_first = true
bias_ff = false
bias_attn = false
context = 40
max_period = 100000
use_conv_block = false
use_conv_bias = true
gating = "silu"
norm = "RmsNorm"
positional_embedding = "Rope"
conv_layout = false
conv_kernel_size = 3
kv_repeat = 1
max_seq_len = 40960
"""

LIMITS = {"max_file_s": 30, "max_body_bytes": 4 << 20, "body_timeout_s": 1, "file_queue_length": 64, "file_wait_s": 20}
BUSY_LIMITS = LIMITS | {"move_wait_s": 0.5, "file_queue_length": 2, "file_wait_s": 3}
KEY = {"kyutai-api-key": "right"}
SETTINGS = FakeSettings(n_heads=0)


class Service:
    """A gateway and a worker with the fake model, as processes of their own."""

    def __init__(self, folder: Path, *, batch_size: int, step_ms: float, limits: dict[str, float]) -> None:
        self.folder = folder
        self.step_ms = step_ms
        (folder / "config.toml").write_text(CONFIG.format(batch_size=batch_size))
        (folder / "spool").mkdir()
        self.endpoint = f"ipc://{folder}/worker"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in limits.items()]
        flags += [f"--port={self.port}", "--spool-dir=spool", f"--worker={self.endpoint}"]
        self.worker = self.start_worker()
        self.gateway = self._start("asr_gateway", *flags)

    def start_worker(self) -> subprocess.Popen[bytes]:
        self.worker = self._start(
            "asr_worker", "--model=fake", f"--bind={self.endpoint}", f"--fake-step-ms={self.step_ms}"
        )
        return self.worker

    def _start(self, package: str, *flags: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{package}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", package, "--config=config.toml", *flags],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    def stop(self) -> None:
        for process in (self.gateway, self.worker):
            process.kill()
            process.wait()

    def rss_mib(self) -> float:
        return float(psutil.Process(self.gateway.pid).memory_info().rss / (1 << 20))

    def n_decoders(self) -> int:
        return len(psutil.Process(self.gateway.pid).children())

    key = KEY

    async def get(self, path: str) -> tuple[int, str]:
        try:
            async with aiohttp.request("GET", f"http://127.0.0.1:{self.port}{path}") as response:
                return response.status, await response.text()
        except aiohttp.ClientConnectionError:
            assert self.gateway.poll() is None, (self.folder / "asr_gateway.log").read_text()
            return 0, ""

    async def post(self, body: Any, headers: dict[str, str] | None = None, query: str = "") -> tuple[int, Any, Any]:
        url = f"http://127.0.0.1:{self.port}/api/asr-streaming{query}"
        data = io.BytesIO(body) if isinstance(body, bytes) else body
        async with aiohttp.request("POST", url, data=data, headers=KEY if headers is None else headers) as response:
            return response.status, await response.json(), response.headers

    async def talk(self, *pieces: bytes) -> bytes:
        """Send bytes as they are and return the first that come back."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"".join(pieces))
        answer = await reader.read(65_536)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        return answer

    async def flood(self, head: bytes) -> bytes:
        """Send chunks without an end and return the first answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(head)
        answer = asyncio.create_task(reader.read(65_536))
        while not answer.done():
            writer.write(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
            await writer.drain()
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()
        return await answer

    async def logged(self, event: str, **facts: str) -> dict[str, Any]:
        """The newest line of the gateway's log that says so, which may still have to come."""
        said = {"event": event, **facts}
        async with asyncio.timeout(15):
            while True:
                lines = [json.loads(line) for line in (self.folder / "asr_gateway.log").read_text().splitlines()]
                found: list[dict[str, Any]] = [line for line in lines if said.items() <= line.items()]
                if found:
                    return found[-1]
                await asyncio.sleep(0.02)

    async def refused(self) -> Counter[str]:
        """How many files never got a slot, by code."""
        series = re.findall(r'sessions_refused_total{kind="file",code="(.*)"} (\d+)', (await self.get("/metrics"))[1])
        return Counter({code: int(count) for code, count in series if int(count)})

    async def until(self, path: str, wanted: str) -> None:
        async with asyncio.timeout(15):
            while True:
                if wanted in (await self.get(path))[1]:
                    return
                await asyncio.sleep(0.02)

    async def until_ready(self) -> None:
        async with asyncio.timeout(15):
            while True:
                if (await self.get("/readyz"))[0] == 200:
                    return
                await asyncio.sleep(0.02)

    async def until_used(self, n_slots: int) -> None:
        await self.until("/api/modules_info", f'"used_slots": "{n_slots}"')

    async def until_waiting(self, n_files: int) -> None:
        await self.until("/metrics", f"asr_gateway_file_queue_length {n_files}\n")


class Files:
    """Makes audio files, and knows what the fake model says to them."""

    @staticmethod
    def speech(seconds: float, rate: int, *, channels: int = 1) -> NDArray[np.float32]:
        """Noise with pauses: speech as far as the fake model goes. It ends in the middle of a word."""
        times = np.arange(int(seconds * rate)) / rate
        noise = np.random.default_rng(1).normal(size=(len(times), channels)) * 0.1
        return (noise * (np.sin(2 * np.pi * (seconds - times) / 1.7 + 0.4) > -0.3)[:, None]).astype(np.float32)

    @staticmethod
    def audio(seconds: float, form: str, subtype: str | None = None, *, rate: int = 24_000, channels: int = 1) -> bytes:
        pcm, file = Files.speech(seconds, rate, channels=channels), io.BytesIO()
        with soundfile.SoundFile(file, "w", rate, channels, subtype, format=form) as sound:
            # libsndfile's Vorbis encoder overflows the stack when it is given much at once.
            for begin in range(0, len(pcm), 4096):
                sound.write(pcm[begin : begin + 4096])
        return file.getvalue()

    @staticmethod
    async def expected_messages(data: bytes) -> list[dict[str, Any]]:
        """What the fake model says to a file: any sample that is lost or doubled on its way changes the words."""
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.flush()
            async with open_decoder(file, FileLimits(max_audio_s=60, decode_timeout_s=20)) as decoder:
                await decoder.begin()
                pcm = np.concatenate([chunk async for chunk in decoder.chunks()])
        pad = -len(pcm) % FRAME_SAMPLES
        frames = np.pad(pcm, (0, pad)).reshape(-1, FRAME_SAMPLES)
        return [
            {"type": "Word", "text": event.text, "start_time": event.start_s}
            if isinstance(event, WordSaid)
            else {"type": "EndWord", "stop_time": event.stop_s}
            for event in expected_events(frames, SETTINGS, flush=True, pad_samples=pad)
        ]


@contextmanager
def running(**options: Any) -> Iterator[Service]:
    # A path short enough for a socket of the file system.
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder), **options)
        try:
            asyncio.run(service.until_ready())
            yield service
        finally:
            service.stop()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(batch_size=8, step_ms=0, limits=LIMITS) as service:
        yield service


@pytest.fixture(scope="module")
def busy() -> Iterator[Service]:
    """One slot, twice as fast as time."""
    with running(batch_size=1, step_ms=40, limits=BUSY_LIMITS) as service:
        yield service


@pytest.fixture(scope="module")
def impatient() -> Iterator[Service]:
    """As busy, but no file may wait."""
    with running(batch_size=1, step_ms=40, limits=LIMITS | {"file_wait_s": 0}) as service:
        yield service


@pytest.fixture
def stopping() -> Iterator[Service]:
    """As busy, for a test that stops it: whoever is there then may finish."""
    with running(batch_size=1, step_ms=40, limits=LIMITS | {"body_timeout_s": 15, "drain_s": 25}) as service:
        yield service


@pytest.fixture
def hasty() -> Iterator[Service]:
    """As busy, for a test that stops it: nobody may finish."""
    with running(batch_size=1, step_ms=40, limits=LIMITS | {"body_timeout_s": 15, "drain_s": 0.2}) as service:
        yield service


@pytest.fixture(scope="session")
def files() -> type[Files]:
    return Files
