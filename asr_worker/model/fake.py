"""The fake model: a real model's manners without weights, for the tests of this service and of its clients.

``asr-worker --model fake`` behaves like a worker with a speech model: D frames of delay, tokens 0, 3 and word pieces
that go through the same word rules, pause heads, resets, masked rows, forced tokens, given codes. What it says can be
computed from the audio alone, and ``fake_oracle.py`` does: give it the frames that a client sent, and it lists the
words and times that must come back.

How it speaks. A frame louder than about 0.01 RMS is speech, any other is silence. A word begins where speech begins,
and in lasting speech a new one every 3 to 7 frames; it ends where speech ends or the next word begins. Times are exact
to the frame. Which words it says is decided by a hash of all that it was fed in the last C frames (128 unless set
otherwise): the codes of the audio, which depend on every sample, and its own tokens. Because words depend on earlier
words, one frame that is lost, doubled, altered or replayed wrongly changes every later word, until C frames pass
without any speech. The pause heads give the length of the present silence as a share of 0.5, 1, 2 and 3 s.

    step s is fed   token of step s-1, codes of frame s-1    ──►  window of C (codes, token) ──► hash ──► which piece
                                                                  speech at frame s+1-D    ──────────► 0, 3 or a piece
"""

import hashlib
import time
from typing import Final

import numpy as np
from numpy.typing import NDArray

from asr_worker.core.model import NO_TOKEN, ModelFacts, StepPlan, StepResult
from asr_worker.core.words import END_OF_WORD, PADDING
from asr_worker.model.fake_speech import (
    FIRST_PIECE,
    LEVELS,
    PAD_CODE,
    PAUSE_HORIZONS_S,
    VOICED_LEVEL,
    FakeSettings,
    Hashes,
    digest,
    encode,
    mix,
)
from shared.errors import ModelFaultError
from shared.units import FRAME_RATE

MULTIPLIER: Final = 0x9E3779B97F4A7C15
"""Of the rolling hash: hash = sum of MULTIPLIER ** age * digest over the window, modulo 2 ** 64."""

LONGEST_WORD_STEPS: Final = 6
"""Steps after the 0 that opens a word by which the next 0 comes, in lasting speech."""

FORGOTTEN_STEPS: Final = 8
"""A word whose opening 0 is further back is not continued: nothing depends on more than the window."""


class FakeModel:
    """An ``AsrModel`` of ``settings``."""

    def __init__(self, settings: FakeSettings) -> None:
        self._settings = settings
        n_slots, context = settings.n_slots, settings.context_frames
        self._oldest_factor = np.uint64(pow(MULTIPLIER, context, 1 << 64))
        self._fed = np.zeros((n_slots, context), np.uint64)
        self._voiced = np.zeros((n_slots, context), np.bool_)
        self._hash = np.zeros(n_slots, np.uint64)
        self._steps = np.zeros(n_slots, np.int64)
        self._text = np.zeros(n_slots, np.int64)
        self._codes = np.zeros((n_slots, settings.n_codebooks), np.int64)
        self._since_end = np.zeros(n_slots, np.int64)
        self._in_word = np.zeros(n_slots, np.bool_)
        self._quiet = np.zeros(n_slots, np.int64)
        self._result = StepResult(
            text=np.zeros(n_slots, np.int64),
            codes=np.zeros((n_slots, settings.n_codebooks), np.int64),
            pauses=np.zeros((n_slots, settings.n_heads), np.float32),
        )
        self._n_launched = 0
        self._is_rehearsal = False
        self._ready_s = 0.0
        self._reset(np.arange(n_slots))
        self._facts = _facts_of(settings)

    @property
    def facts(self) -> ModelFacts:
        """What is known of the model."""
        return self._facts

    def detokenize(self, tokens: list[int]) -> str:
        """Return the text of one word's pieces."""
        return self._settings.text_of(tokens)

    def launch(self, plan: StepPlan) -> None:
        """Compute one step; ``collect`` waits until it has taken as long as it should."""
        self._reset(np.flatnonzero(plan.reset))
        rows = np.flatnonzero(plan.active)
        self._ready_s = time.perf_counter() + (self._settings.step_ms + self._settings.row_ms * len(rows)) / 1e3
        self._n_launched += not self._is_rehearsal
        codes = encode(plan.pcm[rows], self._settings.n_codebooks)
        if plan.codes is not None:
            given = plan.codes[rows]
            codes = np.where(given[:, :1] >= 0, given, codes)
        text = self._speak(rows)
        if plan.text is not None:
            text = np.where(plan.text[rows] == NO_TOKEN, text, plan.text[rows])
        self._text[rows] = self._result.text[rows] = text
        self._codes[rows] = self._result.codes[rows] = codes
        horizons = np.array(PAUSE_HORIZONS_S[: self._settings.n_heads])
        self._result.pauses[rows] = np.minimum(1.0, self._quiet[rows, None] / (FRAME_RATE * horizons))

    def is_done(self) -> bool:
        """Return whether the launched step has taken as long as it should."""
        return time.perf_counter() >= self._ready_s

    def collect(self) -> StepResult:
        """Return the result of the launched step once its time has passed.

        Raises:
            ModelFaultError: the settings wanted this step to fail.
        """
        if self._settings.fail_at_step is not None and self._n_launched >= self._settings.fail_at_step:
            message = f"the fake device fails from step {self._settings.fail_at_step} on, as it was told to"
            raise ModelFaultError(message)
        time.sleep(max(0.0, self._ready_s - time.perf_counter()))
        return self._result

    def restart(self, *, age_frames: int = 0) -> None:
        """Make every slot fresh. Steps cost the same at any age; those of aged slots are none that may fail."""
        self._reset(np.arange(self._settings.n_slots))
        self._steps[:] = age_frames
        self._n_launched = 0
        self._is_rehearsal = age_frames > 0

    def _reset(self, rows: NDArray[np.int64]) -> None:
        self._fed[rows] = 0
        self._voiced[rows] = False
        self._hash[rows] = 0
        self._steps[rows] = 0
        self._text[rows] = self._settings.start_token
        self._codes[rows] = PAD_CODE
        self._since_end[rows] = FORGOTTEN_STEPS
        self._in_word[rows] = False
        self._quiet[rows] = 0

    def _speak(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Feed the last token and codes of ``rows``; return the tokens that follow."""
        text, level = self._text[rows], self._codes[rows, 0]
        voiced = (level >= VOICED_LEVEL) & (level != PAD_CODE)
        cells = self._steps[rows] % self._settings.context_frames
        self._remember(rows, cells, digest(self._codes[rows], text))
        self._voiced[rows, cells] = voiced
        self._quiet[rows] = np.where(voiced, 0, np.minimum(self._quiet[rows] + 1, self._settings.context_frames))
        lag = self._settings.delay_frames - 2
        is_speech = self._voiced[rows, cells - lag]  # negative indices reach round the ring
        was_speech = self._voiced[rows, cells - lag - 1]
        self._steps[rows] += 1
        since = np.where(text == END_OF_WORD, 0, np.minimum(self._since_end[rows] + 1, FORGOTTEN_STEPS))
        in_word = np.where(text == END_OF_WORD, was_speech, self._in_word[rows] & (since < FORGOTTEN_STEPS))
        self._since_end[rows], self._in_word[rows] = since, in_word
        return self._choose(mix(self._hash[rows]), since, in_word, is_speech)

    def _remember(self, rows: NDArray[np.int64], cells: NDArray[np.int64], fed: Hashes) -> None:
        oldest = self._fed[rows, cells]
        self._hash[rows] = self._hash[rows] * np.uint64(MULTIPLIER) + fed - oldest * self._oldest_factor
        self._fed[rows, cells] = fed

    def _choose(
        self, draw: Hashes, since: NDArray[np.int64], in_word: NDArray[np.bool_], is_speech: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        n_first, n_next = np.uint64(self._settings.n_first), np.uint64(max(1, self._settings.n_next))
        first = FIRST_PIECE + (draw % n_first).astype(np.int64)
        following = FIRST_PIECE + self._settings.n_first + (draw % n_next).astype(np.int64)
        is_cut = (draw >> np.uint64(62) == 0) | (since >= LONGEST_WORD_STEPS)
        has_next = (draw >> np.uint64(63) == 0) & bool(self._settings.n_next)
        return np.select(
            [in_word & (since == 0), in_word & (since == 1), in_word],
            [first, np.where(has_next, following, PADDING), np.where(~is_speech | is_cut, END_OF_WORD, PADDING)],
            np.where(is_speech, END_OF_WORD, PADDING),
        )


def _facts_of(settings: FakeSettings) -> ModelFacts:
    said = (settings.n_heads, settings.n_codebooks, settings.delay_frames, settings.context_frames, settings.words)
    return ModelFacts(
        n_slots=settings.n_slots,
        n_heads=settings.n_heads,
        n_codebooks=settings.n_codebooks,
        n_text_tokens=settings.start_token,
        n_codes=LEVELS,
        delay_frames=settings.delay_frames,
        context_frames=settings.context_frames,
        codec_context_frames=1,
        whole_words=False,
        fingerprint=hashlib.sha256(repr(("fake", 1, said)).encode()).hexdigest(),
        device="fake",
        dtype="int64",
    )
