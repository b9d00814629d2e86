"""The processes are started wherever an operator happens to be; what lies there is none of their code."""

import io
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr_cli.speed import measure_speed
from asr_gateway.audio.files import FileLimits, open_decoder

FOREIGN = ("shared", "asr_gateway", "asr_worker", "json", "soundfile", "torch")


@pytest.fixture
def foreign_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with files that are named as modules of ours and others are."""
    for name in FOREIGN:
        (tmp_path / f"{name}.py").write_text('raise SystemExit("a stranger was imported")\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_service_starts_from_any_folder(foreign_folder: Path) -> None:
    command = [sys.executable, "-P", "-m", "asr_cli", "serve", "--model", "fake", "--port", "0", "--silent"]
    with subprocess.Popen(command, cwd=foreign_folder, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        said = service.stdout.readline()
        service.send_signal(signal.SIGTERM)
        service.communicate(timeout=30)

    assert (said.startswith("asr: ready: "), service.returncode) == (True, 0)


@pytest.mark.usefixtures("foreign_folder")
async def test_files_are_decoded_in_any_folder() -> None:
    body = io.BytesIO()
    soundfile.write(body, np.zeros(2_400, np.float32), 24_000, format="WAV")
    with tempfile.TemporaryFile() as file:
        file.write(body.getvalue())
        file.flush()
        async with open_decoder(file, FileLimits(max_audio_s=60, decode_timeout_s=20)) as decoder:
            await decoder.begin()
            assert sum([len(chunk) async for chunk in decoder.chunks()]) == 2_400


def test_speed_is_measured_in_any_folder(foreign_folder: Path) -> None:
    (reason,) = measure_speed(foreign_folder / "none.toml", "asr")
    assert reason.endswith("none.toml: cannot be read: No such file or directory")
