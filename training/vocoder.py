"""Another throat for the same words: linear prediction takes the voice apart, other excitation puts it together.

    samples ──► 1 / A(z) per 10 ms frame (the vocal tract) ──► warped in frequency ──┐
                voiced or not                                                         ├──► overlap-add
    new pulses at another pitch, or noise ────────────────────────────────────────────┘

Two or three speakers are too few to learn what makes a word a word. Times do not move, so labels stay exact.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from training.speech import Pcm, Speech

_Array = npt.NDArray[np.float64]
_ORDER_PER_KHZ: Final = 1.0
_VOICED: Final = 0.25
"""Least normalised autocorrelation at a pitch lag for a frame to count as voiced."""


def revoiced(speech: Speech, rng: np.random.Generator) -> Speech:
    """Return the phrase in a random other voice; same length, words and times."""
    rate = speech.rate_hz
    hop, width = rate // 100, rate // 40
    size = 1 << (2 * width - 1).bit_length()
    window = np.hanning(width + 1)[:-1]
    frames = _frames(speech.pcm, width, hop) * window
    spectra = np.abs(np.fft.rfft(frames, size)) ** 2
    autocorrelation = np.fft.irfft(spectra)[:, : rate // 70]
    predictor, error = _levinson(autocorrelation, round(rate / 1000 * _ORDER_PER_KHZ) + 2)
    lags = autocorrelation[:, rate // 400 :] / np.maximum(autocorrelation[:, :1], 1e-9)
    voiced = lags.max(axis=1) > _VOICED
    excitation = _frames(_excitation(voiced, hop, len(speech.pcm), rate, rng), width, hop) * window
    excitation /= np.sqrt(np.mean(excitation**2, axis=1, keepdims=True)) + 1e-6
    tract = _warped(np.fft.rfft(predictor, 4 * size), size // 2 + 1, rng.uniform(0.86, 1.16))
    gain = np.sqrt(np.maximum(error, 0.0) / width)[:, None]
    shaped = np.fft.irfft(np.fft.rfft(excitation, size) * gain / tract)
    out = np.zeros(len(frames) * hop + size)
    for index, frame in enumerate(shaped):
        out[index * hop : index * hop + size] += frame
    out = out[: len(speech.pcm)] * 0.9 / max(1e-6, float(np.max(np.abs(out))))
    return Speech(pcm=out.astype(np.float32), rate_hz=rate, words=speech.words, sounds=speech.sounds)


def _frames(pcm: Pcm | _Array, width: int, hop: int) -> _Array:
    padded = np.concatenate([pcm, np.zeros(width)]).astype(np.float64)
    return np.lib.stride_tricks.sliding_window_view(padded, width)[: len(pcm) : hop].copy()


def _levinson(autocorrelation: _Array, order: int) -> tuple[_Array, _Array]:
    """Solve for the prediction error filter of every frame at once: ``[N, order + 1]`` and the error energies."""
    r = autocorrelation * np.exp(-0.5 * (0.002 * np.arange(autocorrelation.shape[1])) ** 2)
    error = r[:, 0] * 1.0001 + 1e-7
    a = np.zeros((len(r), order + 1))
    a[:, 0] = 1.0
    for i in range(1, order + 1):
        reflection = -np.sum(a[:, :i] * r[:, i:0:-1], axis=1) / error
        a[:, : i + 1] += reflection[:, None] * a[:, i::-1]
        error = error * (1.0 - reflection**2)
    return a, error


def _warped(spectrum: npt.NDArray[np.complex128], n_bins: int, factor: float) -> npt.NDArray[np.complex128]:
    """Read the filter's response at frequencies divided by ``factor``: formants move up by it."""
    fine = spectrum.shape[1] - 1
    at = np.minimum(np.arange(n_bins) / (n_bins - 1) / factor, 1.0) * fine
    return spectrum[:, np.round(at).astype(int)]


def _excitation(voiced: npt.NDArray[np.bool_], hop: int, n_samples: int, rate: int, rng: np.random.Generator) -> _Array:
    noise = rng.standard_normal(n_samples)
    if rng.random() < 0.12:  # noqa: PLR2004 one in eight whispers
        return noise
    mean, swing = rng.uniform(75, 260), rng.uniform(0.02, 0.2)
    seconds = np.arange(n_samples) / rate
    pitch = mean * (1 + swing * np.sin(2 * np.pi * (rng.uniform(0.3, 1.5) * seconds + rng.random())))
    phase = np.cumsum(pitch / rate)
    pulses = np.diff(np.floor(phase), prepend=0.0) * np.sqrt(rate / mean)
    if rng.random() < 0.5:  # noqa: PLR2004 half the voices have a softer pulse
        pulses = np.convolve(pulses, np.hanning(rng.integers(4, 24)), mode="same")
        pulses /= np.sqrt(np.mean(pulses**2)) + 1e-9
    breath = rng.uniform(0.02, 0.35)
    is_voiced = np.repeat(voiced, hop)
    is_voiced = np.pad(is_voiced, (0, max(0, n_samples - len(is_voiced))), mode="edge")[:n_samples]
    return np.where(is_voiced, pulses + breath * noise, noise)
