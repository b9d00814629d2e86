"""What a client sends, made ahead: a few seconds of speech as ready MessagePack messages, in every packing measured.

float80   Audio, 1920 float32 in each message          9.6 kB
float20   Audio, 480 float32 in each message           2.4 kB
opus20    OggOpus, one 20 ms packet on a page of its own, some 100 bytes
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgpack
import numpy as np
import soundfile
from numpy.typing import NDArray

from bench.sizes import DEMO
from shared.units import FRAME_SAMPLES, SAMPLE_RATE

PACKINGS: Final = ("float80", "float20", "opus20")
_SERIAL: Final = 7
_OPUS_RATE: Final = 48_000
"""Ogg counts positions at 48 kHz, whatever was encoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packets:
    """A loop of messages; ``period_s`` apart, each holds ``n_samples``."""

    head: tuple[bytes, ...]
    """Sent once, before the first."""
    loop: tuple[bytes, ...]
    period_s: float
    n_samples: int

    def message(self, i: int) -> bytes:
        """Return the i-th message of a stream that never ends."""
        return self.loop[i % len(self.loop)]


def make_packets(packing: str, audio: Path | None, *, minutes: float = 1.0) -> Packets:
    """Return the packets of an audio file, 24 kHz mono, or of a sample of the demo model's.

    Opus cannot be looped, since its pages are numbered: ``minutes`` of it are made.
    """
    pcm = speech(audio)
    if packing == "opus20":
        return _opus(np.tile(pcm, int(60 * minutes * SAMPLE_RATE / len(pcm)) + 2))
    n_samples = FRAME_SAMPLES if packing == "float80" else FRAME_SAMPLES // 4
    loop = tuple(audio_message(chunk) for chunk in pcm.reshape(-1, n_samples))
    return Packets(head=(), loop=loop, period_s=n_samples / SAMPLE_RATE, n_samples=n_samples)


def speech(audio: Path | None) -> NDArray[np.float32]:
    """Return audio, cut to whole frames."""
    path = audio or min((DEMO / "samples").glob("*.wav"))
    pcm, rate = soundfile.read(path, dtype="float32")
    if rate != SAMPLE_RATE or pcm.ndim != 1:
        message = f"{path}: has {rate} Hz and {pcm.ndim} axes; 24000 Hz mono is needed"
        raise ValueError(message)
    return np.asarray(pcm[: len(pcm) // FRAME_SAMPLES * FRAME_SAMPLES], np.float32)


def audio_message(pcm: NDArray[np.float32]) -> bytes:
    """Return what msgpack makes of ``{"type": "Audio", "pcm": [float32, ...]}``."""
    table = np.empty(len(pcm), [("prefix", "u1"), ("value", ">f4")])
    table["prefix"], table["value"] = 0xCA, pcm
    return b"\x82\xa4type\xa5Audio\xa3pcm\xdc" + struct.pack(">H", len(pcm)) + table.tobytes()


def _opus(pcm: NDArray[np.float32]) -> Packets:
    import opuslib  # noqa: PLC0415  (needs a system library; floats do not)

    n_samples = FRAME_SAMPLES // 4
    encoder = opuslib.Encoder(SAMPLE_RATE, 1, opuslib.APPLICATION_VOIP)
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, 312, SAMPLE_RATE, 0, 0)
    tags = b"OpusTags" + struct.pack("<I", 5) + b"bench" + struct.pack("<I", 0)
    pages = [_page(head, number=0, position=0, flags=2), _page(tags, number=1, position=0)]
    position = 0
    for i, chunk in enumerate((pcm * 32_767).astype("<i2").reshape(-1, n_samples)):
        position += n_samples * _OPUS_RATE // SAMPLE_RATE
        pages.append(_page(encoder.encode(chunk.tobytes(), n_samples), number=2 + i, position=position))
    messages = [msgpack.packb({"type": "OggOpus", "data": page}) for page in pages]
    return Packets(
        head=tuple(messages[:2]), loop=tuple(messages[2:]), period_s=n_samples / SAMPLE_RATE, n_samples=n_samples
    )


def _page(packet: bytes, *, number: int, position: int, flags: int = 0) -> bytes:
    """Return one Ogg page that holds one packet. Source: RFC 3533."""
    lacing = bytes([255] * (len(packet) // 255) + [len(packet) % 255])
    page = bytearray(struct.pack("<4sBBqIIIB", b"OggS", 0, flags, position, _SERIAL, number, 0, len(lacing)))
    page += lacing + packet
    page[22:26] = struct.pack("<I", _ogg_crc(page))
    return bytes(page)


def _ogg_crc(data: bytes | bytearray) -> int:
    crc = 0
    for byte in data:
        crc = (crc << 8 & 0xFFFFFFFF) ^ _CRC_TABLE[crc >> 24 ^ byte]
    return crc


def _crc_of_byte(byte: int) -> int:
    crc = byte << 24
    for _ in range(8):
        crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
    return crc


_CRC_TABLE: Final = tuple(_crc_of_byte(byte) for byte in range(256))
