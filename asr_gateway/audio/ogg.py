"""Ogg pages, strictly: bytes cut anywhere go in, checked pages with their packets come out.

Knows RFC 3533 and nothing of what the packets mean. One logical stream only: a second one, whether it runs beside the
first (multiplexed) or after it (chained), is refused, because a live session has one clock.

    page    OggS | version | flags | granule (8) | serial (4) | sequence (4) | CRC (4) | n | n lacing values | payload
    lacing  a packet is the sum of its values up to and including the first below 255
    flags   1 continues a packet of the page before, 2 first page of the stream, 4 last page of the stream

Memory: one page (65,307 bytes at most) and ``max_packet_bytes`` of one packet, whatever arrives.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from shared.errors import BadAudioError

_CAPTURE: Final = b"OggS"
_HEADER: Final = struct.Struct("<4sBBqIIIB")
_CRC_BEGIN: Final = 22
_CRC_END: Final = 26
_CONTINUED: Final = 1
_FIRST: Final = 2
_LAST: Final = 4
_KNOWN_FLAGS: Final = _CONTINUED | _FIRST | _LAST
_LACING_FULL: Final = 255

NO_GRANULE: Final = -1
"""Granule position of a page on which no packet ends."""

_MIRRORED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_ALL_ONES: Final = 0xFFFF_FFFF
_NO_CRC: Final = bytes(4)


def page_crc(page: bytes) -> int:
    """Return the Ogg checksum of a page whose own CRC field is zero.

    Ogg's CRC has zlib's polynomial, but takes the bits of each byte from the other end and neither starts nor ends
    with an inversion. Mirroring bytes and result lets zlib do the work, a hundred times faster than a loop.
    """
    mirrored = zlib.crc32(page.translate(_MIRRORED), _ALL_ONES) ^ _ALL_ONES
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_MIRRORED), "big")


def _has_right_crc(page: bytes) -> bool:
    # As above, but all mirrored at once, the page's own field with it: less than half the time for a short page.
    mirrored = page.translate(_MIRRORED)
    crc = zlib.crc32(mirrored[:_CRC_BEGIN] + _NO_CRC + mirrored[_CRC_END:], _ALL_ONES) ^ _ALL_ONES
    return crc == int.from_bytes(mirrored[_CRC_BEGIN:_CRC_END], "big")


class Packet(NamedTuple):
    """One packet; ``data`` holds all of it unless it is longer than the parser keeps."""

    data: bytes
    n_bytes: int
    """True length."""

    @property
    def is_complete(self) -> bool:
        """Whether ``data`` is the whole packet."""
        return self.n_bytes == len(self.data)


class Page(NamedTuple):
    """One page with the packets that end on it."""

    packets: tuple[Packet, ...]
    granule: int
    """Position at the end of the last packet of the page, or NO_GRANULE."""
    is_first: bool
    is_last: bool


class OggParser:
    """Takes one Ogg stream apart.

    Args:
        max_packet_bytes: how much of a packet is kept; the rest is counted and thrown away.
    """

    def __init__(self, *, max_packet_bytes: int) -> None:
        self._max_packet_bytes = max_packet_bytes
        self._buffer = bytearray()
        self._serial: int | None = None
        self._sequence = 0
        self._ended = False
        self._open_packet: bytearray | None = None
        self._open_bytes = 0

    @property
    def ended(self) -> bool:
        """Whether the last page of the stream has been parsed."""
        return self._ended

    def take_plain(self, data: bytes) -> bytes | None:
        """Return the packet of a whole page that holds nothing else; None if ``data`` is not one: ``feed`` it then.

        The page must be due, and neither the first nor the last of its stream; the packet is not empty. A live stream
        is made of such pages, and they cost half as much here.
        """
        if self._buffer or self._open_packet is not None or self._ended or len(data) <= _HEADER.size:
            return None
        capture, version, flags, _, serial, sequence, _, n_segments = _HEADER.unpack_from(data)
        begin = _HEADER.size + n_segments
        if (capture, version, flags, serial, sequence) != (_CAPTURE, 0, 0, self._serial, self._sequence):
            return None
        lacing = data[_HEADER.size : begin]
        if lacing.count(_LACING_FULL) != n_segments - 1 or lacing[-1] == _LACING_FULL:
            return None
        n_bytes = sum(lacing)
        if not 0 < n_bytes <= self._max_packet_bytes or len(data) != begin + n_bytes or not _has_right_crc(data):
            return None
        self._sequence = (sequence + 1) & _ALL_ONES
        return data[begin:]

    def feed(self, data: bytes) -> Iterator[Page]:
        """Yield the pages that ``data`` completes.

        The caller must exhaust the iterator before it feeds more, and drop the parser after an error.

        Raises:
            BadAudioError: this is no Ogg, is damaged, or is more than one stream.
        """
        self._buffer += data
        while (page := self._next_page()) is not None:
            yield page

    def _next_page(self) -> Page | None:
        buffer = self._buffer
        if self._ended and buffer:
            message = (
                "Ogg: data after the end of the stream; chained streams are not supported, send Init before a new one"
            )
            raise BadAudioError(message)
        if not _CAPTURE.startswith(buffer[:4]):
            message = f"Ogg: a page must start with 'OggS', found the bytes {bytes(buffer[:4]).hex(' ')}"
            raise BadAudioError(message)
        if len(buffer) < _HEADER.size:
            return None
        n_segments = buffer[_HEADER.size - 1]
        start = _HEADER.size + n_segments
        if len(buffer) < start:
            return None
        end = start + sum(buffer[_HEADER.size : start])
        if len(buffer) < end:
            return None
        page = bytes(buffer[:end])
        del buffer[:end]
        return self._take(page, start)

    def _take(self, page: bytes, start: int) -> Page:
        _, version, flags, granule, serial, sequence, crc, _ = _HEADER.unpack_from(page)
        if version != 0 or flags & ~_KNOWN_FLAGS:
            message = (
                f"Ogg: page version {version} with flags {flags} is unknown; version 0 with flags below 8 is allowed"
            )
            raise BadAudioError(message)
        if page_crc(page[:_CRC_BEGIN] + _NO_CRC + page[_CRC_END:]) != crc:
            message = f"Ogg: the checksum of page {sequence} does not match its content"
            raise BadAudioError(message)
        self._check_order(flags, serial, sequence)
        packets = self._split(page[_HEADER.size : start], page[start:], continues=bool(flags & _CONTINUED))
        self._ended = bool(flags & _LAST)
        if self._ended and self._open_packet is not None:
            message = "Ogg: the stream ends in the middle of a packet"
            raise BadAudioError(message)
        return Page(packets=packets, granule=granule, is_first=bool(flags & _FIRST), is_last=self._ended)

    def _check_order(self, flags: int, serial: int, sequence: int) -> None:
        if self._serial is None:
            if not flags & _FIRST:
                message = "Ogg: the stream must begin with its first page (headers included)"
                raise BadAudioError(message)
            self._serial = serial
        elif serial != self._serial:
            message = (
                f"Ogg: a second stream (serial {serial:#x} beside {self._serial:#x}); only one stream is supported"
            )
            raise BadAudioError(message)
        elif flags & _FIRST:
            message = "Ogg: the stream begins a second time; chained streams are not supported"
            raise BadAudioError(message)
        elif sequence != self._sequence:
            message = f"Ogg: page {self._sequence} is missing, page {sequence} came instead"
            raise BadAudioError(message)
        self._sequence = (sequence + 1) & _ALL_ONES

    def _split(self, lacing: bytes, payload: bytes, *, continues: bool) -> tuple[Packet, ...]:
        if continues != (self._open_packet is not None):
            found = "continues a packet that was not begun" if continues else "does not continue the packet before it"
            message = f"Ogg: page {self._sequence - 1} {found}"
            raise BadAudioError(message)
        packets = []
        position = begin = 0
        for value in lacing:
            position += value
            if value < _LACING_FULL:
                packets.append(self._finish(payload[begin:position]))
                begin = position
        if lacing and lacing[-1] == _LACING_FULL:
            self._keep(payload[begin:])
        return tuple(packets)

    def _keep(self, piece: bytes) -> None:
        if self._open_packet is None:
            self._open_packet = bytearray()
            self._open_bytes = 0
        self._open_packet += piece[: self._max_packet_bytes - len(self._open_packet)]
        self._open_bytes += len(piece)

    def _finish(self, piece: bytes) -> Packet:
        if self._open_packet is None:
            return Packet(data=piece[: self._max_packet_bytes], n_bytes=len(piece))
        self._keep(piece)
        packet = Packet(data=bytes(self._open_packet), n_bytes=self._open_bytes)
        self._open_packet = None
        return packet
