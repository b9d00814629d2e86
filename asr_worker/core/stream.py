"""One lease: what its session has asked for, and where in its audio that takes effect.

Frames wait in a ring; markers, flushes and resets wait here, each at the frame that it must not overtake. ``settle`` is
called between two steps. It takes what has become due and says what the client must be told:

    frames   0 1 2 3 │ 4 5 6 │ 7 8          a marker takes effect once frame 3 was stepped, a flush after frame 6;
                   marker   flush           frames 7 and 8 wait until the flush is finished

A flush feeds D frames of silence, then up to 12 more while a word is open; a silence prefix is a flush that nobody
asked for. A session that another worker had begins with its last steps (``replay.py``): nothing takes effect until they
have been repeated. Numbers live in the columns of ``Rows``; this object reads and writes its own entries.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from asr_worker.core.clock import ClientClock
from asr_worker.core.rows import FAR, Rows
from asr_worker.core.words import WordAssembler
from shared.errors import LinkError
from shared.messages import Flush, Marker, Reset, ResumeLog, SessionKind, StepFlag
from shared.units import FRAME_SAMPLES, MAX_PENDING_CONTROLS, MAX_PENDING_MARKERS, SAMPLE_RATE, SlotIndex

EXTRA_SILENCE_FRAMES: Final = 12
"""How long a flush waits for the end of an open word beyond the delay: about a second."""

MAX_WAITING_ITEMS: Final = MAX_PENDING_MARKERS + MAX_PENDING_CONTROLS
"""Markers, flushes and resets of one lease that have not taken effect."""

Item: TypeAlias = Marker | Flush | Reset


@dataclass(frozen=True, slots=True)
class MarkerPassed:
    """The marker's frames were stepped; it is due when the lease has made ``due`` steps."""

    marker: Marker
    due: int


@dataclass(frozen=True, slots=True)
class Flushed:
    """The silence of a flush has passed."""

    id: int | None


@dataclass(frozen=True, slots=True)
class ResetDone:
    """The model's state is fresh; the session's time goes on."""

    id: int | None


Settled: TypeAlias = MarkerPassed | Flushed | ResetDone


class Stream:
    """What one lease holds besides its frames.

    ``delay`` is D, ``prefix_frames`` the silence that is fed first, unless the session goes on where ``resume`` ends.
    """

    def __init__(
        self,
        *,
        slot: SlotIndex,
        rows: Rows,
        kind: SessionKind,
        first_frame: int,
        prefix_frames: int,
        delay: int,
        new_words: Callable[[float], WordAssembler],
        resume: ResumeLog | None = None,
    ) -> None:
        self.slot = slot
        self.kind = kind
        self.prefix_frames = prefix_frames
        self.words = new_words(0.0)
        self.clock = ClientClock(delay)
        self._rows = rows
        self._delay = delay
        self._new_words = new_words
        self._items: deque[Item] = deque()
        self._flush: Flush | None = None
        self._extra_frames = 0
        self._is_paused = False
        self._first_frame = first_frame
        self._fed_silence = 0
        self._past_frames = np.zeros(0, np.int64)
        rows.start(slot, first_frame)
        if resume is not None:
            self._go_on(resume)
        elif prefix_frames:
            self._feed_silence(prefix_frames)

    @property
    def waiting_markers(self) -> int:
        """Markers that have not taken effect."""
        return sum(isinstance(item, Marker) for item in self._items)

    def push(self, item: Item) -> None:
        """Let ``item`` wait for its place: behind all that come no later in the stream.

        A marker counts the partial frame before it as whole, a reset does not: the reset may come second and go first.

        Raises:
            LinkError: too many wait.
        """
        if len(self._items) == MAX_WAITING_ITEMS:
            message = f"{MAX_WAITING_ITEMS} markers, flushes and resets of one session wait already"
            raise LinkError(message)
        place = len(self._items)
        while place and self._items[place - 1].frame > item.frame:
            place -= 1
        self._items.insert(place, item)
        self._rows.barrier[self.slot] = self._items[0].frame

    def settle(self, waiting_frames: int) -> list[Settled]:
        """Let everything take effect that nothing precedes any more; ``waiting_frames`` frames are in the ring.

        No step may be under way for this lease.
        """
        settled: list[Settled] = []
        if self._rows.replay[self.slot]:
            return settled
        next_frame = int(self._rows.next_frame[self.slot]) - waiting_frames
        while not self._rows.silence[self.slot]:
            if self._is_paused:
                settled += self._end_silence()
            elif self._items and self._items[0].frame <= next_frame:
                settled += self._apply(self._items.popleft())
            else:
                break
        self._rows.barrier[self.slot] = self._items[0].frame if self._items else FAR
        return settled

    def _apply(self, item: Item) -> list[Settled]:
        match item:
            case Marker():
                return [MarkerPassed(item, self._last_step_before(item.frame) + self._delay)]
            case Flush():
                fed, self._fed_silence = self._fed_silence, 0
                self._flush = item
                self._extra_frames = max(0, EXTRA_SILENCE_FRAMES - max(0, fed - self._delay))
                # The lost worker has counted the padding if it has fed any silence.
                self._feed_silence(max(0, self._delay - fed), 0 if fed else item.pad_samples)
                return []
            case Reset():
                position = int(self._rows.lease_steps[self.slot])
                self.words = self._new_words(self.clock.time_s(position))
                self._rows.model_steps[self.slot] = 0
                self._rows.has_pieces[self.slot] = False
                self._rows.is_fresh[self.slot] = True
                return [ResetDone(item.id)]

    def _go_on(self, log: ResumeLog) -> None:
        """Take over what another worker's steps had brought about, but for the model's state."""
        slot, n_steps = self.slot, len(log.text)
        self._rows.replay[slot] = n_steps
        self._rows.client_steps[slot] = log.steps
        self._fed_silence = log.silence
        self._past_frames = np.where(log.flags == StepFlag.CLIENT, log.frames, FAR)
        self.clock = ClientClock(self._delay, log.times)
        # Tokens before the delay has passed mean nothing, unless there were steps before those of the log: then they
        # speak of moments before it.
        self.words = self._new_words(int(log.times[0]) / SAMPLE_RATE if log.is_whole else log.last_end_s)
        for step in range(max(1, self._delay) if log.is_whole else 1, n_steps + 1):
            before = min(0, step - self._delay) * FRAME_SAMPLES
            samples = max(0, int(log.times[max(0, step - self._delay)]) + before)
            self.words.feed(int(log.text[step - 1]), samples / SAMPLE_RATE)
        self.words.take_over(is_said=log.is_word_open)
        self._rows.has_pieces[slot] = self.words.has_pieces

    def _last_step_before(self, frame: int) -> int:
        """Return at which of the lease's steps the frame before ``frame`` was stepped.

        Below 1 if that was before all that the lease repeats, which a reset may have made little: so many steps before
        it at least, for silence between the frames is not known.
        """
        if frame >= self._first_frame:
            return int(self._rows.last_client_step[self.slot])
        at = np.flatnonzero(self._past_frames < frame)
        if len(at):
            return int(at[-1]) + 1
        return frame - min(self._first_frame, int(self._past_frames.min(initial=FAR)))

    def _feed_silence(self, n_frames: int, pad_samples: int = 0) -> None:
        self.clock.pause(int(self._rows.lease_steps[self.slot]), pad_samples)
        self._is_paused = True
        self._rows.silence[self.slot] = n_frames

    def _end_silence(self) -> list[Settled]:
        if self._flush is not None and self.words.is_open and self._extra_frames:
            self._extra_frames -= 1
            self._rows.silence[self.slot] = 1
            return []
        position = int(self._rows.lease_steps[self.slot])
        self.clock.resume(position)
        self._is_paused = False
        if self._flush is None:
            # A marker that came before any audio counts its delay from where the client's time begins.
            self._rows.last_client_step[self.slot] = position
            return []
        flushed, self._flush = Flushed(self._flush.id), None
        return [flushed]
