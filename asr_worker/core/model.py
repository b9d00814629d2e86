"""What the worker needs of a model: the protocol between the loop and whatever computes.

One step moves at most one frame of every slot. The loop fills a plan, launches it, serves the link while the
device computes, and collects the result:

    plan ──launch──► device ──collect──► result

Everything else stays inside the model: convolution states, KV caches, positions, the last text token of each slot
and the codes that wait one step.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

NO_TOKEN = -1
"""In ``StepPlan.text``: let the model use its own last token."""

NO_CODE = -1
"""In ``StepPlan.codes``: encode the frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What is known of a model before its first step."""

    n_slots: int
    """B, the rows of the batch."""
    n_heads: int
    """Extra heads (pause predictors); 0 for models without."""
    n_codebooks: int
    """Codes for each frame."""
    n_text_tokens: int
    """Tokens that a plan may force are below this."""
    n_codes: int
    """Codes that a plan may give are below this."""
    delay_frames: int
    """D: by how many frames the words trail the audio."""
    context_frames: int
    """C, the LM's attention window; also how many frames a replay needs at most."""
    codec_context_frames: int
    """Frames of audio that the codec's state depends on most (Mimi's attention window)."""
    whole_words: bool
    """Whether every piece of the tokenizer begins a word, so that none consists of two."""
    fingerprint: str
    """Hex digest over configuration and files: sessions move only between equal ones."""
    device: str
    dtype: str


@dataclass(slots=True, kw_only=True)
class StepPlan:
    """One step for the whole batch; the arrays are the caller's and are reused from step to step.

    Rows outside ``active`` keep their state untouched, unless ``reset``. A row that is both is reset first.
    The last three fields serve replay; None means that no row uses them.
    """

    pcm: NDArray[np.float32]
    """``[B, 1920]`` in [-1, 1] at 24 kHz; rows outside ``active`` may hold anything finite."""
    active: NDArray[np.bool_]
    """``[B]``"""
    reset: NDArray[np.bool_]
    """``[B]``"""
    text: NDArray[np.int64] | None = None
    """``[B]``: forces the step's text output, which the next step is fed, to this token; ``NO_TOKEN``: sampled."""
    codes: NDArray[np.int64] | None = None
    """``[B, n_codebooks]``: this frame's codes instead of encoded ones where ``codes[b, 0] >= 0``."""
    encode: NDArray[np.bool_] | None = None
    """``[B]``: rows whose codec steps on ``pcm``; a row with given codes may leave it out. None: as ``active``."""


@dataclass(slots=True, kw_only=True)
class StepResult:
    """What one step said. The arrays belong to the model and are overwritten by the next collect."""

    text: NDArray[np.int64]
    """``[B]``: this step's text token (forced or sampled); meaningless outside ``active``."""
    codes: NDArray[np.int64]
    """``[B, n_codebooks]``: the codes of this step's frame."""
    pauses: NDArray[np.float32]
    """``[B, n_heads]``: softmax(head)[0], the probability of a pause."""


class AsrModel(Protocol):
    """A batched streaming model. Only the thread that created it may call it."""

    @property
    def facts(self) -> ModelFacts:
        """What is known of the model."""
        ...

    def launch(self, plan: StepPlan) -> None:
        """Start one step and return as soon as the plan's arrays may be overwritten.

        Exactly one ``collect`` must follow each ``launch``.
        """
        ...

    def is_done(self) -> bool:
        """Return whether ``collect`` would return at once.

        Raises:
            ModelFaultError: the device can no longer be trusted; the process should exit.
        """
        ...

    def collect(self) -> StepResult:
        """Wait for the launched step and return its result.

        Raises:
            ModelFaultError: the device can no longer be trusted; the process should exit.
        """
        ...

    def restart(self, *, age_frames: int = 0) -> None:
        """Make every slot fresh and begin the random numbers anew; no step may be under way.

        Args:
            age_frames: let every slot be as old as if it had stepped so many frames instead, with memories that mean
                nothing: for timing the steps of a service that has run for long.

        Raises:
            ModelFaultError: the device can no longer be trusted.
        """
        ...

    def detokenize(self, tokens: list[int]) -> str:
        """Return the text of one word's pieces, without a leading space."""
        ...
