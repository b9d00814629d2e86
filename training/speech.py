"""A spoken phrase with exact times: what every synthesiser returns and the bank stores."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Span:
    """One word of a phrase; ``start_s`` and ``end_s`` count from the phrase's first sample."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Sound:
    """One phone (`training.phones` index) and its time."""

    phone: int
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Speech:
    """Mono samples in [-1, 1] at ``rate_hz`` with the words and sounds in them, in order."""

    pcm: Pcm
    rate_hz: int
    words: tuple[Span, ...]
    sounds: tuple[Sound, ...]

    def stretched(self, factor: float) -> "Speech":
        """Return the same samples played ``factor`` times slower: pitch and formants fall with it."""
        return Speech(
            pcm=self.pcm,
            rate_hz=round(self.rate_hz / factor),
            words=tuple(Span(text=w.text, start_s=w.start_s * factor, end_s=w.end_s * factor) for w in self.words),
            sounds=tuple(Sound(phone=s.phone, start_s=s.start_s * factor, end_s=s.end_s * factor) for s in self.sounds),
        )
