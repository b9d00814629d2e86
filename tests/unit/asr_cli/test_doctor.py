import shutil
import subprocess
import sysconfig
from dataclasses import replace
from pathlib import Path

import pytest

from asr_cli import doctor
from asr_cli.__main__ import main
from asr_cli.doctor import capacity_lines, kernel_line
from asr_cli.serve import demo_config
from asr_cli.torch_probe import CudaDevice, TorchFacts, probe_torch
from shared.config import WorkerConfig
from shared.config_file import load_config
from shared.errors import ConfigError
from shared.number_formats import F16_RISK


def test_what_the_attention_kernel_lacks_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/gcc" if name == "gcc" else None)
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path))
    assert kernel_line() == "lacks Python's headers (python3-dev): torch's slower attention runs"
    (tmp_path / "Python.h").touch()
    assert kernel_line() == "can be compiled"
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert kernel_line() == "lacks a C compiler (gcc): torch's slower attention runs"


@pytest.mark.parametrize(("capability", "is_risky"), [((6, 1), False), ((7, 5), True), ((8, 0), False)])
def test_numbers_that_may_overflow_on_an_old_device_are_warned_of(
    *, capability: tuple[int, int], is_risky: bool
) -> None:
    (module,) = load_config(demo_config(), {}).service.modules
    card = CudaDevice(name="a card", capability=capability, free_bytes=1 << 34, total_bytes=1 << 34)

    lines = list(capacity_lines(module, (card,), WorkerConfig()))

    assert lines[1:] == ([F16_RISK] if is_risky else [])


def test_number_formats_are_said_where_they_count() -> None:
    (module,) = load_config(demo_config(), {}).service.modules
    card = CudaDevice(name="a card", capability=(9, 0), free_bytes=1 << 34, total_bytes=1 << 34)
    worker = WorkerConfig(cpu_weights="int8", kv_cache="bf16")

    on_cpu, on_gpu = (next(capacity_lines(module, devices, worker)) for devices in ((), (card,)))

    assert on_cpu.endswith(", f32, weights in int8, caches in bf16)")
    assert on_gpu.endswith(" bf16, caches in bf16)")
    assert "weights in" not in on_gpu
    assert "while they are loaded" in on_cpu
    assert "while they are loaded" not in on_gpu


def test_weights_that_a_worker_would_refuse_are_named() -> None:
    (module,) = load_config(demo_config(), {}).service.modules
    lines = list(capacity_lines(replace(module, dtype_override="bf16"), (), WorkerConfig(cpu_weights="int8")))
    assert lines[1:] == ["no worker will start: cpu_weights = 'int8' wants float32, dtype_override is bf16"]


@pytest.mark.parametrize(
    ("printed", "facts"),
    [
        ('a word\n{"version": "2.6", "devices": []}\n', TorchFacts(version="2.6")),
        ("a word\n", TorchFacts(version=None, trouble="its answer is none: 'a word'")),
        ("", TorchFacts(version=None, trouble="its answer is none: ''")),
    ],
)
def test_what_else_python_prints_when_it_starts_is_no_answer(
    printed: str, facts: TorchFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.CompletedProcess([], 0, stdout=printed, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    assert probe_torch() == facts


def test_a_worker_s_settings_in_the_environment_count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "probe_torch", lambda: TorchFacts(version="2.6"))
    monkeypatch.setenv("ASR_KV_CACHE", "int8")
    main(["doctor", "--no-speed"])
    assert "f32, caches in int8)" in capsys.readouterr().out


def test_a_file_of_the_hub_that_cannot_be_looked_for_does_not_end_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_hub(*_: object) -> list[str]:
        message = "huggingface_hub is not installed"
        raise ConfigError(message)

    monkeypatch.setattr(doctor, "missing_files", no_hub)
    main(["doctor"])
    assert "speed not measured: huggingface_hub is not installed" in capsys.readouterr().out
