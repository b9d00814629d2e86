"""Any sample rate to 24 kHz, chunk by chunk: what comes out does not depend on how the input was cut."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.units import SAMPLE_RATE


class Resampler:
    """Resamples one mono stream with soxr at its high quality; memory does not grow with the stream.

    Args:
        rate: samples per second of the input.
    """

    def __init__(self, rate: int) -> None:
        # Here, so that a gateway that resamples nothing does not load the library.
        import soxr  # noqa: PLC0415

        self._stream: Any = None
        if rate != SAMPLE_RATE:
            self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")

    def feed(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the 24 kHz samples that are certain now; the rest follows with later input."""
        return self._resample(samples, last=False)

    def flush(self) -> NDArray[np.float32]:
        """Return what is left. The stream is over: nothing may be fed afterwards."""
        return self._resample(np.zeros(0, np.float32), last=True)

    def _resample(self, samples: NDArray[np.float32], *, last: bool) -> NDArray[np.float32]:
        if self._stream is None:
            return samples
        resampled: NDArray[np.float32] = self._stream.resample_chunk(samples, last=last)
        return resampled
