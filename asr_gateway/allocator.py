"""How glibc's allocator deals with the memory of audio blocks: it keeps it.

By default, what is as large as a block of some dozens of frames is mapped from the kernel for each use and given back
after it, and the kernel clears every page anew: a third of a loaded gateway's time was spent on that.
"""

import ctypes
import sys
from typing import Final

KEPT_BYTES: Final = 64 << 20
"""Free memory that the process keeps instead of giving it back."""
MAPPED_FROM_BYTES: Final = 32 << 20
"""Larger pieces are still mapped one by one: the most that glibc allows."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def keep_freed_memory() -> bool:
    """Have freed memory kept for the next block; return whether this C library can."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has no such setting
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)) and bool(mallopt(_M_MMAP_THRESHOLD, MAPPED_FROM_BYTES))
