"""A ``DeviceStep`` on CUDA: pinned buffers, one graph, nothing that makes the host wait before ``wait``."""

import torch

from asr_worker.model.device_step import DeviceStep


class CudaRunner:
    """Runs a step as a captured graph; until ``capture`` was called, eagerly.

    Args:
        step: its tensors are on a CUDA device.
    """

    def __init__(self, step: DeviceStep) -> None:
        self._step = step
        self._device = step.plan.device
        self.plan = torch.zeros(step.plan.shape, pin_memory=True)
        self.result = torch.zeros(step.result.shape, pin_memory=True)
        # Blocking: the waiting thread sleeps instead of spinning on a core that the gateway may need.
        self._done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None

    def capture(self, n_warm_up_steps: int) -> None:
        """Run the plan that lies in ``plan`` a few times, then capture the step. Slots are left in any state."""
        with torch.cuda.device(self._device):
            # Libraries allocate and choose kernels in their first calls, which a capture must not see; they do so
            # on the side stream that torch wants for warming up.
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self._step.plan.copy_(self.plan, non_blocking=True)
                for _ in range(n_warm_up_steps):
                    self._step.run()
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            if self._step.generator is not None:
                graph.register_generator_state(self._step.generator)
            with torch.cuda.graph(graph):
                self._step.run()
            self._graph = graph

    def launch(self) -> None:
        """Queue the copy of ``plan``, the step and the copy into ``result``."""
        with torch.cuda.device(self._device):
            self._step.plan.copy_(self.plan, non_blocking=True)
            if self._graph is None:
                self._step.run()
            else:
                self._graph.replay()
            self.result.copy_(self._step.result, non_blocking=True)
            self._done.record()

    def wait(self) -> None:
        """Wait until ``result`` holds what the last launch said."""
        self._done.synchronize()
