"""How glibc's allocator deals with large pieces of memory that come and go: it keeps them.

By default what is as large as a block of some dozens of frames, or as the output of a convolution, is mapped from the
kernel for each use and given back after it, and the kernel clears every page anew: a third of a loaded gateway's time
was spent on that, and up to a tenth of a step of 32 sessions.
"""

import ctypes
import sys
from typing import Final

MAPPED_FROM_BYTES: Final = 32 << 20
"""Larger pieces are still mapped one by one: the most that glibc allows."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def keep_freed_memory(kept_bytes: int) -> bool:
    """Have the process keep so much freed memory for what comes next; return whether this C library can."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has no such setting
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, kept_bytes)) and bool(mallopt(_M_MMAP_THRESHOLD, MAPPED_FROM_BYTES))
