"""What a worker does with its model before anybody is served: warm it up, and time its steps.

The model has every slot fresh and its random numbers at their beginning afterwards: no session can tell what was done.
"""

import time

import numpy as np

from asr_worker.core.admission import CapacitySearch, is_enough
from asr_worker.core.model import AsrModel, StepPlan
from shared.units import FRAME_SAMPLES

_LEVEL = 0.1
"""Of the noise that is stepped: as loud as speech. Silence could be cheaper."""


def warm_up(model: AsrModel, n_steps: int = 2) -> float:
    """Run all-active steps and return how long the last one took, in seconds.

    Raises:
        ModelFaultError: the device fails.
    """
    plan = _plan(model.facts.n_slots)
    step_s = 0.0
    for _ in range(n_steps):
        step_s = _step(model, plan)
    model.restart()
    return step_s


def measure_capacity(model: AsrModel, budget_s: float) -> CapacitySearch:
    """Time steps with full caches for about ``budget_s``; return what was found.

    Raises:
        ModelFaultError: the device fails.
    """
    facts = model.facts
    search = CapacitySearch(n_slots=facts.n_slots, budget_s=budget_s)
    model.restart(age_frames=max(facts.context_frames, facts.codec_context_frames))
    plan = _plan(facts.n_slots)
    while (n_active := search.next_count()) is not None:
        # Live sessions lie in the lowest slots.
        plan.active[:] = np.arange(facts.n_slots) < n_active
        # The first step of a size is no sample: memory is taken and caches are cold.
        _step(model, plan)
        times_s: list[float] = []
        while not is_enough(times_s):
            times_s.append(_step(model, plan))
        search.add(n_active, times_s)
    model.restart()
    return search


def _plan(n_slots: int) -> StepPlan:
    noise = np.random.default_rng(0).standard_normal((n_slots, FRAME_SAMPLES), np.float32)
    return StepPlan(
        pcm=np.multiply(noise, np.float32(_LEVEL)),
        active=np.ones(n_slots, np.bool_),
        reset=np.zeros(n_slots, np.bool_),
    )


def _step(model: AsrModel, plan: StepPlan) -> float:
    started_s = time.perf_counter()
    model.launch(plan)
    model.collect()
    return time.perf_counter() - started_s
