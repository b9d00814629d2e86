"""A session that another worker had: its last steps are made once more, so that the model knows what it knew there.

    steps      0 1 2 3 │ 4 5 6 7 │ 8 9 ...
               codes, text       │ the session goes on, at the frame after the last that its client was told about
                         audio   │

Each step is fed the codes and forced to the text that the lost worker had said, and nobody is told its result again.
The codec steps along as far back as there is audio. Both memories reach further back than what is repeated: the model
is near to where it was, not the same to the bit.
"""

import numpy as np
from numpy.typing import NDArray

from asr_worker.core.model import ModelFacts, StepPlan
from shared.messages import ResumeLog, StepFlag
from shared.units import SlotIndex


def is_fit(log: ResumeLog, facts: ModelFacts) -> bool:
    """Return whether a model of ``facts`` can step what ``log`` holds."""
    return (
        (log.codes.shape[1] == facts.n_codebooks or not len(log.text))
        and int(log.codes.max(initial=0)) < facts.n_codes
        and int(log.text.max(initial=0)) < facts.n_text_tokens
        and bool(np.isin(log.flags, (StepFlag.CLIENT, StepFlag.SILENCE)).all())
        and bool(np.isfinite(log.pcm).all())
    )


class Replay:
    """The steps of ``log`` that are still to be made in ``slot``."""

    def __init__(self, slot: SlotIndex, log: ResumeLog) -> None:
        self._slot = slot
        self._log = log
        self._at = 0
        is_client = log.flags == StepFlag.CLIENT
        # Which row of the audio a client's step has; those before the audio begins have a negative one.
        self._pcm_rows: NDArray[np.int64] = np.cumsum(is_client) - 1 - (int(is_client.sum()) - len(log.pcm))
        self._is_client = is_client

    @property
    def is_client(self) -> bool:
        """Whether the next step is one of the client's audio."""
        return bool(self._is_client[self._at])

    def write(self, plan: StepPlan) -> None:
        """Put the next step into ``plan``, whose three fields for replay are there."""
        assert plan.text is not None, "a plan that replays says so"
        assert plan.codes is not None, "a plan that replays says so"
        assert plan.encode is not None, "a plan that replays says so"
        slot, at, row = self._slot, self._at, int(self._pcm_rows[self._at])
        plan.text[slot] = self._log.text[at]
        plan.codes[slot] = self._log.codes[at]
        plan.encode[slot] = row >= 0
        plan.pcm[slot] = self._log.pcm[row] if row >= 0 and self.is_client else 0.0

    def advance(self) -> None:
        """The next step has been made."""
        self._at += 1
