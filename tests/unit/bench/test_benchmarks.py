"""Each benchmark still runs: a few iterations, and the JSON line at its end. The numbers themselves are not judged."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.slow


def run(module: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"bench.{module}", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 0, ended.stderr
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    assert result["bench"] == module
    assert {"date", "machine", "commit", "versions", "limit"} <= result.keys()
    return result


def test_wire() -> None:
    rows = run("wire", "--rows", "1", "64", "--seconds", "0.01")["rows"]
    assert [(row["block"], row["rows"]) for row in rows] == [
        ("AudioBlock", 1),
        ("StepBlock", 1),
        ("AudioBlock", 64),
        ("StepBlock", 64),
    ]


def test_link() -> None:
    rows = run("link", "--rows", "4", "--frames", "400")["rows"]
    assert [row["direction"] for row in rows] == ["AudioBlock in", "StepBlock out"]


def test_worker_loop() -> None:
    rows = run("worker_loop", "--slots", "16", "--steps", "5")["rows"]
    assert [row["blocks"] for row in rows] == ["one", "each"]
    assert all(row["ours_ms"] > 0 for row in rows)


def test_step_with_all_and_with_few_rows() -> None:
    flags = ("--sizes", "demo", "--batches", "4", "--active", "1", "4", "--rounds", "1", "--steps", "2")
    few, all_rows = run("step", *flags)["rows"]
    assert (few["active"], all_rows["active"]) == (1, 4)
    assert 0 < few["floor_ms"] < all_rows["floor_ms"]


def test_formats() -> None:
    sample = ROOT / "asr_worker" / "demo" / "samples" / "03.wav"
    rows = run("formats", "--steps", "0", "--audio", str(sample))["rows"]
    heard, forced = (
        {row["format"]: row for row in rows if row["what"] == f"demo, {what}"} for what in ("heard", "forced")
    )
    assert heard.keys() == forced.keys() >= {"f32", "bf16 caches", "int8 caches", "fp8 caches"}
    assert heard["f32"]["tokens_differ"] == forced["f32"]["tokens_differ"] == 0
    assert heard["f32"]["words"] > 5
    assert 0 < forced["bf16 caches"]["score_error"] < 0.02
    assert 0 < forced["int8 caches"]["score_error"] < forced["fp8 caches"]["score_error"] < 0.1
    for name in forced.keys() & {"bf16 weights", "int8 weights"}:
        assert 0 < forced[name]["score_error"] < 0.05


SILENT = """
import asyncio, msgpack
from aiohttp import web

async def greet_and_say_nothing_more(request):
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_bytes(msgpack.packb({"type": "Ready"}))
    async for _ in socket:
        pass
    return socket

async def main():
    app = web.Application()
    app.router.add_get("/asr", greet_and_say_nothing_more)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_server_that_answers_nothing_holds_nobody() -> None:
    with subprocess.Popen([sys.executable, "-c", SILENT], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = f"ws://127.0.0.1:{server.stdout.readline().strip()}/asr"
        try:
            (row,) = run("capacity", "--url", url, "--sessions", "1", "--seconds", "1")["rows"]
        finally:
            server.kill()
    assert row["verdict"] == "1 failed: the marker did not come back within 30 s"
    assert (row["words"], row["first_word_p50_ms"], row["marker_p50_ms"]) == (0, None, None)


def test_capacity_of_a_worker_with_the_fake_model() -> None:
    flags = ("--fake-step-ms", "1", "--slots", "2", "--sessions", "2", "--seconds", "2", "--flush")
    (row,) = run("capacity", *flags)["rows"]
    assert row["verdict"] in {"holds", "too late", "falls behind"}, row
    assert row["marker_p50_ms"] > 0


def test_latency() -> None:
    (row,) = run("latency", "--full", "4", "--loads", "0.5", "--seconds", "1")["rows"]
    assert (row["sessions"], row["errors"]) == (2, 0)


def test_flush() -> None:
    flags = ("--models", "fake", "--full", "2", "--loads", "0", "--probes", "2", "--seconds", "3")
    (row,) = run("flush", *flags)["rows"]
    assert row["flushes"] + row["markers"] > 0
    assert row["errors"] == 0


def test_scaling_of_a_step() -> None:
    rows = run("scaling", "--parts", "active", "--slots", "4", "--active", "1", "4", "--steps", "1")["rows"]
    assert [row["active"] for row in rows] == [1, 4]


def test_scaling_of_processes() -> None:
    flags = ("--parts", "workers", "--counts", "2", "--sessions", "2", "--seconds", "1")
    (row,) = run("scaling", *flags)["rows"]
    assert (row["part"], row["sessions"], row["errors"]) == ("workers", 2, 0)


def test_gateway() -> None:
    (row,) = run("gateway", "--sessions", "2", "--frames", "5", "--rounds", "1", "--packings", "opus20")["rows"]
    assert 0 < row["streams_per_core"] < row["listener_streams_per_core"]
