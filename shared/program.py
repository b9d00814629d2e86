"""How the two long-lived programs begin. Loading what they need takes a while, in which Ctrl-C is nobody's mistake."""

import sys
from importlib import import_module
from typing import Final

from shared.extras import missing_package

INCOMPLETE: Final = 1
"""Exit status where a package is not installed."""
INTERRUPTED: Final = 130
"""Exit status after Ctrl-C, as of a shell (128 + SIGINT)."""


def run_program(name: str, module: str, *, extra: str) -> int:
    """Load a program and run it; return its exit status.

    Args:
        name: what messages call it.
        module: where its ``main`` is.
        extra: what brings the packages that it needs.
    """
    try:
        return int(import_module(module).main())
    except ModuleNotFoundError as error:
        print(f"{name}: {missing_package(error, extra)}", file=sys.stderr)  # noqa: T201  (before there is a log)
        return INCOMPLETE
    except KeyboardInterrupt:
        return INTERRUPTED
