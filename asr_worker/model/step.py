"""The batched model as the worker's loop sees it: launch a plan, collect its result.

On CPU a launch computes at once (``host.py``). On CUDA it queues and returns (``prepared.py``): one copy of the plan
from pinned memory, the step (a graph captured at start-up), one copy of the result into pinned memory.

    plan arrays ──numpy──► pinned plan ──copy──► DeviceStep.run ──copy──► pinned result ──numpy──► StepResult
"""

import time

import numpy as np
import torch
from numpy.typing import NDArray

from asr_worker.core.model import NO_TOKEN, ModelFacts, StepPlan, StepResult
from asr_worker.model.device_step import DeviceStep
from asr_worker.model.host import HostRunner
from asr_worker.model.prepared import PreparedRunner
from asr_worker.model.tokens import Tokenizer
from shared.errors import ConfigError, ModelFaultError
from shared.units import FRAME_SAMPLES

N_WARM_UP_STEPS = 2


class TorchAsrModel:
    """An ``AsrModel`` on torch. Only the thread that created it may call it. Call ``start`` first.

    Args:
        step: the step on its device.
        tokenizer: turns tokens into text.
        facts: what is known of the model.
        is_prepared: step by an index in prepared sizes, as CUDA needs it; otherwise exactly what takes part, on CPU.
        warnings: what an operator should be told about the files or the device.
    """

    def __init__(
        self,
        *,
        step: DeviceStep,
        tokenizer: Tokenizer,
        facts: ModelFacts,
        is_prepared: bool,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.warnings = warnings
        self.started: dict[str, float | str] = {}
        """What was decided at the start and how long that took, for the log."""
        self._facts = facts
        self._step = step
        self._tokenizer = tokenizer
        self._runner = PreparedRunner(step) if is_prepared else HostRunner(step)
        self._collected = StepResult(
            text=np.zeros(facts.n_slots, np.int64),
            codes=np.zeros((facts.n_slots, facts.n_codebooks), np.int64),
            pauses=np.zeros((facts.n_slots, facts.n_heads), np.float32),
        )

    @property
    def facts(self) -> ModelFacts:
        """What is known of the model."""
        return self._facts

    def start(self, *, capture: bool = True, attention: str = "torch") -> None:
        """Choose the attention, capture the prepared sizes, warm up with steps of silence; then every slot is fresh.

        Args:
            capture: on CUDA, capture the step in graphs; otherwise every launch runs it eagerly.
            attention: on CUDA, ``auto`` tries whether our kernel is faster than torch's attention; ``torch`` does not.

        Raises:
            ConfigError: the device has no room for what a step computes.
            ModelFaultError: the device fails.
        """
        everyone = np.ones(self._facts.n_slots, np.bool_)
        silence = np.zeros((self._facts.n_slots, FRAME_SAMPLES), np.float32)
        try:
            with torch.inference_mode():
                if isinstance(self._runner, PreparedRunner) and self._step.plan.is_cuda:
                    self._prepare(self._runner, capture=capture, attention=attention)
                for _ in range(N_WARM_UP_STEPS):
                    self._runner.launch(StepPlan(pcm=silence, active=everyone, reset=everyone))
                    self._runner.collect(self._collected)
                self._step.reset_all()
        except torch.OutOfMemoryError as error:
            reason = str(error).partition("\n")[0]
            msg = f"no room on {self._facts.device} for steps of batch_size = {self._facts.n_slots}: {reason}"
            raise ConfigError(msg) from error
        except RuntimeError as error:
            is_kernel_tried = attention == "auto" and self._step.plan.is_cuda
            hint = ' (attention = "torch" would leave our kernel out)' if is_kernel_tried else ""
            msg = f"the model failed its first step on {self._facts.device}: {error}{hint}"
            raise ModelFaultError(msg) from error

    def _prepare(self, runner: PreparedRunner, *, capture: bool, attention: str) -> None:
        started_s = time.perf_counter()
        if attention == "auto":
            for name, verdict in runner.choose_attention().items():
                self.started[f"{name}_attention"] = str(verdict)
                if verdict.trouble is not None:
                    self.warnings += (f"{name}: torch reads the caches, the faster kernel fails: {verdict.trouble}",)
            self.started["attention_s"] = round(time.perf_counter() - started_s, 3)
            started_s = time.perf_counter()
        if capture:
            runner.capture()
            self.started["n_graphs"] = len(runner.sizes)
            self.started["capture_s"] = round(time.perf_counter() - started_s, 3)

    def launch(self, plan: StepPlan) -> None:
        """Start one step and return as soon as the plan's arrays may be overwritten.

        Raises:
            ValueError: a forced token or a given code is none of the model's; nothing was launched.
            ModelFaultError: the device can no longer be trusted; the process should exit.
        """
        self._check(plan)
        try:
            with torch.inference_mode():
                self._runner.launch(plan)
        except RuntimeError as error:
            msg = f"a model step failed on {self._facts.device}: {error}"
            raise ModelFaultError(msg) from error

    def is_done(self) -> bool:
        """Return whether ``collect`` would return at once.

        Raises:
            ModelFaultError: the device can no longer be trusted; the process should exit.
        """
        try:
            return self._runner.is_done()
        except RuntimeError as error:
            msg = f"a model step failed on {self._facts.device}: {error}"
            raise ModelFaultError(msg) from error

    def collect(self) -> StepResult:
        """Wait for the launched step and return its result; the arrays are overwritten by the next collect.

        Raises:
            ModelFaultError: the device can no longer be trusted; the process should exit.
        """
        try:
            self._runner.collect(self._collected)
        except RuntimeError as error:
            msg = f"a model step failed on {self._facts.device}: {error}"
            raise ModelFaultError(msg) from error
        return self._collected

    def restart(self, *, age_frames: int = 0) -> None:
        """Make every slot fresh, or as old as ``age_frames`` steps, and begin the random numbers anew.

        Raises:
            ModelFaultError: the device can no longer be trusted.
        """
        try:
            with torch.inference_mode():
                self._step.reset_all(age_frames=age_frames)
        except RuntimeError as error:
            msg = f"the slots could not be reset on {self._facts.device}: {error}"
            raise ModelFaultError(msg) from error

    def detokenize(self, tokens: list[int]) -> str:
        """Return the text of one word's pieces, without a leading space."""
        return self._tokenizer.decode(tokens)

    def _check(self, plan: StepPlan) -> None:
        if plan.text is not None:
            _check_range("a forced text token", plan.text, NO_TOKEN, self._facts.n_text_tokens)
        if plan.codes is not None:
            _check_range("a given code", plan.codes[plan.codes[:, 0] >= 0], 0, self._facts.n_codes)


def _check_range(what: str, values: NDArray[np.int64], lowest: int, below: int) -> None:
    """Refuse what would index past a table: on CUDA that ends the process.

    Raises:
        ValueError: some value is out of range.
    """
    if values.size and (values.min() < lowest or values.max() >= below):
        wrong = values[(values < lowest) | (values >= below)][0]
        msg = f"{what} is {wrong}; allowed are {lowest} to {below - 1}"
        raise ValueError(msg)
