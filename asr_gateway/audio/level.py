"""How loud a sample may be: a number that no loudspeaker could play would stay in the model's state for a minute."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_SAMPLE: Final = 10.0
"""Ten times full scale. Decoders of lossy formats overshoot full scale a little, and that is left as it is."""


def limited(pcm: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return finite samples clipped to +-MAX_SAMPLE."""
    return pcm.clip(-MAX_SAMPLE, MAX_SAMPLE)
