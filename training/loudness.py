"""How loud a recording is, in steps of 10 ms: what tells words from the silence around them."""

from typing import Final

import numpy as np
import numpy.typing as npt

from training.speech import Pcm

STEPS_PER_S: Final = 100
_SILENCE: Final = 1e-3
"""What is never louder than this share of full scale holds nothing but noise."""


def loudness(pcm: Pcm, rate_hz: int) -> npt.NDArray[np.float32]:
    """Return the root mean square of each whole step of 10 ms; ``pcm`` is mono."""
    hop = rate_hz // STEPS_PER_S
    steps = pcm[: len(pcm) // hop * hop].reshape(-1, hop)
    return np.asarray(np.sqrt(np.mean(np.square(steps), axis=1)), dtype=np.float32)


def loud_steps(pcm: Pcm, rate_hz: int, *, least: float) -> npt.NDArray[np.intp]:
    """Return which steps are louder than ``least`` times the loudest one; none of what is silent throughout."""
    of_each = loudness(pcm, rate_hz)
    return np.nonzero(of_each > least * of_each.max(initial=_SILENCE))[0]
