"""What the fake model hears and says: its settings, its codec and its vocabulary. See ``fake.py`` for the whole.

The codec turns a frame into codes that depend on every sample: codebook 0 is the loudness, the others are a hash.
Samples are rounded to 16 bits first and summed as integers, so that the codes are the same on every machine, for any
batch, and for a client that sends its audio as float32 or as 16-bit integers divided by 32768.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from asr_worker.core.words import PADDING
from shared.units import FRAME_SAMPLES

LEVELS: Final = 2_048
"""Codes of codebook 0 (loudness: 2047 is full scale) and of all the others (hash)."""

MAX_CODEBOOKS: Final = 64

PAD_CODE: Final = LEVELS
"""Fed in every codebook before the first frame."""

VOICED_LEVEL: Final = 20
"""From this loudness (about 0.01 RMS) a frame is speech."""

FIRST_PIECE: Final = PADDING + 1

PAUSE_HORIZONS_S: Final = (0.5, 1.0, 2.0, 3.0)

_SYLLABLES: Final = tuple(a + b + c for a in "bdfgjklmnprstvwz" for b in "aeiou" for c in ("", *"klmnrst"))

Codes = NDArray[np.int64]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeSettings:
    """What can be set of the fake model."""

    n_slots: int = 8
    n_heads: int = 4
    """0 stands for a model without pause heads, such as the 2.6B one; at most 4."""
    n_codebooks: int = 8
    delay_frames: int = 6
    """D; 32 stands for the 2.6B model."""
    context_frames: int = 128
    """C: frames on which every word depends."""
    words: tuple[str, ...] = ()
    """What it can say; by default some 400,000 words of one or two syllables."""
    step_ms: float = 0.0
    """How long one step takes at least."""
    row_ms: float = 0.0
    """How much longer for each active slot."""
    fail_at_step: int | None = None
    """The step, counted from 1 since the last restart, in which the device fails for good; None: never."""

    def __post_init__(self) -> None:
        limits = (
            ("n_slots", self.n_slots, 1, 4096),
            ("n_heads", self.n_heads, 0, len(PAUSE_HORIZONS_S)),
            ("n_codebooks", self.n_codebooks, 2, MAX_CODEBOOKS),
            ("context_frames", self.context_frames, 100, 4096),
            ("delay_frames", self.delay_frames, 2, self.context_frames - 16),
            ("step_ms", self.step_ms, 0, 60_000),
            ("row_ms", self.row_ms, 0, 60_000),
        )
        for name, value, low, high in limits:
            if not low <= value <= high:
                message = f"{name} of the fake model must be from {low} to {high}, not {value}"
                raise ValueError(message)

    @property
    def n_first(self) -> int:
        """Pieces that can begin a word."""
        return len(self.words or _SYLLABLES)

    @property
    def n_next(self) -> int:
        """Pieces that can follow a first one."""
        return 0 if self.words else len(_SYLLABLES)

    @property
    def start_token(self) -> int:
        """Fed before the first token, one beyond all that can be said."""
        return FIRST_PIECE + self.n_first + self.n_next

    def text_of(self, tokens: list[int]) -> str:
        """Return the text of one word's pieces; numbers that are no piece are shown as such."""
        pieces = self.words or 2 * _SYLLABLES
        numbers = [token - FIRST_PIECE for token in tokens]
        return "".join(
            pieces[number] if 0 <= number < len(pieces) else f"<{number + FIRST_PIECE}>" for number in numbers
        )


def mix(values: Hashes) -> Hashes:
    """Return a thorough 64-bit mixture of each value (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def encode(pcm: NDArray[np.float32], n_codebooks: int) -> Codes:
    """Return the codes ``[n, n_codebooks]`` of the frames ``pcm`` ``[n, 1920]``."""
    samples = np.rint(np.clip(pcm, -1.0, 1.0).astype(np.float64) * 32_767).astype(np.int64)
    rms = np.sqrt((samples * samples).sum(axis=1) / FRAME_SAMPLES)
    level = (rms * (LEVELS - 1) / 32_767).astype(np.int64)
    weights = mix(np.arange(1, FRAME_SAMPLES + 1, dtype=np.uint64))
    digest = (samples.view(np.uint64) * weights).sum(axis=1, dtype=np.uint64)
    columns = mix(digest[:, None] + np.arange(1, n_codebooks, dtype=np.uint64))
    return np.concatenate([level[:, None], (columns % np.uint64(LEVELS)).astype(np.int64)], axis=1)


def digest(codes: Codes, text: NDArray[np.int64]) -> Hashes:
    """Return one hash ``[n]`` for each row of ``codes`` ``[n, n_codebooks]`` and its ``text`` token ``[n]``."""
    weights = mix(np.arange(1, codes.shape[1] + 2, dtype=np.uint64))
    fed = np.concatenate([codes, text[:, None]], axis=1).astype(np.uint64)
    return mix((fed * weights).sum(axis=1, dtype=np.uint64))
