"""How many NVIDIA GPUs this process may use, asked of the driver and not of torch, which takes seconds to load."""

import subprocess
from collections.abc import Mapping
from typing import Final

DRIVER_TIMEOUT_S: Final = 10.0


def count_gpus(environ: Mapping[str, str]) -> int:
    """Return the number of GPUs that CUDA would show here; 0 where there is no driver."""
    try:
        listing = subprocess.run(
            ["nvidia-smi", "-L"],  # noqa: S607 - the driver's own tool, wherever the system put it
            capture_output=True,
            text=True,
            timeout=DRIVER_TIMEOUT_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return visible_gpus(listing, environ.get("CUDA_VISIBLE_DEVICES"))


def visible_gpus(listing: str, visible: str | None) -> int:
    """Return how many GPUs of ``nvidia-smi -L`` are left by CUDA_VISIBLE_DEVICES (None: unset).

    As CUDA does, the list ends at the first entry that names no device; an empty one hides all.
    """
    present = sum(line.startswith("GPU ") for line in listing.splitlines())
    if visible is None:
        return present
    count = 0
    for entry in visible.split(","):
        name = entry.strip()
        known = int(name) < present if name.isdecimal() else name.startswith(("GPU-", "MIG-"))
        if not known:
            break
        count += 1
    return count
