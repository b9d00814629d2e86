import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from asr_cli.__main__ import main
from asr_cli.serve import demo_config
from asr_cli.speed import speed_line

FOUND = {
    "device": "cuda:0",
    "dtype": "bfloat16",
    "sessions": 36,
    "files": 9,
    "slots": 64,
    "measured": 40,
    "reserve": 4,
    "step_p99_ms": {"32": 50.1, "40": 59.0, "64": 80.5},
}


def test_what_was_measured_is_said_in_a_sentence() -> None:
    assert speed_line(FOUND) == (
        "40 of 64 slots step within 60 ms on cuda:0 with full caches (bfloat16; ms by active slots: 32: 50.1, "
        "40: 59, 64: 80.5); 36 sessions would be admitted, 9 of them files"
    )


def test_that_nothing_was_measured_is_said_too() -> None:
    assert speed_line(FOUND | {"measured": None}).startswith("speed not measured (measure_s is 0); 36 sessions")


def test_files_that_are_not_here_are_no_crash_and_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "asr.toml"
    config.write_text(demo_config().read_text())
    assert main(["doctor", "--config", str(config)]) == 0
    assert 'speed not measured: [modules.asr] lm_model_file = "lm.safetensors": there is no such file' in (
        capsys.readouterr().out
    )


def test_every_problem_of_models_that_do_not_load_is_said_and_is_a_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(demo_config().parent, tmp_path, dirs_exist_ok=True)
    for name in ("lm.safetensors", "mimi.safetensors"):
        save_file({"of_another_model": torch.zeros(2)}, tmp_path / name)
    assert main(["doctor", "--config", str(tmp_path / "demo.toml")]) == 1
    printed = capsys.readouterr().out
    assert "speed not measured: asr-worker: audio_tokenizer_file" in printed
    assert "speed not measured: asr-worker: lm_model_file" in printed
    assert "missing:                 a worker that starts with demo.toml [asr]" in printed


@pytest.mark.slow
def test_the_doctor_times_the_demo_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "of 8 slots step within 60 ms on cpu" in capsys.readouterr().out


@pytest.mark.slow
def test_the_doctor_can_be_told_not_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--no-speed"]) == 0
    assert "step within" not in capsys.readouterr().out
