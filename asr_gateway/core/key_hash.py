"""The short name of a client's key that may be shown: in metrics, logs and usage reports."""

import hashlib
from typing import Final

NO_KEY: Final = "none"
"""Stands for clients that needed no key."""

_DIGITS: Final = 8


def key_hash(key: str | None) -> str:
    """Return the first 8 hex digits of the key's SHA-256, ``NO_KEY`` if there is no key."""
    return NO_KEY if not key else hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGITS]
