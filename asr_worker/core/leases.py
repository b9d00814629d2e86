"""Sessions in slots: everything that begins and ends with a lease, begun and ended in one place."""

from collections.abc import Callable
from functools import partial

import numpy as np

from asr_worker.core.gateways import Gateway
from asr_worker.core.markers import MarkerHeap
from asr_worker.core.model import ModelFacts
from asr_worker.core.pcm import PcmRings
from asr_worker.core.replay import Replay
from asr_worker.core.rows import Rows
from asr_worker.core.slots import Lease, SlotAllocator
from asr_worker.core.stream import Item, Stream
from asr_worker.core.words import MAX_PIECES, WordAssembler
from shared.errors import LinkError
from shared.messages import Marker, Open, ResumeLog, SessionKind
from shared.units import MAX_PENDING_MARKERS, Epoch, FrameIndex, SessionId, SlotIndex


class Leases:
    """The leases of all slots and what belongs to each: columns, audio, markers, stream."""

    def __init__(self, *, facts: ModelFacts, window_frames: int, detokenize: Callable[[list[int]], str]) -> None:
        self.allocator = SlotAllocator(facts.n_slots)
        self.rows = Rows(facts.n_slots)
        self.rings = PcmRings(facts.n_slots, window_frames)
        self.markers: MarkerHeap[Marker] = MarkerHeap(facts.n_slots)
        self.replays: dict[SlotIndex, Replay] = {}
        """Of slots whose sessions another worker had, until its last steps are repeated."""
        self.unsettled: dict[SlotIndex, None] = {}
        """Slots that an item reached since they were last settled, in order."""
        self._delay = facts.delay_frames
        self._new_words = partial(WordAssembler, detokenize, most_pieces=1 if facts.whole_words else MAX_PIECES)
        self._leases: dict[SlotIndex, Lease] = {}
        self._streams: dict[SlotIndex, Stream] = {}

    @property
    def n_files(self) -> int:
        """Leases of FILE sessions."""
        return sum(stream.kind is SessionKind.FILE for stream in self._streams.values())

    def open(self, gateway: Gateway, message: Open) -> SlotIndex | None:
        """Lease a slot to the session of ``message``; None if there is none."""
        lease = self.allocator.acquire()
        if lease is None:
            return None
        slot = lease.slot
        self._leases[slot] = lease
        self.rows.session[slot] = message.session
        self.rows.epoch[slot] = message.epoch
        self.rows.gateway[slot] = gateway.number
        self.rows.is_live[slot] = message.kind is SessionKind.LIVE
        gateway.add(message.session, slot)
        self._begin(slot, message.kind, message.first_frame, message.silence_prefix_frames, message.resume)
        return slot

    def restart(self, slot: SlotIndex, first_frame: FrameIndex) -> None:
        """Begin the session of ``slot`` afresh: nothing that waits or is under way for it counts any more."""
        self._leases[slot] = self.allocator.renew(self._leases[slot])
        stream = self._streams[slot]
        self._begin(slot, stream.kind, first_frame, stream.prefix_frames)

    def end(self, gateway: Gateway, slot: SlotIndex) -> None:
        """Free ``slot``."""
        gateway.remove(self.session_of(slot))
        self.allocator.release(self._leases.pop(slot))
        del self._streams[slot]
        self.rows.free(slot)
        self.rings.clear(slot)
        self.markers.drop(slot)
        self.replays.pop(slot, None)
        self.unsettled.pop(slot, None)

    def push(self, slot: SlotIndex, item: Item) -> None:
        """Let ``item`` wait for its place in the session of ``slot``.

        Raises:
            LinkError: too many wait.
        """
        stream = self._streams[slot]
        if isinstance(item, Marker) and stream.waiting_markers + self.markers.pending(slot) >= MAX_PENDING_MARKERS:
            message = f"{MAX_PENDING_MARKERS} markers of one session are pending already"
            raise LinkError(message)
        stream.push(item)
        self.unsettled[slot] = None

    def stream(self, slot: SlotIndex) -> Stream:
        """Return the stream of a leased slot."""
        return self._streams[slot]

    def session_of(self, slot: SlotIndex) -> SessionId:
        """Return the session that holds ``slot``."""
        return SessionId(int(self.rows.session[slot]))

    def epoch_of(self, slot: SlotIndex) -> Epoch:
        """Return the epoch of the session that holds ``slot``."""
        return Epoch(int(self.rows.epoch[slot]))

    def _begin(
        self,
        slot: SlotIndex,
        kind: SessionKind,
        first_frame: FrameIndex,
        prefix_frames: int,
        resume: ResumeLog | None = None,
    ) -> None:
        self.rings.clear(slot)
        self.markers.drop(slot)
        self.replays.pop(slot, None)
        self.unsettled.pop(slot, None)
        if resume is not None and len(resume.text):
            self.replays[slot] = Replay(slot, resume)
        self._streams[slot] = Stream(
            slot=slot,
            rows=self.rows,
            kind=kind,
            first_frame=first_frame,
            prefix_frames=prefix_frames,
            delay=self._delay,
            new_words=self._new_words,
            resume=resume,
        )

    def check(self) -> None:
        """Assert that slots, columns and streams agree: what tests and a debugging operator ask."""
        leased = set(self._leases)
        assert leased == set(self._streams)
        assert leased == set(np.flatnonzero(self.rows.is_leased).tolist())
        assert len(leased) == self.allocator.n_used
        assert all(self.allocator.is_current(lease) for lease in self._leases.values())
        assert not self.rings.count[~self.rows.is_leased].any(), "audio of a free slot"
        assert set(self.unsettled) <= leased
        assert set(self.replays) == set(np.flatnonzero(self.rows.is_leased & (self.rows.replay > 0)).tolist())
        assert all(self.markers.pending(SlotIndex(slot)) == 0 for slot in np.flatnonzero(~self.rows.is_leased).tolist())
        window = self.rings.window
        assert (self.rings.count[list(leased)] <= self.rows.unacknowledged[list(leased)]).all()
        assert (self.rows.unacknowledged[list(leased)] <= window).all()
