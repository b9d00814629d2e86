"""How many sessions this machine steps in time: asked of a worker that only measures and ends.

Files that are not on this machine are not downloaded for it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

MEASURE_TIMEOUT_S: Final = 300.0
SPEAKER: Final = "asr-worker: "
"""How a worker's own messages begin; a log or a traceback may stand around them."""


def measure_speed(config_path: Path, module: str) -> dict[str, Any] | list[str]:
    """Return what ``asr-worker --measure-only`` found, or every reason why it found nothing."""
    flags = ["--config", str(config_path), "--module", module, "--measure-only"]
    command = [sys.executable, "-P", "-m", "asr_worker", *flags]
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "HF_HUB_OFFLINE": "1"}
    try:
        ended = subprocess.run(  # noqa: S603 - our own worker
            command, env=environment, capture_output=True, text=True, timeout=MEASURE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return [f"no answer within {MEASURE_TIMEOUT_S:g} s"]
    if ended.returncode != 0:
        lines = ended.stderr.strip().splitlines()
        said = [line for line in lines if line.startswith(SPEAKER)]
        return said or lines[-1:] or ["no message"]
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def speed_line(found: dict[str, Any]) -> str:
    """Say it in a sentence."""
    if found["measured"] is None:
        return f"speed not measured (measure_s is 0); {found['sessions']} sessions would be admitted"
    steps = ", ".join(f"{n}: {step_ms:g}" for n, step_ms in found["step_p99_ms"].items())
    return (
        f"{found['measured']} of {found['slots']} slots step within 60 ms on "
        f"{found['device']} with full caches ({found['dtype']}; ms by active slots: {steps}); "
        f"{found['sessions']} sessions would be admitted, {found['files']} of them files"
    )
