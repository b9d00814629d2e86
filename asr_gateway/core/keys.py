"""Who may use the service: keys as they stand in the configuration, and a check that takes the same time for all.

A key is stored as it is or as ``sha256:<hex digest>``. What leaves this module is never a key, only a short hash of it.
"""

import hmac
from hashlib import sha256
from typing import Final

from asr_gateway.core.key_hash import NO_KEY, key_hash
from shared.errors import UnauthorizedError

_HASHED: Final = "sha256:"


class KeyRing:
    """The keys that open the door.

    Args:
        authorized_ids: keys as ``shared.config.Key`` allows them; with none at all, everybody may come in.
    """

    def __init__(self, authorized_ids: tuple[str, ...]) -> None:
        self._digests = [_digest_of(stored) for stored in authorized_ids]

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
            message = "a key is needed: send it in the header kyutai-api-key, or as Authorization: Bearer KEY"
            raise UnauthorizedError(message)
        digest = sha256(key.encode("utf-8", "surrogateescape")).digest()
        # Every stored key is compared, and hashes instead of keys: the time tells nothing about either.
        if not sum(hmac.compare_digest(digest, stored) for stored in self._digests):
            message = "the key is not known"
            raise UnauthorizedError(message)
        return key_hash(key)


def _digest_of(stored: str) -> bytes:
    if stored.startswith(_HASHED):
        return bytes.fromhex(stored.removeprefix(_HASHED))
    return sha256(stored.encode()).digest()
