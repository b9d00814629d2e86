"""How many live sessions a worker holds: found by timing its step at start-up. Decided here; the shell does the timing.

    next_count() ──► n ──(time steps with n active slots)──► add(n, seconds) ──► next_count() ... ──► None

The numbers double until a step is too slow, then the gap between the largest that holds and the smallest that does not
is halved until it is small, or the time for measuring is spent. A step must end within 80 ms, the length of a frame;
one that always took so long could never work off a backlog, so sessions are counted for 60 ms.

    slots B  ≥  measured: steps of so many end in time  ≥  admitted: less the reserve, speed to catch up  ≥  files

Measured are steps with every cache full, the worst that a service of any age can have, of the slots 0 .. n-1.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from asr_worker.core.model import ModelFacts
from shared.config import WorkerConfig

TARGET_STEP_S: Final = 0.060
"""80 ms would leave no speed to catch up with."""

FEW_STEPS: Final = 5
MANY_STEPS: Final = 30
ENOUGH_S: Final = 0.1
"""Spent on one number of slots; ``FEW_STEPS`` may take longer."""
HOPELESS_STEPS: Final = 3
"""So many steps in a row, all too slow, need no more of them."""

FINENESS: Final = 16
"""The answer may be too small by a sixteenth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Steps with ``n_active`` slots. Of few steps the 99th percentile is the slowest."""

    n_active: int
    median_s: float
    p99_s: float

    @property
    def holds(self) -> bool:
        """Whether so many sessions can be served."""
        return self.p99_s <= TARGET_STEP_S


def is_enough(times_s: Sequence[float]) -> bool:
    """Return whether steps that took ``times_s`` tell enough of one number of slots."""
    if len(times_s) >= HOPELESS_STEPS and min(times_s) > TARGET_STEP_S:
        return True
    return len(times_s) >= FEW_STEPS and (len(times_s) >= MANY_STEPS or sum(times_s) >= ENOUGH_S)


class CapacitySearch:
    """Looks for the largest number of slots, of ``n_slots``, whose steps end in time; spends about ``budget_s``."""

    def __init__(self, *, n_slots: int, budget_s: float) -> None:
        self._n_slots = n_slots
        self._left_s = budget_s
        self._timings: dict[int, Timing] = {}
        self._again: int | None = None

    @property
    def timings(self) -> tuple[Timing, ...]:
        """What was measured, by number of slots."""
        return tuple(self._timings[n] for n in sorted(self._timings))

    @property
    def measured(self) -> int | None:
        """The largest number that holds: 0 if not even one slot does, None if nothing was measured."""
        return self._good if self._timings else None

    def next_count(self) -> int | None:
        """Return with how many active slots steps are to be timed next; None: there is nothing more to find out."""
        if self._left_s <= 0:
            return None
        if self._again is not None:
            return self._again
        good, bad = self._good, self._bad
        if bad is None:
            return None if good == self._n_slots else min(self._n_slots, max(1, 2 * good))
        return (good + bad) // 2 if bad - good > max(1, bad // FINENESS) else None

    def add(self, n_active: int, times_s: Sequence[float]) -> None:
        """Take how long each of some steps took. One that only its slowest steps spoil is timed once more.

        Start-up is disturbed, by what else starts: one hiccup must not cost half the sessions.
        """
        self._left_s -= sum(times_s)
        timing = Timing(n_active=n_active, median_s=statistics.median(times_s), p99_s=_p99(times_s))
        is_second = self._again == n_active
        if is_second:
            timing = min(timing, self._timings[n_active], key=lambda known: known.p99_s)
        self._again = n_active if not (is_second or timing.holds or timing.median_s > TARGET_STEP_S) else None
        self._timings[n_active] = timing

    @property
    def _bad(self) -> int | None:
        return min((n for n, timing in self._timings.items() if not timing.holds), default=None)

    @property
    def _good(self) -> int:
        bad = self._bad
        return max((n for n, t in self._timings.items() if t.holds and (bad is None or n < bad)), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """How many sessions a worker admits."""

    sessions: int
    """At once, files included."""
    files: int
    """Of these."""
    measured: int | None = None
    """Sessions whose step ends in time, as measured; None if it was not."""
    reserve: int = 0
    """Of these, given to nobody, so that steps stay short enough to catch up after a burst."""
    warning: str | None = None
    """What an operator should know."""


def admit(facts: ModelFacts, config: WorkerConfig, measured: int | None = None) -> Admission:
    """Return what a worker admits whose steps hold ``measured`` sessions (None: unknown).

    On a GPU that is a limit; elsewhere it is worth a warning. ``max_sessions`` goes before both.
    """
    reserve, is_binding = 0, facts.device.startswith("cuda")
    if config.max_sessions is not None:
        sessions = min(facts.n_slots, config.max_sessions)
    elif measured is None or not is_binding or measured == facts.n_slots:
        sessions = facts.n_slots
    else:
        # A worker that admits nobody is of no use: one session that is late now and then is.
        reserve = min(math.ceil(config.reserve_share * measured), max(0, measured - 1))
        sessions = max(1, measured - reserve)
    warning = None
    if measured is not None and measured < sessions:
        warning = (
            f"{sessions} sessions are admitted, but with more than {measured} a step was measured to take longer than "
            f"{1e3 * TARGET_STEP_S:.0f} ms: they may fall behind; max_sessions or batch_size set a limit"
        )
        if facts.device == "cpu" and facts.dtype == "float32" and config.cpu_weights == "f32":
            warning += ', and cpu_weights = "auto" makes a large language model faster, for a few other tokens'
    return Admission(
        sessions=sessions,
        files=max(1, int(config.file_share * sessions)),
        measured=measured,
        reserve=reserve,
        warning=warning,
    )


def _p99(times_s: Sequence[float]) -> float:
    return sorted(times_s)[math.ceil(0.99 * len(times_s)) - 1]
