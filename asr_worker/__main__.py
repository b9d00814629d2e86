"""The command ``asr-worker``."""

import sys

from asr_worker.app import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
