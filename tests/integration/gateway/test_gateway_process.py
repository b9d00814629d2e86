"""A gateway as a process of its own: how it starts, how it stops, what it tells a user who is wrong."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest


async def test_sigterm_drains_the_gateway(rig: Any, shared_worker: Any, tmp_path: Path) -> None:
    flags = ("--worker", shared_worker.endpoint, "--drain-s", "10")
    with rig.gateway_process(tmp_path, *flags) as (process, port):
        async with aiohttp.ClientSession() as http:
            gateway = rig.RunningGateway(port, http)
            await rig.eventually(lambda: rig.is_ready(gateway, 1))
            assert psutil.Process(process.pid).memory_info().rss < 150 << 20
            async with gateway.ready_client() as client:
                process.send_signal(signal.SIGTERM)
                await rig.eventually(lambda: _is_draining(gateway))

                # Before the upgrade: a proxy can still ask another gateway.
                with pytest.raises(aiohttp.WSServerHandshakeError) as late:
                    async with gateway.client():
                        pass
                assert (late.value.status, "Retry-After" in (late.value.headers or {})) == (503, True)
                refused = 'asr_gateway_sessions_refused_total{kind="live",code="restarting"}'
                assert await gateway.metric(refused) == 1
                pcm = rig.noise(12)
                await client.speak(pcm)
                await client.send("Flush")
                assert rig.words_of(await client.until("Flushed")) == rig.expected_words(pcm, flush=True)
            assert await asyncio.to_thread(process.wait, 10) == 0


async def _is_draining(gateway: Any) -> bool:
    return bool(await gateway.status("/readyz") == 503)


async def test_the_log_has_the_reason_that_the_client_was_told(rig: Any, shared_worker: Any, tmp_path: Path) -> None:
    with rig.gateway_process(tmp_path, "--worker", shared_worker.endpoint) as (_, port):
        async with aiohttp.ClientSession() as http:
            gateway = rig.RunningGateway(port, http)
            await rig.eventually(lambda: rig.is_ready(gateway, 1))
            async with gateway.ready_client() as client:
                await client.send("Sing")
                _, told, _ = await client.refusal()
            log = tmp_path / "gateway.log"
            await rig.eventually(lambda: asyncio.to_thread(_has, log, "session_closed"))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (closed,) = [line for line in lines if line["event"] == "session_closed"]
    (joined,) = [line for line in lines if line["event"] == "worker_joined"]
    assert closed["reason"] == told
    assert (closed["session"] > 0, closed["worker"]) == (True, joined["worker"])


def _has(log: Path, event: str) -> bool:
    return event in log.read_text()


async def test_what_outlasts_the_drain_is_told_and_closed(rig: Any, shared_worker: Any, tmp_path: Path) -> None:
    flags = ("--worker", shared_worker.endpoint, "--drain-s", "0.2")
    with rig.gateway_process(tmp_path, *flags) as (process, port):
        async with aiohttp.ClientSession() as http:
            gateway = rig.RunningGateway(port, http)
            await rig.eventually(lambda: rig.is_ready(gateway, 1))
            async with gateway.ready_client() as client:
                process.send_signal(signal.SIGTERM)

                assert (await client.refusal())[::2] == ("restarting", 1012)
            assert await asyncio.to_thread(process.wait, 10) == 0


async def test_asked_twice_it_waits_for_no_session(rig: Any, shared_worker: Any, tmp_path: Path) -> None:
    with rig.gateway_process(tmp_path, "--worker", shared_worker.endpoint, "--drain-s", "60") as (process, port):
        async with aiohttp.ClientSession() as http:
            gateway = rig.RunningGateway(port, http)
            await rig.eventually(lambda: rig.is_ready(gateway, 1))
            async with gateway.ready_client() as client:
                process.send_signal(signal.SIGINT)
                await rig.eventually(lambda: _is_draining(gateway))
                process.send_signal(signal.SIGINT)

                assert (await client.refusal())[::2] == ("restarting", 1012)
            assert await asyncio.to_thread(process.wait, 10) == 0


async def test_a_gateway_that_was_halted_keeps_its_slots_and_its_clients(rig: Any, tmp_path: Path) -> None:
    worker = rig.worker("--gateway-timeout-s", "30")
    flags = ("--worker", worker.endpoint, "--ping-after-s", "0.3", "--silent-client-s", "1")
    with rig.gateway_process(tmp_path, *flags) as (process, port):
        async with aiohttp.ClientSession() as http:
            gateway = rig.RunningGateway(port, http)
            await rig.eventually(lambda: rig.is_ready(gateway, 1))
            async with gateway.ready_client() as client:
                process.send_signal(signal.SIGSTOP)
                # Longer than the shortest patience of ZMTP's own heartbeat, 4 s.
                await asyncio.sleep(4.5)
                process.send_signal(signal.SIGCONT)

                await client.send("Flush", id=7)
                assert (await client.until("Flushed"))[-1]["id"] == 7


async def test_a_killed_gateway_frees_its_slots(rig: Any, tmp_path: Path) -> None:
    worker = rig.worker("--fake-slots", "1", "--gateway-timeout-s", "1")
    with rig.gateway_process(tmp_path, "--worker", worker.endpoint) as (process, port):
        async with aiohttp.ClientSession() as http, rig.gateway(worker.endpoint) as survivor:
            gateway = rig.RunningGateway(port, http)
            await rig.eventually(lambda: rig.is_ready(gateway, 1))
            async with gateway.ready_client():
                process.kill()
                await rig.eventually(lambda: _can_open(survivor))


async def _can_open(gateway: Any) -> bool:
    async with gateway.client() as client:
        return bool((await client.receive())["type"] == "Ready")


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([], "no configuration file: give --config FILE"),
        (["--config", "nowhere.toml", "--worker", "tcp://127.0.0.1:1"], "nowhere.toml"),
        (["--worker", "127.0.0.1:1"], "worker '127.0.0.1:1': must be tcp://HOST:PORT or ipc://PATH"),
        (["--discover", "http://x"], "discover 'http://x': must be dns://NAME:PORT or file://PATH"),
        (["--worker", "tcp://127.0.0.1:1"], "no keys: set authorized_ids"),
        (["--worker", "tcp://127.0.0.1:1", "--allow-no-keys", "--addr", "0.0.0.0"], "only a loopback address"),
        (["--worker", "tcp://127.0.0.1:1", "--allow-no-keys", "--port", "99999"], "--port 99999"),
        (["--worker", "tcp://127.0.0.1:1", "--key", "k", "--host", "203.0.113.1"], "of 203.0.113.1"),
    ],
)
def test_a_user_who_is_wrong_gets_a_message_and_no_traceback(
    tmp_path: Path,
    flags: list[str],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from asr_gateway.command import main  # noqa: PLC0415

    monkeypatch.chdir(tmp_path)
    assert main(flags) == 1
    said = capsys.readouterr().err
    assert complaint in said
    assert all(line.startswith("asr-gateway: ") for line in said.splitlines())


def test_help_is_answered() -> None:
    command = [sys.executable, "-m", "asr_gateway", "--help"]
    assert "--discover" in subprocess.run(command, capture_output=True, check=True, text=True).stdout


async def test_the_log_quotes_no_request_that_is_no_http(rig: Any, tmp_path: Path) -> None:
    with rig.gateway_process(tmp_path, "--worker", "ipc:///nowhere") as (process, port):
        async with aiohttp.ClientSession() as http:
            gateway = rig.RunningGateway(port, http)
            await rig.eventually(lambda: rig.is_ready(gateway, 0))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            # The space before the colon makes it malformed; what follows is nobody's business.
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nkyutai-api-key : hidden-7f3a\r\n\r\n")
            answer = await reader.read()
            assert answer.split()[1] == b"400"
            assert b"hidden-7f3a" not in answer
            assert b"aiohttp" not in answer
            writer.close()
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 10) == 0

    assert "hidden-7f3a" not in (tmp_path / "gateway.log").read_text()
