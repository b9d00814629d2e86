"""A WAV file that arrives in pieces: its header, then samples as they come. Pure; kept is only what was cut in two.

Whole files are libsndfile's business (``audio/file_child.py``). Where somebody streams a WAV live its header was often
written before anybody knew the length, so a length of 0 or of all ones means: to the end.

Source: Microsoft and IBM, "Multimedia Programming Interface and Data Specifications 1.0", chapter 3; for
WAVE_FORMAT_EXTENSIBLE, whose real format is in the first two bytes of a GUID, "Multiple Channel Audio Data".
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from asr_gateway.core.g711 import from_a_law, from_mu_law
from asr_gateway.core.level import limited
from shared.audio_header import header_problem
from shared.errors import BadAudioError

MAX_HEADER_BYTES: Final = 64 << 10
"""Before the samples; pictures and the like stand behind them as a rule."""

_RIFF: Final = struct.Struct("<4sI4s")
_CHUNK: Final = struct.Struct("<4sI")
_FORMAT: Final = struct.Struct("<HHIIHH")
_EXTENSIBLE: Final = 0xFFFE
_GUID_AT: Final = 24
_UNKNOWN_SIZES: Final = (0, 0xFFFFFFFF)

_Decode: TypeAlias = Callable[[bytes], NDArray[np.float32]]


def _from_8_bits(data: bytes) -> NDArray[np.float32]:
    return (np.frombuffer(data, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)


def from_16_bits(data: bytes) -> NDArray[np.float32]:
    """Return the samples ``[n]``, within +-1, of n times two bytes, the lower one first."""
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)


def _from_24_bits(data: bytes) -> NDArray[np.float32]:
    # To the upper three bytes of 32, whose lowest is 0.
    padded = np.zeros((len(data) // 3, 4), np.uint8)
    padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    return _from_32_bits(padded.tobytes())


def _from_32_bits(data: bytes) -> NDArray[np.float32]:
    return (np.frombuffer(data, "<i4") / 2.0**31).astype(np.float32)


def _from_floats(data: bytes) -> NDArray[np.float32]:
    return limited(np.frombuffer(data, "<f4").astype(np.float32))


def _from_doubles(data: bytes) -> NDArray[np.float32]:
    # Limited first: wider numbers could overflow.
    return limited(np.frombuffer(data, "<f8").astype(np.float64)).astype(np.float32)


_PCM, _FLOAT, _A_LAW, _MU_LAW = 1, 3, 6, 7
_DECODERS: Final[dict[tuple[int, int], _Decode]] = {
    (_PCM, 8): _from_8_bits,
    (_PCM, 16): from_16_bits,
    (_PCM, 24): _from_24_bits,
    (_PCM, 32): _from_32_bits,
    (_FLOAT, 32): _from_floats,
    (_FLOAT, 64): _from_doubles,
    (_A_LAW, 8): from_a_law,
    (_MU_LAW, 8): from_mu_law,
}
"""By format and bits of a sample."""


@dataclass(frozen=True, slots=True)
class _Format:
    rate: int
    n_channels: int
    sample_bytes: int
    decode: _Decode


class WavStream:
    """One WAV."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._n_header_bytes = 0
        self._format: _Format | None = None
        self._n_left: int | None = None
        """Bytes of samples to come; None before the first one, -1 if nobody knows."""
        self._has_riff = False

    @property
    def rate(self) -> int | None:
        """Samples per second; None until the header is complete."""
        return self._format.rate if self._format is not None and self._n_left is not None else None

    @property
    def second_bytes(self) -> int | None:
        """Bytes of a second of samples; None until the header is complete."""
        if self._format is None or self._n_left is None:
            return None
        return self._format.rate * self._format.n_channels * self._format.sample_bytes

    def feed(self, data: bytes) -> NDArray[np.float32]:
        """Return the samples ``[n]`` that are complete, channels averaged; none before the header is.

        Raises:
            BadAudioError: this is no WAV, or of a kind that is not read here.
        """
        self._unread += data
        while self._n_left is None and self._read_chunk():
            pass
        if self._n_left is None or self._format is None:
            return np.zeros(0, np.float32)
        n_bytes = len(self._unread) if self._n_left < 0 else min(len(self._unread), self._n_left)
        n_bytes -= n_bytes % (self._format.sample_bytes * self._format.n_channels)
        taken = bytes(self._unread[:n_bytes])
        del self._unread[:n_bytes]
        if self._n_left >= 0:
            self._n_left -= n_bytes
            if self._n_left < self._format.sample_bytes * self._format.n_channels:
                # What stands behind the samples says nothing of them.
                self._n_left = 0
                self._unread.clear()
        samples = self._format.decode(taken).reshape(-1, self._format.n_channels)
        mono: NDArray[np.float32] = samples.mean(axis=1, dtype=np.float32)
        return mono

    def _read_chunk(self) -> bool:
        """Take the next part of the header; return whether it was there."""
        if not self._has_riff:
            return self._read_riff()
        if len(self._unread) < _CHUNK.size:
            return False
        name, n_bytes = _CHUNK.unpack_from(self._unread)
        if name == b"data":
            if self._format is None:
                message = "the WAV has samples before its format"
                raise BadAudioError(message)
            self._drop(_CHUNK.size)
            self._n_left = -1 if n_bytes in _UNKNOWN_SIZES else n_bytes
            return True
        n_padded = _CHUNK.size + n_bytes + n_bytes % 2
        if self._n_header_bytes + n_padded > MAX_HEADER_BYTES:
            message = f"the WAV has no samples in its first {MAX_HEADER_BYTES} bytes"
            raise BadAudioError(message)
        if len(self._unread) < n_padded:
            return False
        if name == b"fmt ":
            self._format = _format_of(bytes(self._unread[_CHUNK.size : n_padded]))
        self._drop(n_padded)
        return True

    def _read_riff(self) -> bool:
        if len(self._unread) < _RIFF.size:
            return False
        riff, _, wave = _RIFF.unpack_from(self._unread)
        if (riff, wave) != (b"RIFF", b"WAVE"):
            message = "the audio is no WAV: it does not begin with RIFF and WAVE"
            raise BadAudioError(message)
        self._has_riff = True
        self._drop(_RIFF.size)
        return True

    def _drop(self, n_bytes: int) -> None:
        self._n_header_bytes += n_bytes
        del self._unread[:n_bytes]


def _format_of(chunk: bytes) -> _Format:
    if len(chunk) < _FORMAT.size:
        message = f"the WAV's format has {len(chunk)} bytes; {_FORMAT.size} at least are needed"
        raise BadAudioError(message)
    tag, n_channels, rate, _, block_bytes, bits = _FORMAT.unpack_from(chunk)
    if tag == _EXTENSIBLE and len(chunk) >= _GUID_AT + 2:
        (tag,) = struct.unpack_from("<H", chunk, _GUID_AT)
    decode = _DECODERS.get((tag, bits))
    if decode is None:
        message = f"the WAV has format {tag} with {bits} bits; PCM, float, A-law and mu-law are read"
        raise BadAudioError(message)
    if problem := header_problem(rate, n_channels):
        message = f"the WAV says that it has {problem}"
        raise BadAudioError(message)
    if block_bytes != n_channels * bits // 8:
        message = f"the WAV says that a sample of {n_channels} channels of {bits} bits has {block_bytes} bytes"
        raise BadAudioError(message)
    return _Format(rate=rate, n_channels=n_channels, sample_bytes=bits // 8, decode=decode)
