"""A step's result -> one block for each gateway: columns for all its rows, then the words, markers and answers.

For each session the events of a step come in this order: words, markers that the step made due, then what waited for
the step (a flush that has finished, a reset, a marker behind a flush).
"""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from asr_worker.core.batch import Batch, Stepped, build_block, nothing_stepped
from asr_worker.core.leases import Leases
from asr_worker.core.model import ModelFacts, StepResult
from asr_worker.core.stream import Flushed, MarkerPassed, ResetDone
from asr_worker.core.words import WordEnded, WordEvent, WordSaid
from shared.messages import EventKind, Marker, StepBlock, StepEvent
from shared.units import Epoch, SlotIndex

_Events = defaultdict[int, list[StepEvent]]


class Results:
    """Turns results into blocks, keyed by gateway number. ``steps`` are all steps of the worker."""

    def __init__(self, *, facts: ModelFacts, leases: Leases, batch: Batch) -> None:
        self.steps = 0
        self._facts = facts
        self._leases = leases
        self._batch = batch

    def spread(self, result: StepResult) -> dict[int, StepBlock]:
        """Return the blocks of the step that was planned last."""
        self.steps += 1
        stepped = self._batch.spread(result)
        events: _Events = defaultdict(list)
        self._hear(stepped, self._batch.speaking(stepped), events)
        steps = self._leases.rows.lease_steps
        for slot, marker in self._leases.markers.pop_due(stepped.slots, steps, self.steps):
            self._emit(slot, EventKind.MARKER, events, id=marker.id)
        for slot in self._batch.settling(stepped):
            self._leases.unsettled[SlotIndex(int(slot))] = None
        self._settle(events)
        return self._blocks(stepped, events)

    def settle(self) -> dict[int, StepBlock]:
        """Return blocks of what takes effect without a step. No step may be under way."""
        events: _Events = defaultdict(list)
        self._settle(events)
        return self._blocks(nothing_stepped(self._facts), events) if events else {}

    def _hear(self, stepped: Stepped, speaking: NDArray[np.int64], events: _Events) -> None:
        """Feed the tokens of the rows ``speaking`` to their words: half of all rows, if everybody talks."""
        rows, slots = self._leases.rows, stepped.slots[speaking]
        positions = rows.lease_steps[slots] - self._facts.delay_frames
        has_pieces = []
        for slot, token, position in zip(
            map(SlotIndex, slots.tolist()), stepped.text[speaking].tolist(), positions.tolist(), strict=True
        ):
            stream = self._leases.stream(slot)
            for event in stream.words.feed(token, stream.clock.time_s(position)):
                self._emit_word(slot, event, events)
            has_pieces.append(stream.words.has_pieces)
        rows.has_pieces[slots] = has_pieces

    def _settle(self, events: _Events) -> None:
        unsettled, self._leases.unsettled = self._leases.unsettled, {}
        for slot in unsettled:
            for settled in self._leases.stream(slot).settle(int(self._leases.rings.count[slot])):
                match settled:
                    case MarkerPassed(marker=marker, due=due):
                        self._await_marker(slot, marker, due, events)
                    case Flushed(id=answer):
                        self._emit(slot, EventKind.FLUSHED, events, id=answer)
                    case ResetDone(id=answer):
                        self._emit(slot, EventKind.RESET_DONE, events, id=answer)

    def _await_marker(self, slot: SlotIndex, marker: Marker, due: int, events: _Events) -> None:
        steps = int(self._leases.rows.lease_steps[slot])
        if due <= steps:
            self._emit(slot, EventKind.MARKER, events, id=marker.id)
        else:
            self._leases.markers.push(slot, due, marker, steps=steps, worker_step=self.steps)

    def _emit_word(self, slot: SlotIndex, event: WordEvent, events: _Events) -> None:
        match event:
            case WordSaid(text=text, start_s=start_s):
                self._emit(slot, EventKind.WORD, events, time_s=start_s, text=text)
            case WordEnded(stop_s=stop_s):
                self._emit(slot, EventKind.END_WORD, events, time_s=stop_s)

    def _emit(
        self,
        slot: SlotIndex,
        kind: EventKind,
        events: _Events,
        *,
        time_s: float = 0.0,
        text: str = "",
        id: int | None = None,  # noqa: A002  (the name of the message's field)
    ) -> None:
        session, epoch = self._leases.session_of(slot), Epoch(self._leases.epoch_of(slot))
        gateway = int(self._leases.rows.gateway[slot])
        events[gateway].append(StepEvent(session, epoch, kind, time_s=time_s, text=text, id=id))

    def _blocks(self, stepped: Stepped, events: _Events) -> dict[int, StepBlock]:
        gateways = self._leases.rows.gateway[stepped.slots]
        return {
            gateway: build_block(self._leases.rows, stepped, gateways == gateway, events.get(gateway, []))
            for gateway in sorted({*gateways.tolist(), *events})
        }
