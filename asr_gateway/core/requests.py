"""What a client has asked for and not been told yet: markers, flushes and resets, each at its place in the audio.

add ──► waiting: until the frame before it is sent ──take──► sent: until the worker says it is done ──answered──►
           ▲                                                      │
           '──────────────── put_back: that worker is lost ◄──────'
"""

from collections import deque
from dataclasses import replace
from typing import Final, TypeAlias

from shared.errors import BadMessageError, LinkError
from shared.messages import EventKind, Flush, Marker, Reset, StepEvent
from shared.units import MAX_PENDING_CONTROLS, MAX_PENDING_MARKERS, Epoch, FrameIndex, SessionId

Request: TypeAlias = Marker | Flush | Reset

_NO_EPOCH: Final = Epoch(0)
_ANSWERED: Final = {EventKind.MARKER: Marker, EventKind.FLUSHED: Flush, EventKind.RESET_DONE: Reset}


class Requests:
    """The requests of one session."""

    __slots__ = ("_n_controls", "_n_markers", "_sent", "_session", "_waiting")

    def __init__(self, session: SessionId) -> None:
        self._session = session
        self._waiting: deque[Request] = deque()
        self._sent: deque[Request] = deque()
        self._n_markers = 0
        self._n_controls = 0

    @property
    def is_pending(self) -> bool:
        """Whether an answer is owed."""
        return bool(self._n_markers or self._n_controls)

    # --- from the client ----------------------------------------------------------------------------------

    def add_marker(self, marker_id: int, frame: int) -> None:
        """Let a marker wait; ``frame`` is the first behind it.

        Raises:
            BadMessageError: `MAX_PENDING_MARKERS` are pending already.
        """
        if self._n_markers == MAX_PENDING_MARKERS:
            message = f"Marker: {MAX_PENDING_MARKERS} markers are pending, no more are allowed"
            raise BadMessageError(message)
        self._n_markers += 1
        self._waiting.append(Marker(session=self._session, epoch=_NO_EPOCH, id=marker_id, frame=FrameIndex(frame)))

    def count_control(self, name: str) -> None:
        """Count a flush or a reset, before anything is done for it.

        Raises:
            BadMessageError: `MAX_PENDING_CONTROLS` are under way already.
        """
        check_controls(name, "flushes and resets", self._n_controls)
        self._n_controls += 1

    def add_flush(self, flush_id: int | None, frame: int, pad_samples: int) -> None:
        """Let a flush that was counted wait; the frame before ``frame`` ends with ``pad_samples`` zeros."""
        self._waiting.append(
            Flush(session=self._session, epoch=_NO_EPOCH, id=flush_id, frame=FrameIndex(frame), pad_samples=pad_samples)
        )

    def add_reset(self, reset_id: int | None, frame: int) -> None:
        """Let a reset that was counted wait in front of ``frame``, whose first samples may have come.

        It goes before a marker that counts this frame as whole: nobody needs to complete it to have the reset done.
        """
        place = len(self._waiting)
        while place and self._waiting[place - 1].frame > frame:
            place -= 1
        reset = Reset(session=self._session, epoch=_NO_EPOCH, id=reset_id, restart=False, frame=FrameIndex(frame))
        self._waiting.insert(place, reset)

    # --- to and from the worker ---------------------------------------------------------------------------

    def is_due(self, next_frame: int) -> bool:
        """Return whether ``take`` would return anything."""
        return bool(self._waiting) and self._waiting[0].frame <= next_frame

    def take(self, next_frame: int, epoch: Epoch) -> list[Request]:
        """Return what stands before ``next_frame``, the first frame that is not sent, to be sent in ``epoch``."""
        taken: list[Request] = []
        while self.is_due(next_frame):
            taken.append(replace(self._waiting.popleft(), epoch=epoch))
        self._sent.extend(taken)
        return taken

    def answered(self, event: StepEvent) -> None:
        """The worker has done what was asked.

        Raises:
            LinkError: it was not asked.
        """
        kind = _ANSWERED[event.kind]
        request = next((sent for sent in self._sent if type(sent) is kind and sent.id == event.id), None)
        if request is None:
            message = f"session {self._session}: {event.kind.name} with id {event.id} answers nothing"
            raise LinkError(message)
        self._sent.remove(request)
        if kind is Marker:
            self._n_markers -= 1
        else:
            self._n_controls -= 1

    def put_back(self) -> None:
        """The worker that was sent something is gone: all that it has not done waits again."""
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()

    def clear(self) -> None:
        """Nothing is asked any more."""
        self._waiting.clear()
        self._sent.clear()
        self._n_markers = self._n_controls = 0


def check_controls(name: str, kinds: str, n_pending: int) -> None:
    """See to it that one more control may be under way.

    Raises:
        BadMessageError: too many are.
    """
    if n_pending >= MAX_PENDING_CONTROLS:
        message = f"{name}: {MAX_PENDING_CONTROLS} {kinds} are under way, no more are allowed"
        raise BadMessageError(message)
