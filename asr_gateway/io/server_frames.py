"""WebSocket frames as a server sends them: final, not masked, not compressed (RFC 6455, section 5.2)."""

import struct
from typing import Final

PING: Final = b"\x89\x00"

_TEXT: Final = 0x81
_BINARY: Final = 0x82
_CLOSE: Final = 0x88
_PONG: Final = 0x8A
_LENGTH16: Final = struct.Struct(">BBH")
_LENGTH64: Final = struct.Struct(">BBQ")
_IS_16: Final = 126
_IS_64: Final = 127
_CODE: Final = struct.Struct(">H")
_MAX_REASON_BYTES: Final = 120
_SHORT_BINARY: Final = tuple(bytes((_BINARY, n_bytes)) for n_bytes in range(_IS_16))
"""Heads of binary messages by their length: nearly all that a server sends is short."""


def binary(payload: bytes) -> bytes:
    """Return the frame of a binary message."""
    n_bytes = len(payload)
    return _SHORT_BINARY[n_bytes] + payload if n_bytes < _IS_16 else _frame(_BINARY, payload)


def text(payload: bytes) -> bytes:
    """Return the frame of a text message (UTF-8)."""
    return _frame(_TEXT, payload)


def pong(payload: bytes) -> bytes:
    """Return the answer to a ping that held ``payload`` (at most 125 bytes)."""
    return _frame(_PONG, payload)


def close(code: int, reason: str) -> bytes:
    """Return a Close frame; a long reason is cut between characters."""
    cut = reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
    return _frame(_CLOSE, _CODE.pack(code) + cut.encode())


def _frame(opcode: int, payload: bytes) -> bytes:
    n_bytes = len(payload)
    if n_bytes < _IS_16:
        return bytes((opcode, n_bytes)) + payload
    if n_bytes < 1 << 16:
        return _LENGTH16.pack(opcode, _IS_16, n_bytes) + payload
    return _LENGTH64.pack(opcode, _IS_64, n_bytes) + payload
