"""What every command shares: the error that ends it with a message, and flags that the environment can set."""

import os
from collections.abc import Mapping


class UsageError(Exception):
    """The user, or what the user asked for, is wrong: shown as one message, without a traceback."""


def from_environment(flag: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the value of ``flag`` in the environment: ``--port`` is ``ASR_PORT``; None if unset or empty.

    Given to argparse as a default, where it is converted and checked like a flag.
    """
    return environ.get("ASR_" + flag.lstrip("-").replace("-", "_").upper()) or None
