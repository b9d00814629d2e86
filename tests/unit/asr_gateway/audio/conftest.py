"""Makes Ogg Opus streams of every kind, also wrong ones: a small muxer over opuslib's encoder."""

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
import opuslib
import pytest
from numpy.typing import NDArray

POSITIONS_PER_S = 48_000


def crc_by_definition(page: bytes) -> int:
    """Ogg's checksum bit by bit, as RFC 3533 defines it: slow and independent of the parser's."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = ((crc << 1) ^ (0x04C1_1DB7 if crc & 0x8000_0000 else 0)) & 0xFFFF_FFFF
    return crc


class Muxer:
    """Writes pages of one stream; every field can be set wrongly."""

    def __init__(self, serial: int = 0x5EED) -> None:
        self.serial = serial
        self.sequence = 0

    def page(
        self,
        lacing: Iterable[int],
        payload: bytes,
        *,
        granule: int = 0,
        flags: int = 0,
        crc: int | None = None,
        version: int = 0,
        sequence: int | None = None,
    ) -> bytes:
        number = self.sequence if sequence is None else sequence
        self.sequence += 1
        lacing = bytes(lacing)
        head = struct.pack("<4sBBqIIIB", b"OggS", version, flags, granule, self.serial, number, 0, len(lacing))
        page = head + lacing + payload
        crc = crc_by_definition(page) if crc is None else crc
        return page[:22] + struct.pack("<I", crc) + page[26:]

    def packets(self, packets: list[bytes], **fields: Any) -> bytes:
        """One page with whole packets."""
        lacing = []
        for packet in packets:
            lacing += [255] * (len(packet) // 255) + [len(packet) % 255]
        return self.page(lacing, b"".join(packets), **fields)

    def headers(
        self,
        *,
        channels: int = 1,
        pre_skip: int = 0,
        gain_q8: int = 0,
        mapping: int = 0,
        version: int = 1,
        tags: bytes = b"\0" * 8,
    ) -> bytes:
        head = struct.pack("<8sBBHIhB", b"OpusHead", version, channels, pre_skip, 48_000, gain_q8, mapping)
        return self.packets([head], flags=2) + self.packets([b"OpusTags" + tags])


def encode(pcm: NDArray[np.float32], *, packet_ms: float = 20.0, rate: int = 24_000) -> list[bytes]:
    """Opus packets of ``pcm`` (``[n]`` or ``[n, 2]`` float32), the last one padded with zeros."""
    channels = 1 if pcm.ndim == 1 else pcm.shape[1]
    encoder = opuslib.Encoder(rate, channels, "audio")
    size = int(rate * packet_ms / 1000)
    pcm = np.concatenate([pcm, np.zeros((-len(pcm) % size, *pcm.shape[1:]), np.float32)])
    return [
        encoder.encode_float(pcm[i : i + size].astype(np.float32).tobytes(), size) for i in range(0, len(pcm), size)
    ]


def stream(
    packets: list[bytes], *, packet_ms: float = 20.0, per_page: int = 1, end: int | None = None, **head: Any
) -> bytes:
    """A whole stream; ``end`` is the granule of the last page if it is to trim."""
    muxer = Muxer()
    out = [muxer.headers(**head)]
    positions = int(packet_ms * POSITIONS_PER_S / 1000)
    for i in range(0, len(packets), per_page):
        chunk = packets[i : i + per_page]
        is_last = i + per_page >= len(packets)
        granule = (i + len(chunk)) * positions
        if is_last and end is not None:
            granule = end
        out.append(muxer.packets(chunk, granule=granule, flags=4 if is_last else 0))
    return b"".join(out)


def tone(seconds: float, *, hz: float = 440.0, rate: int = 24_000, level: float = 0.5) -> NDArray[np.float32]:
    return (level * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


class OpusFiles:
    """What the tests use, under one fixture: test folders are no packages."""

    Muxer = Muxer
    encode = staticmethod(encode)
    stream = staticmethod(stream)
    tone = staticmethod(tone)
    crc_by_definition = staticmethod(crc_by_definition)


@pytest.fixture(scope="session")
def opus_files() -> type[OpusFiles]:
    return OpusFiles
