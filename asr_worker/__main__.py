"""The command ``asr-worker``."""

import sys

from shared.program import run_program


def main() -> int:
    """Run the command and return its exit status."""
    return run_program("asr-worker", "asr_worker.app", extra="worker")


if __name__ == "__main__":
    sys.exit(main())
