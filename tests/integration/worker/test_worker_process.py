"""The worker as a process: how it starts, drains, fails and complains."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from asr_worker.model.fake_oracle import expected_events
from shared.messages import Evict, Load, Ready, Reject, SessionKind

Fixture = Any  # fixtures of conftest.py, whose classes cannot be imported
Speech = Callable[[int, int], NDArray[np.float32]]


def test_a_terminated_worker_finishes_its_sessions_and_exits_0(
    start_worker: Fixture, connect: Fixture, make_speech: Speech
) -> None:
    worker = start_worker("--metrics-port", "0")
    gateway = connect(worker)
    gateway.hello()
    gateway.open(1)
    pcm = make_speech(1, 60)
    gateway.sessions[1].say(pcm[:30])
    gateway.run(lambda: len(gateway.sessions[1].rows) == 30)
    worker.process.terminate()
    gateway.run(lambda: gateway.expect(Load).draining)
    refused = gateway.open(2)
    assert isinstance(refused, Reject)
    assert refused.reason == "draining"
    del gateway.sessions[2]
    with pytest.raises(urllib.error.HTTPError, match="503") as caught:
        urllib.request.urlopen(worker.metrics_url() + "/readyz", timeout=10)
    caught.value.close()
    with urllib.request.urlopen(worker.metrics_url() + "/metrics", timeout=10) as answer:
        assert "asr_worker_slots_free 0\n" in answer.read().decode()
    gateway.sessions[1].say(pcm[30:])
    gateway.sessions[1].flush(1)
    gateway.run(lambda: gateway.sessions[1].answers)
    assert gateway.sessions[1].words == expected_events(pcm, flush=True)
    assert worker.process.poll() is None
    gateway.close(1)
    assert worker.process.wait(5) == 0


@pytest.mark.parametrize("how", ["deadline", "second signal"])
def test_a_drain_does_not_wait_for_ever(start_worker: Fixture, connect: Fixture, how: str) -> None:
    worker = start_worker("--drain-s", "0.3" if how == "deadline" else "60")
    gateway = connect(worker)
    gateway.hello()
    gateway.open(1)
    worker.process.terminate()
    if how == "second signal":
        gateway.run(lambda: gateway.expect(Load).draining)
        worker.process.terminate()
    told = gateway.expect(Evict)
    assert (told.session, told.code) == (1, "restarting")
    assert worker.process.wait(5) == 0


def test_a_failed_device_ends_the_process_with_70_and_every_session_is_told(
    start_worker: Fixture, connect: Fixture, make_speech: Speech
) -> None:
    worker = start_worker("--fake-fail-at-step", "10")
    gateway = connect(worker)
    gateway.hello()
    for number in (1, 2):
        gateway.open(number)
        gateway.sessions[number].say(make_speech(number, 40))
    gateway.run(lambda: any(isinstance(message, Evict) for message in gateway.other))
    failed_s = time.monotonic()
    assert worker.process.wait(5) == 70
    assert time.monotonic() - failed_s < 2.0
    gateway.run(lambda: sum(isinstance(message, Evict) for message in gateway.other) == 2)
    assert {m.code for m in gateway.other if isinstance(m, Evict)} == {"model_fault"}
    assert "Traceback" not in worker.output()
    assert "asr-worker: the fake device fails from step 10 on" in worker.output()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "fake"], "asr-worker: no endpoint: give --bind tcp://HOST:PORT or set ASR_BIND"),
        (["--bind", "tcp://127.0.0.1:0"], "asr-worker: no configuration file: give --config FILE or set ASR_CONFIG"),
        (["--bind", "127.0.0.1:0", "--model", "fake"], "--bind 127.0.0.1:0: must be tcp://HOST:PORT, PORT from"),
        (["--bind", "tcp://127.0.0.1:0", "--config", "gone.toml"], "gone.toml: cannot be read: No such file"),
        (["--bind", "tcp://127.0.0.1:0", "--model", "real"], '--model real: must be "fake"'),
        (["--bind", "tcp://127.0.0.1:0", "--model", "fake", "--fake-delay", "1"], "delay_frames of the fake model"),
        (["--bind", "x", "--threads", "0"], "asr-worker: --threads 0: must be an integer from 1 to"),
        (["--threads", "0", "--seed", "x"], "asr-worker: --seed x: must be an integer"),
        (
            ["--bind", "tcp://127.0.0.1:0", "--model", "fake", "--window-frames", "5000"],
            "--window-frames 5000: must be an integer from 1 to 4096",
        ),
        (["--bind", "tcp://no-such-host.invalid:1", "--model", "fake"], "cannot listen on tcp://no-such-host.invalid"),
        (
            ["--bind", "tcp://127.0.0.1:0", "--model", "fake", "--announce", "no/folder"],
            "--announce no/folder: cannot be written: No such file or directory",
        ),
        (
            ["--bind", "tcp://127.0.0.1:0", "--model", "fake", "--announce", "."],
            "--announce .: cannot be written: it names no file",
        ),
    ],
)
def test_wrong_settings_are_one_clear_message(
    tmp_path: Path, environment: dict[str, str], flags: list[str], message: str
) -> None:
    command = [sys.executable, "-m", "asr_worker", *flags]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_more_audio_than_there_is_memory_for_is_a_wrong_setting(tmp_path: Path, environment: dict[str, str]) -> None:
    # Some systems promise more memory than they have, until one is told not to: here, 16 GB.
    limited = ["sh", "-c", 'ulimit -v 16000000; exec "$@"', "sh", sys.executable, "-m", "asr_worker"]
    flags = ["--model", "fake", "--fake-slots", "4096", "--window-frames", "4096", "--measure-s", "0"]
    done = subprocess.run(
        [*limited, *flags, "--bind", "tcp://127.0.0.1:0"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    said = "asr-worker: window_frames = 4096 with a batch_size of 4096: there is no memory for the 128849018880 bytes"
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_address_is_named_before_a_model_is_loaded(
    start_worker: Fixture, environment: dict[str, str], tmp_path: Path
) -> None:
    worker = start_worker()
    command = [sys.executable, "-m", "asr_worker", "--model", "fake", "--bind", worker.endpoint]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert f"asr-worker: cannot listen on {worker.endpoint}: Address already in use" in done.stderr
    assert "model_loaded" not in done.stdout + done.stderr


def test_unknown_flags_are_wrong_usage(tmp_path: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "asr_worker", "--no-such-flag"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=30, check=False)
    assert done.returncode == 2


def test_settings_come_from_the_environment_too(
    start_worker: Fixture, connect: Fixture, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    monkeypatch.setitem(environment, "ASR_FAKE_SLOTS", "3")
    monkeypatch.setitem(environment, "ASR_WINDOW_FRAMES", "7")
    worker = start_worker("--window-frames", "9")
    welcome = connect(worker).hello()
    assert (welcome.n_sessions, welcome.window_frames) == (3, 9)


def test_the_log_says_which_process_started_and_of_which_version(start_worker: Fixture) -> None:
    worker = start_worker()
    started = [json.loads(line) for line in worker.output().splitlines() if "process_started" in line]
    assert [(line["pid"], line["version"]) for line in started] == [(worker.process.pid, version("asr-streaming"))]


def test_an_idle_worker_costs_next_to_nothing(start_worker: Fixture, connect: Fixture) -> None:
    worker = start_worker()
    gateway = connect(worker)
    gateway.hello()
    gateway.open(1)
    before_s = cpu_seconds(worker.process.pid)
    gateway.receive(0.0)
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        gateway.receive(0.2)
    assert cpu_seconds(worker.process.pid) - before_s < 0.2


def test_a_worker_without_frames_is_not_behind(start_worker: Fixture, connect: Fixture, make_speech: Speech) -> None:
    worker = start_worker("--fake-step-ms", "20", "--metrics-port", "0")
    gateway = connect(worker)
    gateway.hello()
    gateway.open(1)
    gateway.sessions[1].say(make_speech(1, 20))
    gateway.run(lambda: len(gateway.sessions[1].rows) == 20)

    deadline = time.monotonic() + 5.0
    while is_behind(worker):
        assert time.monotonic() < deadline, "the lag of the last step stays for ever"
        gateway.receive(0.1)


def test_a_worker_that_steps_only_a_file_is_not_behind(
    start_worker: Fixture, connect: Fixture, make_speech: Speech
) -> None:
    worker = start_worker("--fake-step-ms", "20", "--metrics-port", "0")
    gateway = connect(worker)
    gateway.hello()
    gateway.open(1)
    gateway.sessions[1].say(make_speech(1, 20))
    gateway.open(2, kind=SessionKind.FILE)
    gateway.sessions[2].say(make_speech(2, 60))
    gateway.run(lambda: len(gateway.sessions[2].rows) >= 10)
    assert is_behind(worker)

    gateway.run(lambda: len(gateway.sessions[2].rows) >= 30)
    assert not is_behind(worker)


def is_behind(worker: Fixture) -> bool:
    with urllib.request.urlopen(f"{worker.metrics_url()}/metrics", timeout=10) as answer:
        return "asr_worker_step_lag_seconds 0\n" not in answer.read().decode()


def cpu_seconds(pid: int) -> float:
    import psutil  # noqa: PLC0415  (only this test measures)

    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def test_steps_that_grow_too_slow_are_told_and_on_cpu_all_slots_are_admitted_still(
    start_worker: Fixture, connect: Fixture
) -> None:
    worker = start_worker("--fake-slots", "4", "--fake-row-ms", "25", "--metrics-port", "0")
    assert connect(worker).hello().n_sessions == 4
    assert "4 sessions are admitted, but with more than 2 a step was measured to take longer" in worker.output()
    with urllib.request.urlopen(f"{worker.metrics_url()}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    assert {"asr_worker_sessions_admitted 4", "asr_worker_sessions_measured 2"} <= set(lines)
    assert any(line.startswith('asr_worker_start_step_seconds{active="3"} 0.07') for line in lines)


def test_the_session_cap_is_below_the_slots(start_worker: Fixture, connect: Fixture) -> None:
    worker = start_worker("--max-sessions", "1")
    gateway = connect(worker)
    assert gateway.hello().n_sessions == 1
    assert isinstance(gateway.open(1), Ready)
    assert gateway.expect(Load).free == 0
    assert isinstance(gateway.open(2), Reject)
