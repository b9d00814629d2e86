"""How the loop spends a step that a device computes: it naps, and takes in between naps what has arrived.

    launch ─► take in ─► nap ─► take in ─► nap ─► take in ─► collect

Audio that was taken in during a step costs nothing between it and the next. The last nap ends a little before the step
should: results must never wait for a nap. Naps go by the quickest of the last steps, and are short, since the
next step may be quicker still.
"""

from collections import deque
from typing import Final

LONGEST_NAP_S: Final = 0.004
SHORTEST_NAP_S: Final = 0.000_3
"""For less, hardly anything new would have come."""
MARGIN_S: Final = 0.001
"""From the end of the last nap to the end of the step, beside the time that taking in needs."""
_LATELY_STEPS: Final = 8


class Naps:
    """Knows how long the last steps took. Times are seconds."""

    def __init__(self) -> None:
        self._lately_s: deque[float] = deque(maxlen=_LATELY_STEPS)

    def note(self, step_s: float) -> None:
        """Let a step that took ``step_s`` say how long the next ones may take."""
        self._lately_s.append(step_s)

    def next_s(self, *, elapsed_s: float, taking_in_s: float) -> float | None:
        """Return how long to sleep before what has arrived is taken in again; None: now wait for the result.

        Args:
            elapsed_s: since the step was launched.
            taking_in_s: how long taking in has just taken.
        """
        if not self._lately_s:
            return None
        nap_s = min(LONGEST_NAP_S, min(self._lately_s) - MARGIN_S - taking_in_s - elapsed_s)
        return nap_s if nap_s >= SHORTEST_NAP_S else None
