"""How loud a sample may be: a number that no loudspeaker could play would stay in the model's state for a minute."""

from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

_Float = TypeVar("_Float", bound=np.floating[Any])

MAX_SAMPLE: Final = 10.0
"""Ten times full scale. Decoders of lossy formats overshoot full scale a little, and that is left as it is."""


def limited(pcm: NDArray[_Float]) -> NDArray[_Float]:
    """Return samples ``[n]`` within +-MAX_SAMPLE, NaN as 0: ``pcm`` itself if it is so already."""
    # Finding where the extremes are is three times as fast as finding what they are. NaN counts as an extreme, and
    # fails both comparisons.
    if not pcm.size or (pcm.item(pcm.argmax()) <= MAX_SAMPLE and pcm.item(pcm.argmin()) >= -MAX_SAMPLE):
        return pcm
    mended: NDArray[_Float] = np.nan_to_num(pcm, nan=0.0).clip(-MAX_SAMPLE, MAX_SAMPLE)
    return mended
