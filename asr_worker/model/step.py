"""The batched model as the worker's loop sees it: launch a plan, collect its result.

On CPU a launch computes at once. On CUDA it queues three things and returns: one copy of the plan from pinned
memory, the step (a graph captured at start-up, over the whole batch), one copy of the result into pinned memory.

    plan arrays ──numpy──► pinned plan ──copy──► DeviceStep.run ──copy──► pinned result ──numpy──► StepResult
"""

import numpy as np
import torch
from numpy.typing import NDArray

from asr_worker.core.model import NO_TOKEN, ModelFacts, StepPlan, StepResult
from asr_worker.model.cuda import CudaRunner
from asr_worker.model.device_step import ACTIVE, ENCODE, N_FLAG_WORDS, RESET, TEXT, DeviceStep
from asr_worker.model.tokens import Tokenizer
from shared.errors import ModelFaultError
from shared.units import FRAME_SAMPLES

N_WARM_UP_STEPS = 2


class TorchAsrModel:
    """An ``AsrModel`` on torch. Only the thread that created it may call it. Call ``start`` first.

    Args:
        step: the step on its device.
        tokenizer: turns tokens into text.
        facts: what is known of the model.
        n_text_tokens: tokens that a plan may force are below this.
        codebook_size: codes that a plan may give are below this.
        warnings: what an operator should be told about the files or the device.
    """

    def __init__(
        self,
        *,
        step: DeviceStep,
        tokenizer: Tokenizer,
        facts: ModelFacts,
        n_text_tokens: int,
        codebook_size: int,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.warnings = warnings
        self._facts = facts
        self._step = step
        self._tokenizer = tokenizer
        self._n_text_tokens = n_text_tokens
        self._codebook_size = codebook_size
        self._cuda = CudaRunner(step) if step.plan.is_cuda else None
        plan, result = (self._cuda.plan, self._cuda.result) if self._cuda else (step.plan, step.result)
        self._pcm = plan.numpy()[:, :FRAME_SAMPLES]
        self._words = plan.numpy().view(np.int32)[:, FRAME_SAMPLES:]
        n_words = 1 + facts.n_codebooks
        self._result_words = result.numpy().view(np.int32)[:, :n_words]
        self._result_pauses = result.numpy()[:, n_words:]
        self._collected = StepResult(
            text=np.zeros(facts.n_slots, np.int64),
            codes=np.zeros((facts.n_slots, facts.n_codebooks), np.int64),
            pauses=np.zeros((facts.n_slots, facts.n_heads), np.float32),
        )

    @property
    def facts(self) -> ModelFacts:
        """What is known of the model."""
        return self._facts

    def start(self, *, capture: bool = True) -> None:
        """Warm up: two steps of silence for all slots (and the capture of the graph), then every slot is fresh.

        Args:
            capture: on CUDA, capture the step in a graph; otherwise every launch runs it eagerly.

        Raises:
            ModelFaultError: the device fails.
        """
        everyone = np.ones(self._facts.n_slots, np.bool_)
        silence = np.zeros((self._facts.n_slots, FRAME_SAMPLES), np.float32)
        try:
            with torch.inference_mode():
                self._write(StepPlan(pcm=silence, active=everyone, reset=everyone))
                if self._cuda and capture:
                    self._cuda.capture(N_WARM_UP_STEPS)
                else:
                    for _ in range(N_WARM_UP_STEPS):
                        self._step.run()
                self._step.reset_all()
        except RuntimeError as error:
            msg = f"the model failed its first step on {self._facts.device}: {error}"
            raise ModelFaultError(msg) from error

    def launch(self, plan: StepPlan) -> None:
        """Start one step and return as soon as the plan's arrays may be overwritten.

        Raises:
            ValueError: a forced token or a given code is none of the model's; nothing was launched.
            ModelFaultError: the device can no longer be trusted; the process should exit.
        """
        self._write(plan)
        try:
            with torch.inference_mode():
                if self._cuda:
                    self._cuda.launch()
                else:
                    self._step.run()
        except RuntimeError as error:
            msg = f"a model step failed on {self._facts.device}: {error}"
            raise ModelFaultError(msg) from error

    def collect(self) -> StepResult:
        """Wait for the launched step and return its result; the arrays are overwritten by the next collect.

        Raises:
            ModelFaultError: the device can no longer be trusted; the process should exit.
        """
        if self._cuda:
            try:
                self._cuda.wait()
            except RuntimeError as error:
                msg = f"a model step failed on {self._facts.device}: {error}"
                raise ModelFaultError(msg) from error
        self._collected.text[:] = self._result_words[:, 0]
        self._collected.codes[:] = self._result_words[:, 1:]
        self._collected.pauses[:] = self._result_pauses
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

    def _write(self, plan: StepPlan) -> None:
        """Put a plan into the words that the device reads."""
        words = self._words
        if plan.text is not None:
            _check_range("a forced text token", plan.text, NO_TOKEN, self._n_text_tokens)
        has_codes: NDArray[np.bool_] | None = None
        if plan.codes is not None:
            has_codes = plan.codes[:, 0] >= 0
            _check_range("a given code", plan.codes[has_codes], 0, self._codebook_size)
        self._pcm[:] = plan.pcm
        words[:, ACTIVE] = plan.active
        words[:, RESET] = plan.reset
        words[:, TEXT] = NO_TOKEN if plan.text is None else plan.text
        words[:, N_FLAG_WORDS:] = NO_TOKEN if plan.codes is None else plan.codes
        encode = plan.active
        if plan.encode is not None and has_codes is not None:
            # A row without given codes needs its own, whatever the plan says.
            encode = encode & (plan.encode | ~has_codes)
        words[:, ENCODE] = encode


def _check_range(what: str, values: NDArray[np.int64], lowest: int, below: int) -> None:
    """Refuse what would index past a table: on CUDA that ends the process.

    Raises:
        ValueError: some value is out of range.
    """
    if values.size and (values.min() < lowest or values.max() >= below):
        wrong = values[(values < lowest) | (values >= below)][0]
        msg = f"{what} is {wrong}; allowed are {lowest} to {below - 1}"
        raise ValueError(msg)
