"""How long the last words take once a client has nothing more to say: Flush to the last word, and a marker's way.

    python -m bench.flush [--models fake demo] [--full 40] [--loads 0 0.9]

``--full`` live sessions are called capacity; a share of them talks all the time. Beside them some probes say a second
or two in real time, then either

    Flush     and fall silent: the worker feeds D silent frames as fast as it steps, then a few more for an open word
    Marker    and go on with silence in real time, as clients of moshi-server must: D frames of 80 ms until its echo

and note when the last word before the answer came, and the answer.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgpack
import numpy as np
import uvloop

from bench.capacity import with_slots
from bench.clients import Load, run_clients
from bench.packets import Packets, audio_message, make_packets
from bench.processes import PATH, service
from bench.report import Report, median, quantile
from bench.sizes import DEMO
from shared.units import FRAME_RATE, FRAME_SAMPLES

LIMIT = "D steps for a flush, D frames of 80 ms for a marker: what the model's delay asks for"
PATIENCE_S = 30.0
UTTERANCE_FRAMES = (12, 25)
SILENCE = audio_message(np.zeros(FRAME_SAMPLES, np.float32))
ANSWERS = ("Flushed", "Marker")


@dataclass(slots=True)
class Seen:
    """Seconds since the Flush, or the Marker: by ``ANSWERS``."""

    answers_s: dict[str, list[float]] = field(default_factory=lambda: {answer: [] for answer in ANSWERS})
    last_words_s: dict[str, list[float]] = field(default_factory=lambda: {answer: [] for answer in ANSWERS})


def main(arguments: list[str] | None = None) -> int:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=("fake", "demo"), default=["fake", "demo"])
    parser.add_argument("--step-ms", type=float, default=5.0, help="of the fake model")
    parser.add_argument("--full", type=int, default=40, help="sessions that are called capacity")
    parser.add_argument("--loads", nargs="+", type=float, default=[0.0, 0.9])
    parser.add_argument("--probes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--keep", action="store_true", help="write the result to bench/results/")
    options = parser.parse_args(arguments)
    report = Report("flush", LIMIT, {k: str(v) for k, v in vars(options).items()})
    rows = []
    for model in options.models:
        with service_of(model, options) as url:
            rows += [measure(model, url, share, options) for share in options.loads]
    report.table(rows)
    report.finish(keep=options.keep)
    return 0


@contextlib.contextmanager
def service_of(model: str, options: argparse.Namespace) -> Iterator[str]:
    """Yield the route of a gateway with one worker."""
    n_slots = options.full + options.probes
    with tempfile.TemporaryDirectory() as folder:
        if model == "fake":
            worker = ["--model", "fake", "--fake-slots", str(n_slots), "--fake-step-ms", str(options.step_ms)]
            gateway = []
        else:
            worker = gateway = ["--config", str(with_slots(DEMO / "demo.toml", n_slots, Path(folder)))]
        with service(worker, gateway) as ours:
            yield ours.url.replace("http", "ws") + PATH


def measure(model: str, url: str, share: float, options: argparse.Namespace) -> dict[str, Any]:
    """Return one line of the table."""
    n_talking = round(share * options.full)
    talk = Load(url=url, key="public_token", n_clients=n_talking, packing="float80", seconds=options.seconds + 4)
    errors: list[str] = []
    crowd = threading.Thread(
        target=lambda: errors.extend(session.error for session in run_clients(talk, 1) if session.error)
    )
    if n_talking:
        crowd.start()
        time.sleep(4.0)  # until all have begun
    seen = uvloop.run(_probe_all(url, options.probes, options.seconds))
    if n_talking:
        crowd.join()
    flush, marker = (seen.answers_s[answer] for answer in ANSWERS)
    words = seen.last_words_s["Flushed"]
    return {
        "model": model,
        "talking": n_talking,
        "flushes": len(flush),
        "last_word_p50_ms": 1e3 * median(words),
        "last_word_p99_ms": 1e3 * quantile(words, 0.99),
        "flushed_p50_ms": 1e3 * median(flush),
        "flushed_p99_ms": 1e3 * quantile(flush, 0.99),
        "markers": len(marker),
        "marker_p50_ms": 1e3 * median(marker),
        "marker_p99_ms": 1e3 * quantile(marker, 0.99),
        "errors": len(errors),
    }


async def _probe_all(url: str, n_probes: int, seconds: float) -> Seen:
    seen, packets = Seen(), make_packets("float80", None)
    async with aiohttp.ClientSession(headers={"kyutai-api-key": "public_token"}) as http:
        until_s = time.perf_counter() + seconds
        probes = [_Probe(packets, random.Random(i), seen) for i in range(n_probes)]
        await asyncio.gather(*(probe.run(http, url, until_s) for probe in probes))
    return seen


class _Probe:
    """One client that speaks, asks, and speaks again."""

    def __init__(self, packets: Packets, draw: random.Random, seen: Seen) -> None:
        self._packets = packets
        self._draw = draw
        self._seen = seen
        self._last_word_s = 0.0
        self._answer: asyncio.Queue[tuple[str, float]] = asyncio.Queue()

    async def run(self, http: aiohttp.ClientSession, url: str, until_s: float) -> None:
        """Ask again and again."""
        await asyncio.sleep(self._draw.random())
        async with http.ws_connect(url) as socket, asyncio.TaskGroup() as group:
            listener = group.create_task(self._listen(socket))
            await self._await("Ready")
            i = self._draw.randrange(len(self._packets.loop))
            while time.perf_counter() < until_s:
                for _ in range(self._draw.randint(*UTTERANCE_FRAMES)):
                    await socket.send_bytes(self._packets.message(i))
                    await asyncio.sleep(1 / FRAME_RATE)
                    i += 1
                await self._ask(socket, self._draw.choice(ANSWERS))
            listener.cancel()

    async def _ask(self, socket: aiohttp.ClientWebSocketResponse, answer: str) -> None:
        asked_s = time.perf_counter()
        question = {"Flushed": "Flush", "Marker": "Marker"}[answer]
        await socket.send_bytes(msgpack.packb({"type": question, "id": 1}))
        silence = asyncio.create_task(_fall_silent(socket)) if answer == "Marker" else None
        answered_s = await self._await(answer)
        if silence is not None:
            silence.cancel()
        self._seen.answers_s[answer].append(answered_s - asked_s)
        if self._last_word_s > asked_s:
            self._seen.last_words_s[answer].append(self._last_word_s - asked_s)

    async def _await(self, answer: str) -> float:
        kind, at_s = await asyncio.wait_for(self._answer.get(), PATIENCE_S)
        if kind != answer:
            message = f"the server said {kind} where {answer} was to come"
            raise ConnectionError(message)
        return at_s

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            message = msgpack.unpackb(await socket.receive_bytes())
            match message["type"]:
                case "Word" | "EndWord":
                    self._last_word_s = time.perf_counter()
                case "Step":
                    pass
                case kind:
                    self._answer.put_nowait((kind, time.perf_counter()))


async def _fall_silent(socket: aiohttp.ClientWebSocketResponse) -> None:
    while True:
        await socket.send_bytes(SILENCE)
        await asyncio.sleep(1 / FRAME_RATE)


if __name__ == "__main__":
    sys.exit(main())
