"""How busy the worker is, and when it must say so next."""

import math
from collections import deque
from typing import Final

WINDOW_STEPS: Final = 256
"""Steps over which times are taken: 20 s at real-time pace."""

MIN_PERIOD_S: Final = 0.05
IDLE_PERIOD_S: Final = 0.2

MIN_DEADLINE_S: Final = 0.6
"""Three idle periods."""
DEADLINE_STEPS: Final = 6
"""On a slow machine a step may outlast any fixed deadline, so the deadline follows the steps."""


class StepTimes:
    """Durations of the last ``WINDOW_STEPS`` steps."""

    def __init__(self) -> None:
        self._window_s: deque[float] = deque(maxlen=WINDOW_STEPS)

    def add(self, step_s: float) -> None:
        """Count one step that took ``step_s``."""
        self._window_s.append(step_s)

    def percentile_s(self, percent: float) -> float:
        """Return the time that ``percent`` of the steps in the window did not exceed; 0 without any."""
        if not self._window_s:
            return 0.0
        # numpy's percentile takes five times as long.
        ordered = sorted(self._window_s)
        return ordered[math.ceil(percent / 100 * (len(ordered) - 1))]

    def deadline_s(self) -> float:
        """Return within what time the worker promises its next sign of life."""
        return max(MIN_DEADLINE_S, DEADLINE_STEPS * self.percentile_s(99))


class LoadSchedule:
    """When to send a Load: after steps at most every 50 ms, without steps every 200 ms."""

    def __init__(self) -> None:
        self._last_s = float("-inf")

    def is_due(self, now: float, *, has_stepped: bool) -> bool:
        """Return whether a Load must go out now; if so, it counts as sent."""
        if now < self._last_s + (MIN_PERIOD_S if has_stepped else IDLE_PERIOD_S):
            return False
        self._last_s = now
        return True

    def next_deadline(self) -> float:
        """Return when the next Load is due if no step comes before."""
        return self._last_s + IDLE_PERIOD_S
