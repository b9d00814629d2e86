import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import builtins, os, signal, sys
real = builtins.__import__
def slow(name, *rest):
    if name == {heavy!r}:
        os.kill(os.getpid(), signal.SIGINT)  # somebody changes his mind while it loads
    return real(name, *rest)
from {package}.__main__ import main
builtins.__import__ = slow
sys.argv = [{package!r}, {word!r}]
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("package", "word", "heavy"),
    [
        ("asr_worker", "--help", "structlog"),
        ("asr_gateway", "--help", "structlog"),
        ("asr_cli", "transcribe", "asyncio"),
    ],
)
def test_ctrl_c_while_a_command_loads_leaves_no_traceback(package: str, word: str, heavy: str) -> None:
    program = PROGRAM.format(package=package, word=word, heavy=heavy)
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.returncode, ended.stderr) == (130, "")
