"""A live Ogg Opus stream: bytes cut anywhere go in, 24 kHz mono float32 comes out.

Knows RFC 7845 (Opus in Ogg) and the first byte of RFC 6716 (how long a packet is); libopus, through opuslib, knows the
codec. The decoder runs at 24 kHz with one channel, so that libopus itself resamples and mixes stereo down.

    HEAD ──OpusHead──► TAGS ──OpusTags──► AUDIO ──last page──► (nothing may follow)

Positions in the file count samples at 48 kHz, whatever the decoder's rate.
"""

import ctypes
import struct
import warnings
from collections.abc import Iterator
from enum import Enum, auto
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from asr_gateway.audio.ogg import NO_GRANULE, OggParser, Packet, Page
from asr_gateway.core.level import limited
from shared.errors import AsrError, BadAudioError
from shared.units import SAMPLE_RATE

_HEAD: Final = struct.Struct("<8sBBHIhB")
_HEAD_MAGIC: Final = b"OpusHead"
_TAGS_MAGIC: Final = b"OpusTags"
_MAJOR_VERSION: Final = 0xF0
_MAX_CHANNELS: Final = 2

_POSITION_RATE: Final = 48_000
_DOWN: Final = _POSITION_RATE // SAMPLE_RATE
_MAX_PACKET_POSITIONS: Final = 5_760
"""120 ms, the longest packet of RFC 6716."""
_MAX_PACKET_BYTES: Final = 48 * 1_277
"""Forty-eight frames of 1275 bytes and their lengths: the longest packet of one Opus stream."""

_SILK_CONFIGS: Final = 12
_HYBRID_CONFIGS: Final = 16
_SILK_POSITIONS: Final = (480, 960, 1_920, 2_880)
_HYBRID_POSITIONS: Final = (480, 960)
_CELT_POSITIONS: Final = (120, 240, 480, 960)
_FRAME_COUNTS: Final = (1, 2, 2)
_COUNT_BYTE_MASK: Final = 0x3F

_PIECE_SAMPLES: Final = SAMPLE_RATE


class OpusUnavailableError(AsrError):
    """The Opus library of the system is not installed."""

    code = "opus_unavailable"


def load_opus() -> ModuleType:
    """Import opuslib, which looks for libopus by starting a process: call it once before the event loop runs.

    Raises:
        OpusUnavailableError: opuslib or libopus is missing.
    """
    try:
        with warnings.catch_warnings():
            # opuslib 3.0.1 compares with "is not 0": a SyntaxWarning whenever it is compiled afresh.
            warnings.simplefilter("ignore")
            import opuslib  # noqa: PLC0415
            import opuslib.api.decoder  # noqa: PLC0415
    except Exception as error:  # opuslib raises a bare Exception when libopus is missing
        message = "Ogg Opus needs libopus: run `make`, or install the package libopus0 (Debian, Ubuntu) or opus"
        raise OpusUnavailableError(message) from error
    module: ModuleType = opuslib
    return module


def _positions_by_first_byte() -> Iterator[int]:
    for first in range(256):
        n_frames = _FRAME_COUNTS[first & 3] if first & 3 < len(_FRAME_COUNTS) else 0
        yield n_frames * _frame_positions(first >> 3)


def _frame_positions(config: int) -> int:
    if config < _SILK_CONFIGS:
        return _SILK_POSITIONS[config & 3]
    if config < _HYBRID_CONFIGS:
        return _HYBRID_POSITIONS[config & 1]
    return _CELT_POSITIONS[config & 3]


def packet_positions(packet: bytes) -> int:
    """Return how long an Opus packet is, in samples at 48 kHz, from its first byte or two (RFC 6716, section 3.1).

    Raises:
        BadAudioError: the packet is malformed or longer than 120 ms.
    """
    positions = _POSITIONS[packet[0]]
    if not positions:
        n_frames = packet[1] & _COUNT_BYTE_MASK if len(packet) > 1 else 0
        positions = n_frames * _frame_positions(packet[0] >> 3)
    if not 0 < positions <= _MAX_PACKET_POSITIONS:
        message = f"Opus: a packet of {positions / 48:g} ms; 2.5 to 120 ms are allowed"
        raise BadAudioError(message)
    return positions


_POSITIONS: Final = tuple(_positions_by_first_byte())
"""How long a packet is by its first byte; 0 if its second byte counts its frames."""


class PacketDecoder:
    """Turns Opus packets into samples; the only place that touches libopus."""

    def __init__(self) -> None:
        opuslib = load_opus()
        self._decoder: Any = opuslib.Decoder(SAMPLE_RATE, 1)
        self._state = self._decoder.decoder_state
        # An object of our own for the same function: ctypes calls it three times as fast if its types are not declared.
        self._decode_float = opuslib.api.libopus["opus_decode_float"]
        # The buffer is reused for every packet. opuslib's own decode_float allocates four times the space and goes
        # through a Python list: 5 times slower than the C function that it wraps.
        self._out = np.zeros(_MAX_PACKET_POSITIONS // _DOWN, np.float32)
        self._out_pointer = self._out.ctypes.data_as(ctypes.POINTER(ctypes.c_float))

    def decode(self, packet: bytes, positions: int) -> NDArray[np.float32]:
        """Return the samples of one packet; an empty one is concealed for ``positions`` (48 kHz) of time.

        The array is reused: copy what must outlive the next call.

        Raises:
            BadAudioError: libopus refuses the packet.
        """
        n: int = self._decode_float(self._state, packet or None, len(packet), self._out_pointer, positions // _DOWN, 0)
        if n < 0:
            message = f"Opus: a packet of {len(packet)} bytes cannot be decoded (libopus error {n})"
            raise BadAudioError(message)
        return self._out[:n]


class _Expect(Enum):
    HEAD = auto()
    TAGS = auto()
    AUDIO = auto()


class OggOpusDecoder:
    """Decodes one Ogg Opus stream as it arrives.

    Raises:
        OpusUnavailableError: libopus is not installed.
    """

    def __init__(self) -> None:
        self._ogg = OggParser(max_packet_bytes=_MAX_PACKET_BYTES)
        self._packets = PacketDecoder()
        self._expect = _Expect.HEAD
        self._gain = 1.0
        self._skip_positions = 0
        self._last_packet_positions = 0
        self._total = 0
        self._origin: int | None = None
        self._is_steady = False
        """Nothing is left to do to a packet of the middle of the stream but to decode it."""

    def feed_in_pieces(self, data: bytes) -> Iterator[NDArray[np.float32]]:
        """Return the samples ``[n]`` (24 kHz mono) that ``data`` completes: often none, else about a second at a time.

        All but a single packet is decoded only when it is asked for: a few bytes can stand for hours. The caller must
        exhaust the iterator before it feeds more.

        Raises:
            BadAudioError: the stream is not Ogg Opus, or is damaged. The decoder is of no use afterwards.
        """
        packet = self._ogg.take_plain(data) if self._is_steady else None
        if packet is None:
            return self._pieces(data)
        positions = self._positions_of(packet)
        self._total += positions
        return iter((self._packets.decode(packet, positions).copy(),))

    def _pieces(self, data: bytes) -> Iterator[NDArray[np.float32]]:
        waiting: list[NDArray[np.float32]] = []
        n_waiting = 0
        for page in self._ogg.feed(data):
            for samples in self._decode_page(page):
                waiting.append(samples)
                n_waiting += len(samples)
                if n_waiting >= _PIECE_SAMPLES:
                    yield np.concatenate(waiting)
                    waiting, n_waiting = [], 0
        if n_waiting:
            yield waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
        is_audio = self._expect is _Expect.AUDIO and self._origin is not None
        self._is_steady = is_audio and self._skip_positions == 0 and self._gain == 1.0

    def _decode_page(self, page: Page) -> Iterator[NDArray[np.float32]]:
        audio = [packet.data for packet in page.packets if not self._take_header(page, packet)]
        lengths = [self._positions_of(packet) for packet in audio]
        n_positions = sum(lengths)
        self._total += n_positions
        end = n_positions - self._surplus(page, n_positions)
        for packet, length in zip(audio, lengths, strict=True):
            if end > 0 and length > 0:
                samples = self._packets.decode(packet, length)
                skip = min(self._skip_positions, length)
                self._skip_positions -= skip
                samples = samples[skip // _DOWN : end // _DOWN]
                # A copy either way: the decoder's own array does not last.
                yield limited(samples.copy() if self._gain == 1.0 else samples * np.float32(self._gain))
            end -= length

    def _surplus(self, page: Page, page_positions: int) -> int:
        """Return how many positions at the end of this page are padding of the encoder (RFC 7845, section 4.4)."""
        if page.granule == NO_GRANULE or (self._origin is None and page_positions == 0):
            return 0
        if self._origin is None:
            # A recording cut out of a longer stream starts at a position of its own (section 4.3).
            self._origin = max(0, page.granule - self._total)
        if not page.is_last:
            return 0
        return min(max(0, self._total + self._origin - page.granule), page_positions)

    def _positions_of(self, packet: bytes) -> int:
        # An empty packet stands for a lost or silent one, as long as the packet before it; libopus conceals it.
        if packet:
            self._last_packet_positions = packet_positions(packet)
        return self._last_packet_positions

    def _take_header(self, page: Page, packet: Packet) -> bool:
        """Read the packet if it is a header; return whether it was one."""
        match self._expect:
            case _Expect.HEAD:
                self._read_head(page, packet.data)
                self._expect = _Expect.TAGS
                return True
            case _Expect.TAGS:
                if not packet.data.startswith(_TAGS_MAGIC):
                    message = "Opus: the second packet must be OpusTags"
                    raise BadAudioError(message)
                self._expect = _Expect.AUDIO
                return True
            case _Expect.AUDIO:
                if not packet.is_complete:
                    message = f"Opus: a packet of {packet.n_bytes} bytes; at most {_MAX_PACKET_BYTES} are allowed"
                    raise BadAudioError(message)
                return False

    def _read_head(self, page: Page, head: bytes) -> None:
        if len(head) < _HEAD.size or not head.startswith(_HEAD_MAGIC) or len(page.packets) != 1:
            message = "Ogg: the stream is not Opus (its first page does not hold OpusHead alone)"
            raise BadAudioError(message)
        _, version, channels, pre_skip, _, gain_q8, mapping = _HEAD.unpack_from(head)
        if version & _MAJOR_VERSION:
            message = f"Opus: version {version} of the header is unknown; 0 to 15 are allowed"
            raise BadAudioError(message)
        if mapping != 0 or not 1 <= channels <= _MAX_CHANNELS:
            message = f"Opus: {channels} channels with mapping family {mapping}; 1 or 2 with family 0 are allowed"
            raise BadAudioError(message)
        self._gain = 10.0 ** (gain_q8 / (20.0 * 256.0))
        self._skip_positions = pre_skip
