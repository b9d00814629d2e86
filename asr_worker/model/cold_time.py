"""How long something takes in a step, where what it reads has left the caches since the last one."""

import time
from collections.abc import Callable
from typing import Final

import torch

N_TURNS: Final = 5
MAX_TRIAL_S: Final = 0.5
"""No further turn for what has taken so long: some machine's slow way out would delay the start."""

MAX_OTHER_BYTES: Final = 1 << 29
"""What is read between two turns stands for the rest of the model, up to what no cache holds."""


def cold_ms(run: Callable[[], object], other_bytes: int) -> float:
    """Return how long ``run`` takes when ``other_bytes`` were read before it: the least of some turns."""
    # Ones: memory that was never written to is one page of zeros, which stays in the cache.
    other = torch.ones(min(other_bytes, MAX_OTHER_BYTES) // 4)
    taken_s = []
    for _ in range(N_TURNS):
        other.sum()
        begun_s = time.perf_counter()
        run()
        taken_s.append(time.perf_counter() - begun_s)
        if sum(taken_s) > MAX_TRIAL_S:
            break
    return 1e3 * min(taken_s)
