"""Another throat for the same words: linear prediction takes the voice apart and puts it together otherwise.

    samples ──► 1 / A(z) per 10 ms frame (the vocal tract) ──► warped in frequency and in time ──┐
                voiced or not                                                                     ├──► overlap-add
    new pulses at another pitch, or noise, or what the old tract had been excited with ──────────┘

Two or three speakers are too few to learn what makes a word a word: another throat has other proportions, and says
one sound longer and another shorter. The times of words and sounds go through the same map as the frames.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from training.speech import Pcm

_Array = npt.NDArray[np.float64]
_ORDER_PER_KHZ: Final = 1.0
_VOICED: Final = 0.25
"""Least normalised autocorrelation at a pitch lag for a frame to count as voiced."""
_OWN_EXCITATION: Final = 0.4
"""Share of the voices that keep the excitation: a real glottis has more to it than pulses."""


def other_voice(pcm: Pcm, rate: int, rng: np.random.Generator) -> tuple[Pcm, Callable[[_Array], _Array]]:
    """Return the phrase in a random other voice, as loud, its sounds a little longer or shorter each.

    Returns:
        The samples, and what tells for moments in seconds of the old ones where they lie in the new ones.
    """
    hop, width, longest_lag = rate // 100, rate // 40, rate // 70
    size = 1 << (width + longest_lag - 1).bit_length()
    window = np.hanning(width + 1)[:-1].astype(np.float32)
    spectra = np.fft.rfft(_frames(pcm, width, hop) * window, size)
    autocorrelation = np.fft.irfft(np.abs(spectra) ** 2)[:, :longest_lag].astype(np.float64)
    predictor, error = _levinson(autocorrelation, round(rate / 1000 * _ORDER_PER_KHZ) + 2)
    lags = autocorrelation[:, rate // 400 :] / np.maximum(autocorrelation[:, :1], 1e-9)
    voiced = lags.max(axis=1) > _VOICED
    source = _paced(len(spectra), rng)
    n_samples = len(source) * hop
    predictor, error, voiced = predictor[source].astype(np.float32), error[source], voiced[source]
    if rng.random() < _OWN_EXCITATION:
        driven = spectra[source] * np.fft.rfft(predictor, size)
    else:
        excitation = _frames(_excitation(voiced, hop, n_samples, rate, rng), width, hop) * window
        excitation /= np.sqrt(np.mean(excitation**2, axis=1, keepdims=True)) + 1e-6
        gain = np.sqrt(np.maximum(error, 0.0) / width)[:, None].astype(np.float32)
        driven = np.fft.rfft(excitation, size) * gain
    # Narrower or wider resonances: the poles of the filter move in from the unit circle or stay.
    damped = predictor * (rng.uniform(0.975, 1.0) ** np.arange(predictor.shape[1])).astype(np.float32)
    shaped = np.fft.irfft(driven / _warped(np.fft.rfft(damped, size), rate, rng))
    out = np.zeros(len(shaped) * hop + size)
    for index, frame in enumerate(shaped):
        out[index * hop : index * hop + size] += frame
    out = out[:n_samples] * np.sqrt(np.mean(np.square(pcm)) / (np.mean(out[:n_samples] ** 2) + 1e-12))
    return out.astype(np.float32), lambda seconds: np.searchsorted(source, seconds * rate / hop) * hop / rate


def _paced(n_frames: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return which source frame each frame of the result takes: a pace that wanders between 0.65 and 1.5."""
    n_knots = 2 + n_frames // 12
    pace = np.exp(np.clip(rng.normal(0, rng.uniform(0, 0.28), n_knots), -0.43, 0.4))
    each = np.interp(np.linspace(0, n_knots - 1, n_frames), np.arange(n_knots), pace)
    ends = np.cumsum(each)
    wanted = np.arange(int(ends[-1])) + 0.5
    return np.minimum(np.searchsorted(ends, wanted), n_frames - 1)


def _frames(pcm: Pcm | _Array, width: int, hop: int) -> npt.NDArray[np.float32]:
    padded = np.concatenate([pcm, np.zeros(width)]).astype(np.float32)
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


def _warped(spectrum: npt.NDArray[Any], rate: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    """Read the filter's response at other frequencies: all formants move together, and each region a little more."""
    last = spectrum.shape[1] - 1
    hz = np.arange(last + 1) / last * rate / 2
    knots = np.array([0, 500, 1000, 1700, 2600, 4000, rate / 2])
    factors = rng.uniform(0.86, 1.16) * np.exp(rng.normal(0, rng.uniform(0, 0.07), len(knots)))
    # A formant that moves up by a factor is read from where it was: at a frequency lower by it.
    read_at = np.interp(hz, knots, np.maximum.accumulate(knots / factors))
    return spectrum[:, np.round(np.minimum(read_at / (rate / 2), 1.0) * last).astype(int)]


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
