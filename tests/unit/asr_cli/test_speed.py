from pathlib import Path

import pytest

from asr_cli.__main__ import main
from asr_cli.serve import demo_config
from asr_cli.speed import measure_speed, speed_line

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


def test_why_nothing_was_measured_is_said_too() -> None:
    assert speed_line("no such file") == "speed not measured: no such file"
    assert speed_line(FOUND | {"measured": None}).startswith("speed not measured (measure_s is 0); 36 sessions")


def test_files_that_are_not_here_are_no_crash(tmp_path: Path) -> None:
    config = tmp_path / "asr.toml"
    config.write_text(demo_config().read_text())
    reason = measure_speed(config, "asr")
    assert isinstance(reason, str)
    assert "safetensors" in reason


@pytest.mark.slow
def test_the_doctor_times_the_demo_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "of 8 slots step within 60 ms on cpu" in capsys.readouterr().out


@pytest.mark.slow
def test_the_doctor_can_be_told_not_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--no-speed"]) == 0
    assert "step within" not in capsys.readouterr().out
