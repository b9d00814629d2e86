"""The parts of the service are installed apart; what a part lacks is named, and the fake model lacks nothing."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = str(Path(__file__).parents[2] / "asr_worker" / "demo" / "demo.toml")
HEAVY = ("torch", "safetensors", "sentencepiece", "huggingface_hub", "triton")

PROGRAM = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from {package}.__main__ import main
sys.argv = [{package!r}, *{arguments!r}]
sys.exit(main())
"""


def command(package: str, *arguments: str, absent: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-c", PROGRAM.format(package=package, arguments=arguments, absent=absent)]


def test_the_fake_model_needs_nothing_of_the_real_ones(tmp_path: Path) -> None:
    flags = ("--model", "fake", "--bind", f"ipc://{tmp_path}/link", "--measure-s", "0")
    run = command("asr_worker", *flags, absent=HEAVY)
    with subprocess.Popen(run, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as worker:
        assert worker.stderr is not None
        said = next((line for line in worker.stderr if "ipc://" in line), "it ended")
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=30)

    assert ("listening_started" in said, worker.returncode) == (True, 0)


@pytest.mark.parametrize(
    ("package", "arguments", "absent", "said"),
    [
        (
            "asr_worker",
            ("--config", DEMO, "--bind", "tcp://127.0.0.1:0", "--silent"),
            "torch",
            ("asr-worker", "worker"),
        ),
        ("asr_gateway", ("--help",), "aiohttp", ("asr-gateway", "gateway")),
        ("asr_cli", ("transcribe", "--help"), "soundfile", ("asr", "cli")),
    ],
)
def test_a_package_that_is_not_installed_is_named(
    package: str, arguments: tuple[str, ...], absent: str, said: tuple[str, str], tmp_path: Path
) -> None:
    run = command(package, *arguments, absent=(absent,))
    ended = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)

    name, extra = said
    complaint = f"{name}: the Python package {absent} is not installed; in a copy of the repository: "
    assert (ended.returncode, ended.stderr) == (1, f"{complaint}pip install '.[{extra}]'\n")
