"""From start to stop: when the service may be used, what survives what, and that nothing stays behind."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil


async def test_ready_means_that_a_session_is_served_and_stop_means_that_nothing_is_left(
    start_service: Callable[..., Any], connect: Callable[..., Any]
) -> None:
    service = start_service()
    service.wait_for({200})
    async with connect(service) as client:
        assert await client.next(timeout_s=1.0) == {"type": "Ready"}
    service.wait_until(lambda: f"ready: demo.toml, 1 worker on cpu, on {service.url}" in service.output())
    processes = service.children()
    assert len(processes) == 2
    assert service.stop() == 0
    assert [process for process in processes if process.is_running()] == []
    assert list((service.folder / "tmp").glob("asr-*")) == []


async def test_whoever_waits_for_the_port_is_served(
    start_service: Callable[..., Any], connect: Callable[..., Any]
) -> None:
    # The worker tries its slow steps before it is there. moshi-server opened its port after that, not before, and
    # health checks of containers and scripts that start it rely on that.
    service = start_service("--model", "fake", ASR_FAKE_STEP_MS="500")
    service.wait_until(lambda: service.status("/api/build_info") == 200)
    async with connect(service) as client:
        assert await client.next(timeout_s=1.0) == {"type": "Ready"}


async def test_a_worker_that_is_killed_comes_back_and_goes_on_with_its_sessions(
    service: Any, connect: Callable[..., Any]
) -> None:
    worker = service.child("asr_worker")
    async with connect(service) as client:
        await client.until("Ready")
        await client.send(type="Audio", pcm=[0.0] * 1920)
        assert (await client.until("Step"))["step_idx"] == 1
        worker.kill()
        await client.send(type="Audio", pcm=[0.0] * 3840)
        await client.send(type="Flush", id=1)
        assert [(await client.until("Step"))["step_idx"] for _ in range(2)] == [2, 3]
        assert (await client.until("Flushed"))["id"] == 1
    service.wait_for({200})
    assert service.child("asr_worker").pid != worker.pid
    async with connect(service) as client:
        await client.until("Ready")


def test_the_terminal_is_told_which_worker_is_missing_and_when_all_are_there(start_service: Callable[..., Any]) -> None:
    service = start_service("--model", "fake", "--workers", "2")
    ready = f"asr: ready: the fake model, 2 workers on cpu, on {service.url} - Ctrl-C stops it"
    service.wait_until(lambda: ready in service.output())
    (worker,) = [
        one for one in service.children() if "asr_worker" in one.cmdline() and "worker-1" in str(one.cmdline())
    ]
    worker.kill()
    service.wait_until(lambda: service.output().count(ready) == 2)
    said = [line for line in service.output().splitlines() if line.startswith("asr: ")]
    assert said[-3:] == [
        "asr: worker-1 was ended by SIGKILL; starting it again in 1 s",
        f"asr: {service.url} takes sessions; not ready yet: worker-1",
        ready,
    ]


def test_children_die_with_a_supervisor_that_is_killed(start_service: Callable[..., Any]) -> None:
    service = start_service("--model", "fake")
    service.wait_for({200})
    processes = service.children()
    service.process.kill()
    service.process.wait()
    gone, alive = psutil.wait_procs(processes, timeout=5)
    assert len(gone) == len(processes)
    assert alive == []


def test_a_wrong_configuration_ends_everything_with_its_message(
    start_service: Callable[..., Any], tmp_path: Path
) -> None:
    demo = Path(__file__).parents[2] / "asr_worker" / "demo" / "demo.toml"
    broken = tmp_path / "broken.toml"
    broken.write_text(demo.read_text().replace('"lm.safetensors"', '"absent.safetensors"'))
    service = start_service("--config", str(broken))
    assert service.process.wait(timeout=30) == 1
    assert "absent.safetensors" in service.output()
    assert "Traceback" not in service.output()


def test_wrong_weights_of_one_module_end_the_start_although_another_serves_already(
    start_service: Callable[..., Any], tmp_path: Path
) -> None:
    demo = Path(__file__).parents[2] / "asr_worker" / "demo"
    text = (demo / "demo.toml").read_text()
    for name in ("lm.safetensors", "tokenizer.model", "mimi.safetensors"):
        text = text.replace(f'"{name}"', f'"{demo / name}"')
    module = text[text.index("[modules.asr]") :]
    # Found only when the weights are read, when the other worker may be ready or not.
    other = module.replace("modules.asr", "modules.other").replace("/api/asr-", "/api/other-")
    broken = tmp_path / "broken.toml"
    n_layers = int(re.findall(r"num_layers = (\d+)", other)[0])
    broken.write_text(text + other.replace(f"num_layers = {n_layers}", f"num_layers = {n_layers + 1}", 1))
    service = start_service("--config", str(broken))
    assert service.process.wait(timeout=60) == 1
    assert f"transformer.layers.{n_layers}" in service.output()
    assert "asr: worker-1 ended with status 1; nothing is served until that is mended" in service.output()


async def test_the_gateway_finishes_its_sessions_before_it_stops(
    start_service: Callable[..., Any], connect: Callable[..., Any]
) -> None:
    service = start_service("--model", "fake")
    service.wait_for({200})
    async with connect(service) as client:
        await client.until("Ready")
        os.kill(service.process.pid, signal.SIGTERM)
        service.wait_for({503})
        await client.send(type="Audio", pcm=[0.1] * 19_200)
        await client.send(type="Flush", id=1)
        await client.until("Flushed")
    assert service.stop() == 0
