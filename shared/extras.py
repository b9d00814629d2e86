"""The service is installed in parts (the extras of ``pyproject.toml``): what to say where one lacks a package."""

from typing import Final

_OURS: Final = {"shared", "asr_gateway", "asr_worker", "asr_cli"}


def missing_package(error: ModuleNotFoundError, extra: str) -> str:
    """Say what is not installed, and that ``extra`` brings it.

    Raises:
        ModuleNotFoundError: ``error`` itself, where the module is one of ours: a mistake that wants its traceback.
    """
    name = (error.name or "").partition(".")[0]
    if not name or name in _OURS:
        raise error
    return f"the Python package {name} is not installed; in a copy of the repository: {install_command(extra)}"


def install_command(extra: str) -> str:
    """Return how ``extra`` is installed from a copy of the repository: nothing of it lies in a package index."""
    return f"pip install '.[{extra}]'"
