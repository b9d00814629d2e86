"""What torch can do here, asked of a process of its own.

This package never imports torch, which takes seconds and hundreds of megabytes; and a driver that is broken may end
the process that touches it.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Final

PROBE_TIMEOUT_S: Final = 120.0

_PROBE: Final = """
import json, torch
def device(index):
    free, total = torch.cuda.mem_get_info(index)
    properties = torch.cuda.get_device_properties(index)
    return {"name": properties.name, "capability": [properties.major, properties.minor], "free": free, "total": total}
n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
print(json.dumps({"version": torch.__version__, "devices": [device(index) for index in range(n_devices)]}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaDevice:
    """One GPU as torch sees it; memory in bytes."""

    name: str
    capability: tuple[int, int]
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchFacts:
    """What torch said, or why it said nothing."""

    version: str | None
    devices: tuple[CudaDevice, ...] = ()
    trouble: str | None = None


def probe_torch() -> TorchFacts:
    """Start Python, import torch there, and return what it finds."""
    try:
        answer = subprocess.run(  # noqa: S603 - our own Python runs our own text
            [sys.executable, "-P", "-c", _PROBE], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return TorchFacts(version=None, trouble=f"no answer within {PROBE_TIMEOUT_S:g} s")
    if answer.returncode != 0:
        last_line = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        return TorchFacts(version=None, trouble=last_line)
    try:
        # The last line: what is imported may print, too.
        return read_facts(json.loads(answer.stdout.splitlines()[-1]))
    except (IndexError, ValueError):
        return TorchFacts(version=None, trouble=f"its answer is none: {answer.stdout.strip()[-100:]!r}")


def read_facts(document: dict[str, Any]) -> TorchFacts:
    """Return what the probe printed."""
    devices = tuple(
        CudaDevice(
            name=device["name"],
            capability=tuple(device["capability"]),
            free_bytes=device["free"],
            total_bytes=device["total"],
        )
        for device in document["devices"]
    )
    return TorchFacts(version=document["version"], devices=devices)
