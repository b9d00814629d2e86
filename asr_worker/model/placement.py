"""Where a model runs and in which number format."""

from typing import Final

import torch

from shared.errors import ConfigError
from shared.number_formats import F16_RISK, lm_number_format

DTYPES: Final = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
"""By number format."""


def choose_device(name: str) -> torch.device:
    """Return the device called ``name``: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ConfigError: there is no such device here.
    """
    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    kind, _, index = name.partition(":")
    if name == "cpu" or (name == "auto" and n_devices == 0):
        return torch.device("cpu")
    if name in {"auto", "cuda"} and n_devices:
        return torch.device("cuda", 0)
    if kind == "cuda" and index.isdecimal() and int(index) < n_devices:
        return torch.device("cuda", int(index))
    here = ", ".join(["auto", "cpu", *(["cuda"] if n_devices else []), *(f"cuda:{i}" for i in range(n_devices))])
    why = "" if n_devices or kind != "cuda" else f" ({_why_no_gpu()})"
    msg = f"device is {name!r}; this machine has {here}{why}"
    raise ConfigError(msg)


def _why_no_gpu() -> str:
    """Say what the commonest reasons are; torch itself only warns."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA"
    return (
        f"torch {torch.__version__} was built for CUDA {torch.version.cuda} and sees no GPU: is the driver that new? "
        "nvidia-smi shows up to which CUDA it goes"
    )


def choose_dtype(device: torch.device, override: str | None) -> tuple[torch.dtype, list[str]]:
    """Return the language model's dtype on a device, and what an operator should know about it.

    Args:
        device: where it runs.
        override: the module's ``dtype_override``; it wins.
    """
    if override is not None:
        return DTYPES[override], [F16_RISK] if override == "f16" else []
    if device.type == "cpu":
        return DTYPES[lm_number_format(None)], []
    return dtype_for_capability(torch.cuda.get_device_capability(device))


def dtype_for_capability(capability: tuple[int, int]) -> tuple[torch.dtype, list[str]]:
    """Return the dtype for a CUDA compute capability, with a warning if it is not bfloat16."""
    number_format = lm_number_format(capability)
    dtype = DTYPES[number_format]
    if number_format == "bf16":
        return dtype, []
    name = str(dtype).removeprefix("torch.")
    major, minor = capability
    why = f"compute capability {major}.{minor} has no bfloat16 (it comes with 8.0): the model runs in {name}"
    return dtype, [why, F16_RISK] if number_format == "f16" else [why]
