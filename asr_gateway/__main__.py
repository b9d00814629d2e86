"""The command ``asr-gateway``."""

import sys

from shared.program import run_program


def main() -> int:
    """Run the command and return its exit status."""
    return run_program("asr-gateway", "asr_gateway.command", extra="gateway")


if __name__ == "__main__":
    sys.exit(main())
