"""Who may use the service: keys as they stand in the configuration, and a check that takes the same time for all.

A key is stored as it is or as ``sha256:<hex digest>``. What leaves this module is never a key, only a short hash of it.
"""

import hmac
import re
from hashlib import sha256
from typing import Final

from shared.errors import ConfigError, UnauthorizedError
from shared.key_hash import NO_KEY, key_hash

_HASHED: Final = "sha256:"
_DIGEST: Final = re.compile(r"[0-9a-fA-F]{64}")


class KeyRing:
    """The keys that open the door.

    Args:
        authorized_ids: plain or hashed keys; with none at all, everybody may come in.

    Raises:
        ConfigError: a hashed key is no SHA-256 digest.
    """

    def __init__(self, authorized_ids: tuple[str, ...]) -> None:
        self._digests = [_digest_of(stored, index) for index, stored in enumerate(authorized_ids)]

    @property
    def is_open(self) -> bool:
        """Whether no key is needed."""
        return not self._digests

    def admit(self, key: str | None) -> str:
        """Return the short hash under which the use of ``key`` is counted (``NO_KEY`` where none is needed).

        Raises:
            UnauthorizedError: a key is needed, and this is none.
        """
        if self.is_open:
            return NO_KEY
        if not key:
            message = "a key is needed: send it in the header kyutai-api-key"
            raise UnauthorizedError(message)
        digest = sha256(key.encode("utf-8", "surrogateescape")).digest()
        # Every stored key is compared, and hashes instead of keys: the time tells nothing about either.
        if not sum(hmac.compare_digest(digest, stored) for stored in self._digests):
            message = "the key is not known"
            raise UnauthorizedError(message)
        return key_hash(key)


def _digest_of(stored: str, index: int) -> bytes:
    if not stored.startswith(_HASHED):
        return sha256(stored.encode()).digest()
    digest = stored.removeprefix(_HASHED)
    if not _DIGEST.fullmatch(digest):
        # The value is not quoted: it may be a key with an unlucky beginning.
        message = f"authorized_ids[{index}]: 'sha256:' must be followed by the 64 hexadecimal digits of a SHA-256 hash"
        raise ConfigError(message)
    return bytes.fromhex(digest)
