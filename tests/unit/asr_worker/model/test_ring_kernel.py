import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed; it comes with torch for CUDA"
)


def run(case: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("ring_kernel_cases.py"), case],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_interpreted_kernel_answers_as_torch_does() -> None:
    run("interpret", TRITON_INTERPRET="1")


@pytest.mark.slow
def test_the_kernel_compiles_for_gpus_that_are_not_here(tmp_path: Path) -> None:
    run("compile", TRITON_CACHE_DIR=str(tmp_path))
