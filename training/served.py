"""Recordings through the service: `asr serve` in a process of its own, WebSocket in, words out."""

import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from asr_cli.child import bound
from asr_cli.live_client import Service, transcribe_live
from asr_cli.readiness import wait_until_ready
from asr_cli.serve import free_ports
from shared.config_file import load_config
from training.speech import Pcm
from training.testset import Recording

_START_S: Final = 90.0
_STOP_S: Final = 30.0
_FRAME: Final = 1920
_RATE_HZ: Final = 24_000


@dataclass(frozen=True, kw_only=True)
class ServedWord:
    """A word as a client got it; ``after_s`` is when it came, in seconds after the first audio was sent."""

    text: str
    start_s: float
    stop_s: float | None
    after_s: float


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back for one recording: its words, and the pause heads of every step."""

    words: tuple[ServedWord, ...]
    pauses: tuple[tuple[float, ...], ...]


@asynccontextmanager
async def serving(toml: Path) -> AsyncIterator[Service]:
    """Serve a checkpoint on a free port of this machine.

    Raises:
        TimeoutError: the service was not ready in time.
    """
    port = free_ports(1)[0]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603, ASYNC220 - started once, before anything runs
            bound(
                *(sys.executable, "-m", "asr_cli", "serve", "--device", "cpu"),
                *("--config", str(toml), "--port", str(port)),
            ),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(_START_S):
                await wait_until_ready("127.0.0.1", port)
            key = load_config(toml, {}).service.authorized_ids[0]
            yield Service(url=f"http://127.0.0.1:{port}", key=key)
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait, _STOP_S)


async def transcribe_all(
    service: Service, recordings: Sequence[Recording], *, at_once: int, speed: float
) -> list[Answer]:
    """Send recordings, ``at_once`` of them side by side, at ``speed`` times real time (0: as fast as possible)."""
    gate = asyncio.Semaphore(at_once)

    async def one(recording: Recording) -> Answer:
        async with gate:
            return await _transcribe(service, recording.pcm, speed)

    return list(await asyncio.gather(*(one(recording) for recording in recordings)))


async def _transcribe(service: Service, pcm: Pcm, speed: float) -> Answer:
    words: list[ServedWord] = []
    pauses: list[tuple[float, ...]] = []
    started_s = 0.0

    def pieces() -> Iterator[Pcm]:
        nonlocal started_s
        started_s = time.perf_counter()
        for start in range(0, len(pcm), _FRAME):
            yield pcm[start : start + _FRAME]

    def on_message(fields: Mapping[str, Any]) -> None:
        match fields["type"]:
            case "Word":
                after_s = time.perf_counter() - started_s
                words.append(
                    ServedWord(text=fields["text"], start_s=fields["start_time"], stop_s=None, after_s=after_s)
                )
            case "EndWord" if words:
                last = words.pop()
                words.append(
                    ServedWord(text=last.text, start_s=last.start_s, stop_s=fields["stop_time"], after_s=last.after_s)
                )
            case "Step":
                pauses.append(tuple(fields["prs"]))
            case _:
                pass

    await transcribe_live(pieces(), service, rtf=speed, on_message=on_message)
    return Answer(words=tuple(words), pauses=tuple(pauses))
