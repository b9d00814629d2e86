"""Prepared steps: a device that replays captured steps can only run sizes that were captured before.

    5 slots of 64 ──► the smallest prepared size, 6 ──► rows  3 17 18 40 63 | 64      (64 is the scratch slot)

Sizes are powers of two and the halves between, so that a step is at most a third padding and what it costs follows
the slots that take part. Anything but the graphs themselves (``cuda.py``) runs on CPU as well, where it is tested.
"""

import numpy as np
import torch

from asr_worker.core.model import StepPlan, StepResult
from asr_worker.model.contest import Verdict
from asr_worker.model.cuda import capture, make_ring_kernel, time_ms
from asr_worker.model.device_step import DeviceStep
from asr_worker.model.packing import PlanWords, ResultWords, plan_words, select


def ladder(n_slots: int) -> tuple[int, ...]:
    """Return the prepared sizes for a batch of ``n_slots``: 1 2 3 4 6 8 12 16 24 ..., the last one is ``n_slots``."""
    sizes = {n_slots}
    power = 1
    while power < n_slots:
        sizes |= {power, min(power + power // 2, n_slots)}
        power *= 2
    return tuple(sorted(sizes))


class PreparedRunner:
    """Runs a step by an index of slots, in prepared sizes: as graphs, or eagerly until ``capture`` was called.

    A launch queues one copy from pinned memory, the step, one copy into pinned memory and one event; only the rows of
    its size cross the bus. Nothing waits before ``collect``.

    Args:
        step: on CPU, or on the current CUDA device.
    """

    def __init__(self, step: DeviceStep) -> None:
        self._step = step
        is_cuda = step.plan.is_cuda
        self.sizes = ladder(step.n_slots)
        self._everyone = np.arange(step.n_slots)
        # The tensors are kept: numpy's views do not own the pinned memory.
        self._plan = torch.zeros(step.plan.shape, pin_memory=is_cuda)
        self._result = torch.zeros(step.result.shape, pin_memory=is_cuda)
        self._plan_words = PlanWords(self._plan.numpy(), n_slots=step.n_slots, n_codebooks=step.n_codebooks)
        self._result_words = ResultWords(self._result.numpy(), n_codebooks=step.n_codebooks)
        self._slots = self._everyone[:0]
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        # Blocking: the waiting thread sleeps instead of spinning on a core that the gateway may need.
        self._done = torch.cuda.Event(blocking=True) if is_cuda else None  # type: ignore[no-untyped-call]

    def capture(self) -> None:
        """Capture every size, on CUDA only. Slots are left in any state."""
        self._graphs = capture(self._step.run, self._rehearse, self.sizes, self._step.generator)

    def choose_attention(self) -> dict[str, Verdict]:
        """Decide, on CUDA only, who reads the rings; before ``capture``. All slots are fresh afterwards."""
        return self._step.choose_attention(self.sizes, make_ring_kernel, time_ms)

    def launch(self, plan: StepPlan) -> None:
        """Queue one step of ``plan``, whose arrays may be overwritten afterwards. The last one must have ended."""
        self._slots = select(plan).slots
        if len(self._slots) == 0:
            return
        n_rows = next(size for size in self.sizes if size >= len(self._slots))
        if n_rows == self._step.n_slots:
            self._slots = self._everyone
        self._plan_words.write(plan, self._slots, n_rows)
        self._put_plan(n_rows)
        graph = self._graphs.get(n_rows)
        if graph is None:
            self._step.run(n_rows)
        else:
            graph.replay()
        self._result[:n_rows].copy_(self._step.result[:n_rows], non_blocking=True)
        if self._done is not None:
            self._done.record()

    def is_done(self) -> bool:
        """Return whether the step has ended."""
        return self._done is None or len(self._slots) == 0 or bool(self._done.query())  # type: ignore[no-untyped-call]

    def collect(self, into: StepResult) -> None:
        """Wait for the step and write what its slots said."""
        if len(self._slots) == 0:
            return
        if self._done is not None:
            self._done.synchronize()
        self._result_words.read(into, self._slots)

    def _put_plan(self, n_rows: int) -> None:
        n_words = plan_words(n_rows, self._step.n_codebooks)
        self._step.plan[:n_words].copy_(self._plan[:n_words], non_blocking=True)

    def _rehearse(self, n_rows: int) -> None:
        """Step a plan in which no slot takes part."""
        torch.cuda.synchronize()
        self._plan_words.write_padding(n_rows)
        self._put_plan(n_rows)
        self._step.run(n_rows)
