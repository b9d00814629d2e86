"""What was fed to the model, step by step, for the token log.

A step's result is fed to the next one: text and codes trail by one step, and after a reset the model is fed its start
token and pad codes. So the record of a step is the result of the one before, kept for each slot.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr_worker.core.model import NO_TOKEN, StepPlan, StepResult


@dataclass(frozen=True, slots=True, kw_only=True)
class FedTokens:
    """The tokens of one step. Where ``mask`` is false nothing was fed and the values mean nothing."""

    text: NDArray[np.uint32]
    """``[B]``"""
    audio: NDArray[np.uint32]
    """``[B, n_codebooks]``"""
    mask: NDArray[np.bool_]
    """``[B]``"""
    generation: NDArray[np.int64]
    """``[B]``: tells the sessions of a slot apart."""


class TokenRecorder:
    """Remembers what the next step of each of ``n_slots`` slots will be fed."""

    def __init__(self, *, n_slots: int, n_codebooks: int, start_token: int, pad_code: int) -> None:
        self._start_token = start_token
        self._pad_code = pad_code
        self._text = np.full(n_slots, start_token, np.uint32)
        self._audio = np.full((n_slots, n_codebooks), pad_code, np.uint32)

    def record(self, plan: StepPlan, result: StepResult, generations: NDArray[np.int64]) -> FedTokens:
        """Return what the step of ``plan`` was fed, and keep its ``result`` for the next.

        What is only repeated is in the log of the worker that had the session before.
        """
        self._text[plan.reset] = self._start_token
        self._audio[plan.reset] = self._pad_code
        fed = FedTokens(
            text=self._text.copy(),
            audio=self._audio.copy(),
            mask=plan.active.copy() if plan.text is None else plan.active & (plan.text == NO_TOKEN),
            generation=generations.copy(),
        )
        self._text[plan.active] = result.text[plan.active]
        self._audio[plan.active] = result.codes[plan.active]
        return fed
