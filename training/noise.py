"""Sounds that are not words: coloured noise, wind, hum, clicks, music-like tones, and babble of foreign speech.

Everything is computed; babble comes from phrases of a bank that hold no vocabulary word, so it never contradicts the
labels.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from training.speech import Pcm

RATE_HZ: Final = 24_000
KINDS: Final = ("white", "coloured", "wind", "hum", "clicks", "music", "babble")


def coloured(n: int, rng: np.random.Generator, *, slope: float | None = None) -> Pcm:
    """Noise whose spectrum falls by a random power of the frequency, with up to four random bands raised."""
    slope = rng.uniform(-0.3, 1.2) if slope is None else slope
    frequency = np.arange(n // 2 + 1) * RATE_HZ / n
    gain = np.maximum(frequency, 30.0) ** -slope
    for _ in range(rng.integers(0, 5)):
        centre, width = rng.uniform(100, 8000), rng.uniform(0.1, 0.6)
        gain *= 1 + rng.uniform(0.5, 6) * np.exp(-((np.log(np.maximum(frequency, 1) / centre) / width) ** 2))
    return _even(np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * gain, n))


def wind(n: int, rng: np.random.Generator) -> Pcm:
    """Low noise that swells and falls within a second or so."""
    knots = np.arange(0, n + 12_000, 12_000)
    swell = np.interp(np.arange(n), knots, rng.random(len(knots)))
    return _even(coloured(n, rng, slope=1.0) * (0.1 + swell**2))


def hum(n: int, rng: np.random.Generator) -> Pcm:
    """A mains hum or a motor: harmonics of a low tone over a little noise."""
    time, base = np.arange(n) / RATE_HZ, rng.choice([50.0, 60.0, rng.uniform(70, 300)])
    tones = sum(rng.random() / k * np.sin(2 * np.pi * (base * k * time + rng.random())) for k in range(1, 12))
    return _even(tones + 0.05 * rng.standard_normal(n))


def clicks(n: int, rng: np.random.Generator) -> Pcm:
    """Keys, knocks and dishes: short decaying bursts at random moments."""
    out = 0.01 * rng.standard_normal(n)
    for start in rng.integers(0, n - 6000, max(1, int(n / RATE_HZ * rng.uniform(1, 8)))):
        time = np.arange(6000) / RATE_HZ
        ring = np.sin(2 * np.pi * rng.uniform(200, 6000) * time) + rng.uniform(0, 1.5) * rng.standard_normal(6000)
        out[start : start + 6000] += rng.uniform(0.2, 1) * ring * np.exp(-time / rng.uniform(0.003, 0.06))
    return _even(out)


def music(n: int, rng: np.random.Generator) -> Pcm:
    """Chords and a melody of harmonic tones with attacks, sometimes with a beat."""
    out = np.zeros(n)
    beat_s, root = rng.uniform(0.2, 0.6), rng.uniform(80, 220)
    brightness = rng.uniform(0.4, 2.0)
    for step in range(int(n / RATE_HZ / beat_s) + 1):
        start = int(step * beat_s * RATE_HZ)
        length = min(n - start, int(rng.choice([1, 2, 4]) * beat_s * RATE_HZ))
        if length < 100:  # noqa: PLR2004
            break
        time = np.arange(length) / RATE_HZ
        shape = np.minimum(time / 0.02, 1) * np.exp(-time * rng.uniform(0.5, 6))
        for note in rng.choice([0, 2, 4, 5, 7, 9, 11, 12, 16, 19, 24], rng.integers(1, 4)):
            pitch = root * 2 ** (note / 12)
            vibrato = 0.004 * np.sin(2 * np.pi * 5 * time) if rng.random() < 0.3 else 0.0  # noqa: PLR2004
            for k in range(1, 9):
                out[start : start + length] += shape * k**-brightness * np.sin(2 * np.pi * pitch * k * (time + vibrato))
        if rng.random() < 0.4:  # noqa: PLR2004
            out[start : start + length] += rng.standard_normal(length) * np.exp(-time * 30)
    return _even(out)


def babble(n: int, rng: np.random.Generator, foreign: Callable[[], Pcm], voices: int | None = None) -> Pcm:
    """Return several people talking at once; ``foreign`` returns a phrase without vocabulary words."""
    out = np.zeros(n)
    for _ in range(voices or int(rng.integers(2, 8))):
        at, loudness = int(rng.integers(-20_000, 5_000)), rng.uniform(0.3, 1.0)
        while at < n:
            phrase = foreign()
            start, cut = max(at, 0), max(-at, 0)
            piece = phrase[cut : cut + n - start]
            out[start : start + len(piece)] += loudness * piece
            at += len(phrase) + int(rng.uniform(0, 0.5) * RATE_HZ)
    return _even(out)


def pool(
    rng: np.random.Generator, n_clips: int, seconds: float, foreign: Callable[[], Pcm]
) -> Sequence[tuple[str, Pcm]]:
    """Make clips of every kind, each with a root mean square of 1."""
    n = int(seconds * RATE_HZ)
    makers: dict[str, Callable[[], Pcm]] = {
        "white": lambda: _even(rng.standard_normal(n)),
        "coloured": lambda: coloured(n, rng),
        "wind": lambda: wind(n, rng),
        "hum": lambda: hum(n, rng),
        "clicks": lambda: clicks(n, rng),
        "music": lambda: music(n, rng),
        "babble": lambda: babble(n, rng, foreign),
    }
    order = ("coloured", "babble", "music", "white", "coloured", "babble", "clicks", "wind", "hum", "music")
    return [(kind, makers[kind]()) for kind in (order[i % len(order)] for i in range(n_clips))]


def _even(x: np.ndarray) -> Pcm:
    even: Pcm = (x / (np.sqrt(np.mean(np.square(x))) + 1e-9)).astype(np.float32)
    return even
