"""How far a run is, and what that means: phases and learning rates.

    share of the time    0 ─────── 0.35 ───────────────── 0.85 ─────── 1
    from nothing         continuous      discrete              settled
    resumed              discrete ───────────────────────      settled
    settled only         settled ─────────────────────────────────────

*continuous*: no quantiser. *discrete*: everything learns through the quantiser. *settled*: the encoder stands still,
the language model learns on the very codes that a server will see, with the rest of the time's audio and codes kept
from before.

A run from nothing hears *simple* speech first: no invented voices, short pauses, few foreign phrases. An hour on one
core is no more than that; once settled it hears *plain* speech, with all the foreign phrases. What goes on longer, or
from another checkpoint, hears *all* of it.
"""

import math
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Phase(Enum):
    """What may change."""

    CONTINUOUS = "continuous"
    DISCRETE = "discrete"
    SETTLED = "settled"


class Fare(Enum):
    """What there is to hear."""

    SIMPLE = "simple"
    PLAIN = "plain"
    ALL = "all"


CONTINUOUS_SHARE: Final = 0.35
SETTLED_FROM: Final = 0.85
_SIMPLE_STEPS: Final = 4000
_WARM_UP_STEPS: Final = 100
_SETTLED_PEAK: Final = 0.35
_FALLS_FROM: Final = 0.75
"""The rate of a run that is settled only: its weights are averaged, which a low rate would not let differ."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Phases and learning rates of a run of so many seconds, or steps if those are given.

    A run by time uses the machine it gets; a run by steps is the same on every machine of its kind.
    """

    seconds: float
    steps: int | None = None
    resumed: bool = False
    settled_only: bool = False
    """The encoder is another run's and stands still from the beginning."""
    peak: float = 1.5e-3

    def done(self, elapsed_s: float, step: int) -> float:
        """Return the share of the run that is over, 0 to 1."""
        return min(1.0, step / self.steps if self.steps is not None else elapsed_s / self.seconds)

    def phase(self, done: float) -> Phase:
        """Return what may change now."""
        if self.settled_only or done >= SETTLED_FROM:
            return Phase.SETTLED
        return Phase.DISCRETE if self.resumed or done >= CONTINUOUS_SHARE else Phase.CONTINUOUS

    def fare(self, done: float, step: int) -> Fare:
        """Return what to hear now."""
        if self.resumed or self.settled_only or step >= _SIMPLE_STEPS:
            return Fare.ALL
        return Fare.SIMPLE if done < SETTLED_FROM else Fare.PLAIN

    def learning_rate(self, done: float, step: int) -> float:
        """Return the rate: warm-up, a cosine down to a tenth, and a second, lower cosine in the settled phase.

        A run that is settled only keeps the highest rate for three quarters of its time.
        """
        warm = min(1.0, (step + 1) / _WARM_UP_STEPS)
        if self.settled_only:
            return self.peak * warm * (0.05 + 0.95 * _cosine(max(0.0, done - _FALLS_FROM) / (1 - _FALLS_FROM)))
        if done >= SETTLED_FROM:
            along = (done - SETTLED_FROM) / (1 - SETTLED_FROM)
            return self.peak * _SETTLED_PEAK * (0.02 + 0.98 * _cosine(along))
        return self.peak * warm * (0.1 + 0.9 * _cosine(done / SETTLED_FROM))


def _cosine(along: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(1.0, along)))
