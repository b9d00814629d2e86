"""What happens to speech on its way to the server: room, microphone, telephone, noise, level, codec.

Room, equaliser and band limits are one filter, applied with one pair of Fourier transforms: the trainer makes its
utterances on the core that trains.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import opuslib

from training.speech import Pcm

RATE_HZ: Final = 24_000
_ROOM_SAMPLES: Final = 10_800
_OPUS_FRAME: Final = 480


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How often what happens; the defaults are those of the shipped model."""

    room: float = 0.35
    equaliser: float = 0.5
    low_pass: float = 0.2
    high_pass: float = 0.2
    telephone: float = 0.1
    noise: float = 0.65
    snr_db: tuple[float, float] = (6.0, 42.0)
    level_dbfs: tuple[float, float] = (-40.0, -12.0)
    opus: float = 0.08
    mu_law: float = 0.03


def disturbed(pcm: Pcm, rng: np.random.Generator, noises: Sequence[Pcm], how: Augmentation) -> Pcm:
    """Return the utterance as a server might get it; times do not move by more than a millisecond."""
    pcm = _filtered(pcm, rng, how)
    loudness = float(np.sqrt(np.mean(np.square(pcm))))
    if loudness < 1e-5:  # noqa: PLR2004 silence: any level of noise is as good as another
        loudness = 0.05
    if noises and rng.random() < how.noise:
        clip = noises[int(rng.integers(len(noises)))]
        start = rng.integers(0, len(clip) - len(pcm))
        pcm = pcm + clip[start : start + len(pcm)] * (loudness * 10 ** (-rng.uniform(*how.snr_db) / 20))
    pcm = pcm * (10 ** (rng.uniform(*how.level_dbfs) / 20) / (np.sqrt(np.mean(np.square(pcm))) + 1e-6))
    if rng.random() < 0.5:  # noqa: PLR2004 the floor of a converter, which real inputs never lack
        pcm = pcm + 10 ** rng.uniform(-5, -3.3) * rng.standard_normal(len(pcm), dtype=np.float32)
    pcm = np.clip(pcm, -1, 1).astype(np.float32)
    draw = rng.random()
    if draw < how.opus:
        return through_opus(pcm, int(rng.choice([12_000, 16_000, 24_000, 32_000])), complexity=2)
    if draw < how.opus + how.mu_law:
        companded = np.sign(pcm) * np.log1p(255 * np.abs(pcm)) / np.log(256)
        coarse = np.round(companded * 127) / 127
        return np.asarray(np.sign(coarse) * np.expm1(np.abs(coarse) * np.log(256)) / 255, dtype=np.float32)
    return pcm


def _filtered(pcm: Pcm, rng: np.random.Generator, how: Augmentation) -> Pcm:
    n = _fast_length(len(pcm) + _ROOM_SAMPLES)
    frequency = np.arange(n // 2 + 1, dtype=np.float32) * (RATE_HZ / n)
    response: np.ndarray | None = None
    if rng.random() < how.room:
        response = np.fft.rfft(_room(rng), n)
    gain = np.ones(len(frequency), dtype=np.float32)
    if rng.random() < how.equaliser:
        points = np.array([0, 150, 400, 900, 1800, 3500, 6000, 12_000], dtype=np.float32)
        gain *= 10 ** (np.interp(frequency, points, rng.uniform(-9, 9, len(points))) / 20).astype(np.float32)
    if rng.random() < how.telephone:
        gain *= _below(frequency, rng.uniform(3200, 3800)) * (1 - _below(frequency, rng.uniform(200, 350)))
    elif rng.random() < how.low_pass:
        gain *= _below(frequency, rng.uniform(3000, 9000))
    if rng.random() < how.high_pass:
        gain *= 1 - _below(frequency, rng.uniform(60, 250))
    spectrum = np.fft.rfft(pcm, n) * gain
    filtered: np.ndarray = np.fft.irfft(spectrum if response is None else spectrum * response, n)[: len(pcm)]
    return np.asarray(filtered, dtype=np.float32)


def _fast_length(n: int) -> int:
    """Return at least ``n``, with no prime factor above 7: of other lengths a Fourier transform is slow."""
    unit = 1 << max(0, n.bit_length() - 3)
    return -(-n // unit) * unit


def _below(frequency: np.ndarray, corner: float) -> np.ndarray:
    return 1 / (1 + (frequency / corner) ** 8)


def _room(rng: np.random.Generator) -> Pcm:
    """The impulse response of an invented room: the direct sound, then noise that dies away in 0.08 to 0.45 s."""
    time = np.arange(_ROOM_SAMPLES) / RATE_HZ
    tail: np.ndarray = rng.standard_normal(_ROOM_SAMPLES) * 10 ** (-3 * time / rng.uniform(0.08, 0.45))
    tail[: int(rng.uniform(0.001, 0.008) * RATE_HZ)] = 0
    tail *= rng.uniform(0.1, 0.7) / np.sqrt(np.sum(np.square(tail)))
    tail[0] = 1
    return np.asarray(tail, dtype=np.float32)


def through_opus(pcm: Pcm, bits_per_second: int, complexity: int = 9) -> Pcm:
    """Encode and decode with Opus in 20 ms packets and take out the codec's delay.

    Args:
        pcm: 24 kHz.
        bits_per_second: of the packets.
        complexity: 0 to 10; 9 is what encoders use unless told otherwise, and costs three times as much as 2.
    """
    encoder = opuslib.Encoder(RATE_HZ, 1, opuslib.APPLICATION_VOIP)
    encoder.bitrate = bits_per_second
    encoder.complexity = complexity
    decoder = opuslib.Decoder(RATE_HZ, 1)
    delay = int(encoder.lookahead)
    n_packets = -(-(len(pcm) + delay) // _OPUS_FRAME)
    padded = np.zeros(n_packets * _OPUS_FRAME, dtype=np.int16)
    padded[: len(pcm)] = np.clip(pcm * 32767, -32768, 32767)
    out = b"".join(
        decoder.decode(encoder.encode(padded[i : i + _OPUS_FRAME].tobytes(), _OPUS_FRAME), _OPUS_FRAME)
        for i in range(0, len(padded), _OPUS_FRAME)
    )
    decoded = np.frombuffer(out, dtype=np.int16)[delay : delay + len(pcm)]
    return decoded.astype(np.float32) / 32768.0
