"""One model step for all slots: who takes part, and to whom the results go.

``plan`` picks every slot that has something to step, takes its frame out of the ring and remembers which lease the
frame came from. ``spread`` counts the step for the leases that are still there and drops the rest. Both are numpy over
the active rows; nothing here runs Python for each slot, but for those that repeat what another worker had stepped.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from asr_worker.core.model import NO_CODE, NO_TOKEN, ModelFacts, StepPlan, StepResult
from asr_worker.core.pcm import PcmRings
from asr_worker.core.replay import Replay
from asr_worker.core.rows import Rows
from asr_worker.core.words import PADDING
from shared.messages import StepBlock, StepEvent, StepFlag
from shared.units import FRAME_SAMPLES, SlotIndex

MOST_EVENTS: Final = 100_000
"""Of a block: every session of a full worker may have all its markers due in one step, and a header has a limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """The rows of one finished step whose leases still hold, as columns ``[n]`` (``[n, ...]``)."""

    slots: NDArray[np.int64]
    frames: NDArray[np.int64]
    is_silence: NDArray[np.bool_]
    text: NDArray[np.int64]
    codes: NDArray[np.int64]
    pauses: NDArray[np.float32]


class Batch:
    """Plans steps over ``rows``, ``rings`` and ``replays``. ``generations`` is the allocator's column."""

    def __init__(
        self,
        *,
        facts: ModelFacts,
        rows: Rows,
        rings: PcmRings,
        replays: dict[SlotIndex, Replay],
        generations: NDArray[np.int64],
    ) -> None:
        self._delay = facts.delay_frames
        self._rows = rows
        self._rings = rings
        self._replays = replays
        self._generations = generations
        self._plan = StepPlan(
            pcm=np.zeros((facts.n_slots, FRAME_SAMPLES), np.float32),
            active=np.zeros(facts.n_slots, np.bool_),
            reset=np.zeros(facts.n_slots, np.bool_),
        )
        self._slots = np.zeros(0, np.int64)
        self._planned_generations = generations.copy()
        self._frames = np.zeros(0, np.int64)
        self._is_silence = np.zeros(0, np.bool_)
        self._is_replay = np.zeros(0, np.bool_)
        self._no_text = np.full(facts.n_slots, NO_TOKEN, np.int64)
        self._no_codes = np.full((facts.n_slots, facts.n_codebooks), NO_CODE, np.int64)
        self._went_on: list[int] = []
        self._oldest_s: float | None = None

    @property
    def oldest_s(self) -> float | None:
        """When the oldest frame of a live session in the last planned step arrived; None if there is none.

        A file is sent ahead, as far as its window allows: how long its frames wait says nothing of the worker.
        """
        return self._oldest_s

    @property
    def planned_generations(self) -> NDArray[np.int64]:
        """``[B]``: the generations of the slots when the last step was planned."""
        return self._planned_generations

    def plan(self) -> StepPlan | None:
        """Return the next step, or None if no slot has anything to step. The plan's arrays are reused.

        All waiting items that could take effect must have done so: frames do not look out for them.
        """
        rows, rings = self._rows, self._rings
        next_frames = rows.next_frame - rings.count
        is_replay = rows.is_leased & (rows.replay > 0)
        is_silence = rows.is_leased & ~is_replay & (rows.silence > 0)
        is_client = rows.is_leased & ~is_replay & ~is_silence & (rings.count > 0)
        np.logical_or(is_silence, is_client, out=self._plan.active)
        self._plan.active |= is_replay
        self._slots = np.flatnonzero(self._plan.active)
        if not len(self._slots):
            return None
        self._planned_generations = self._generations.copy()
        self._is_silence = is_silence[self._slots]
        self._is_replay = is_replay[self._slots]
        self._frames = next_frames[self._slots] - self._is_silence
        client_slots = np.flatnonzero(is_client)
        self._oldest_s = rings.oldest_s(np.flatnonzero(is_client & rows.is_live))
        rings.pop(client_slots, self._plan.pcm)
        self._plan.pcm[is_silence] = 0.0
        self._plan.reset[:] = rows.is_fresh
        rows.is_fresh[:] = False
        self._plan_replays()
        return self._plan

    def _plan_replays(self) -> None:
        plan = self._plan
        if not self._replays:
            plan.text = plan.codes = plan.encode = None
            return
        plan.text, plan.codes, plan.encode = self._no_text.copy(), self._no_codes.copy(), plan.active.copy()
        for replay in self._replays.values():
            replay.write(plan)

    def spread(self, result: StepResult) -> Stepped:
        """Count the step of the last plan and return copies of what it said to leases that still hold."""
        rows = self._rows
        holds = self._generations[self._slots] == self._planned_generations[self._slots]
        if self._is_replay.any():
            self._count_replays(self._slots[holds & self._is_replay])
            holds &= ~self._is_replay
        slots, is_silence = self._slots[holds], self._is_silence[holds]
        client_slots = slots[~is_silence]
        rows.lease_steps[slots] += 1
        rows.model_steps[slots] += 1
        rows.silence[slots[is_silence]] -= 1
        rows.client_steps[client_slots] += 1
        rows.unacknowledged[client_slots] -= 1
        rows.last_client_step[client_slots] = rows.lease_steps[client_slots]
        return Stepped(
            slots=slots,
            frames=self._frames[holds],
            is_silence=is_silence,
            text=result.text[slots],
            codes=result.codes[slots],
            pauses=result.pauses[slots],
        )

    def _count_replays(self, slots: NDArray[np.int64]) -> None:
        """Count a step that ``slots`` repeated: it gives nothing to tell, nor any credit."""
        rows = self._rows
        rows.lease_steps[slots] += 1
        rows.model_steps[slots] += 1
        rows.replay[slots] -= 1
        for slot in map(SlotIndex, slots.tolist()):
            replay = self._replays[slot]
            if replay.is_client:
                rows.last_client_step[slot] = rows.lease_steps[slot]
            replay.advance()
            if not rows.replay[slot]:
                del self._replays[slot]
                self._went_on.append(slot)

    def speaking(self, stepped: Stepped) -> NDArray[np.int64]:
        """Return the rows of ``stepped`` whose token means something to the word assembler.

        Tokens of the first D - 1 steps do not, and padding does only while pieces wait for it.
        """
        is_heard = self._rows.model_steps[stepped.slots] >= self._delay
        is_word: NDArray[np.bool_] = is_heard & ((stepped.text != PADDING) | self._rows.has_pieces[stepped.slots])
        return np.flatnonzero(is_word)

    def settling(self, stepped: Stepped) -> NDArray[np.int64]:
        """Return the slots of ``stepped`` whose silence has ended or whose first waiting item may take effect.

        And those whose replay has ended since the last call: nothing took effect before.
        """
        rows, slots = self._rows, stepped.slots
        is_due = rows.next_frame[slots] - self._rings.count[slots] >= rows.barrier[slots]
        is_settling: NDArray[np.bool_] = (rows.silence[slots] == 0) & (stepped.is_silence | is_due)
        went_on, self._went_on = self._went_on, []
        return np.concatenate([slots[is_settling], np.array(went_on, np.int64)]) if went_on else slots[is_settling]


def nothing_stepped(facts: ModelFacts) -> Stepped:
    """Return a step without rows: what to build a block of events alone from."""
    return Stepped(
        slots=np.zeros(0, np.int64),
        frames=np.zeros(0, np.int64),
        is_silence=np.zeros(0, np.bool_),
        text=np.zeros(0, np.int64),
        codes=np.zeros((0, facts.n_codebooks), np.int64),
        pauses=np.zeros((0, facts.n_heads), np.float32),
    )


def build_block(rows: Rows, stepped: Stepped, chosen: NDArray[np.bool_], events: list[StepEvent]) -> StepBlock:
    """Return the ``chosen`` rows ``[n]`` of ``stepped`` and ``events`` as one block."""
    slots = stepped.slots[chosen]
    flags = np.where(stepped.is_silence[chosen], np.uint8(StepFlag.SILENCE), np.uint8(StepFlag.CLIENT))
    return StepBlock(
        sessions=rows.session[slots],
        epochs=rows.epoch[slots].astype(np.int32),
        frames=stepped.frames[chosen],
        steps=rows.client_steps[slots],
        flags=flags,
        text=stepped.text[chosen].astype(np.int32),
        codes=stepped.codes[chosen].astype(np.uint16),
        pauses=stepped.pauses[chosen].astype(np.float32, copy=False),
        events=tuple(events),
    )


def in_pieces(block: StepBlock) -> Iterator[StepBlock]:
    """Yield the block; if it has too many events for one message the rows with the first of them, then the others."""
    if len(block.events) <= MOST_EVENTS:
        yield block
        return
    yield replace(block, events=block.events[:MOST_EVENTS])
    no_rows = replace(
        block,
        sessions=block.sessions[:0],
        epochs=block.epochs[:0],
        frames=block.frames[:0],
        steps=block.steps[:0],
        flags=block.flags[:0],
        text=block.text[:0],
        codes=block.codes[:0],
        pauses=block.pauses[:0],
    )
    for begin in range(MOST_EVENTS, len(block.events), MOST_EVENTS):
        yield replace(no_rows, events=block.events[begin : begin + MOST_EVENTS])
