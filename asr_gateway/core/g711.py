"""Telephone audio: a byte for each sample, mu-law or A-law. Source: ITU-T G.711, 11/1988, tables 1a to 2b."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_FULL_SCALE: Final = 32768.0


def _mu_law() -> NDArray[np.float32]:
    code = ~np.arange(256, dtype=np.uint8)
    step = (code & 0x0F).astype(np.int32) * 8 + 0x84
    magnitude = (step << ((code >> 4) & 7)) - 0x84
    return (np.where(code & 0x80, -magnitude, magnitude) / _FULL_SCALE).astype(np.float32)


def _a_law() -> NDArray[np.float32]:
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    segment = ((code >> 4) & 7).astype(np.int32)
    step = (code & 0x0F).astype(np.int32) * 16 + 8
    magnitude = np.where(segment == 0, step, (step + 0x100) << np.maximum(segment - 1, 0))
    return (np.where(code & 0x80, magnitude, -magnitude) / _FULL_SCALE).astype(np.float32)


_MU_LAW: Final = _mu_law()
_A_LAW: Final = _a_law()


def from_mu_law(data: bytes) -> NDArray[np.float32]:
    """Return the samples ``[n]``, within +-1, of n bytes."""
    samples: NDArray[np.float32] = _MU_LAW[np.frombuffer(data, np.uint8)]
    return samples


def from_a_law(data: bytes) -> NDArray[np.float32]:
    """Return the samples ``[n]``, within +-1, of n bytes."""
    samples: NDArray[np.float32] = _A_LAW[np.frombuffer(data, np.uint8)]
    return samples
