"""The command ``asr-worker``. Loading what it needs takes a while, in which Ctrl-C is no mistake of anybody."""

import sys
from typing import Final

from shared.extras import missing_package

INCOMPLETE: Final = 1
"""Exit status where a package is not installed."""
INTERRUPTED: Final = 130
"""Exit status after Ctrl-C, as of a shell (128 + SIGINT)."""


def main() -> int:
    """Run the command and return its exit status."""
    try:
        from asr_worker.app import main as run  # noqa: PLC0415  (see above)

        return run()
    except ModuleNotFoundError as error:
        print(f"asr-worker: {missing_package(error, 'worker')}", file=sys.stderr)  # noqa: T201  (a command)
        return INCOMPLETE
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
