"""Steps on CPU: a launch computes at once, and exactly the slots that take part."""

import numpy as np

from asr_worker.core.model import StepPlan, StepResult
from asr_worker.model.device_step import DeviceStep
from asr_worker.model.packing import PlanWords, ResultWords, select


class HostRunner:
    """Runs a step of whichever slots.

    Args:
        step: on CPU; its own buffers are written and read.
    """

    def __init__(self, step: DeviceStep) -> None:
        self._step = step
        self._plan_words = PlanWords(step.plan.numpy(), n_slots=step.n_slots, n_codebooks=step.n_codebooks)
        self._result_words = ResultWords(step.result.numpy(), n_codebooks=step.n_codebooks)
        self._slots = np.zeros(0, np.int64)

    def launch(self, plan: StepPlan) -> None:
        """Compute one step of ``plan``."""
        selection = select(plan)
        self._slots = selection.slots
        if len(self._slots):
            self._plan_words.write(plan, self._slots, len(self._slots))
            self._step.run_on_host(selection)

    def is_done(self) -> bool:
        """Return whether the step has ended: it has, since its launch."""
        return True

    def collect(self, into: StepResult) -> None:
        """Write what the slots of the last launch said."""
        self._result_words.read(into, self._slots)
