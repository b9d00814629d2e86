"""A session with its two ends: the listener that has the client, and the link to the worker that holds the slot."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asr_gateway.core.dialect import PackPauses
from asr_gateway.core.session import Session
from asr_gateway.io.worker_link import WorkerLink
from shared.errors import AsrError
from shared.messages import StepEvent


class Listener(Protocol):
    """The client's side of a stream. No method may raise."""

    @property
    def pack_pauses(self) -> PackPauses | None:
        """How to encode pauses; None: ``step`` shall not be called."""
        ...

    def ready(self) -> None:
        """The session has a slot whose state is fresh."""
        ...

    def step(self, step_idx: int, packed_pauses: bytes, buffered_pcm: int) -> None:
        """One frame was processed by a model with pause heads."""
        ...

    def event(self, event: StepEvent) -> None:
        """A word, the end of one, or an answer."""
        ...

    def has_room(self) -> None:
        """The session can take in audio again."""
        ...

    def told(self) -> None:
        """All that one step of the model brought was said: time to pass it on."""
        ...

    def ended(self, error: AsrError) -> None:
        """The session is over, and it was not the client who closed it."""
        ...


class Stream:
    """What a listener holds: everything that its client may do.

    The methods raise BadMessageError where the session does (too many requests under way).
    """

    __slots__ = ("delay_frames", "is_starved", "link", "listener", "session", "worker")

    def __init__(self, *, session: Session, listener: Listener) -> None:
        self.session = session
        self.listener = listener
        self.link: WorkerLink | None = None
        """The worker that was asked for a slot, or has given one."""
        self.worker = ""
        """What that worker called itself then: another may be behind the link when the session ends."""
        self.delay_frames = 0
        """How late that worker's model speaks."""
        self.is_starved = False
        """The listener was told to stop reading and waits for ``has_room``."""

    def place(self) -> dict[str, int | str]:
        """Return what lines of the log say of where the session was: its id, and the worker if one was asked."""
        session: dict[str, int | str] = {"session": self.session.id}
        return {**session, "worker": self.worker} if self.worker else session

    def audio(self, pcm: NDArray[np.float32]) -> bool:
        """Append samples; return whether more may be read, else ``has_room`` will be called."""
        session = self.session
        may_read = session.receive_audio(pcm)
        if session.has_new_frame and self.link is not None:
            self.link.wake(session)
        self.is_starved = not may_read
        return may_read

    def may_read(self) -> bool:
        """Return whether more may be read, else ``has_room`` will be called."""
        self.is_starved = not self.session.may_read
        return not self.is_starved

    def marker(self, marker_id: int) -> None:
        """Ask for an echo."""
        self.session.receive_marker(marker_id)
        self.wake()

    def flush(self, flush_id: int | None) -> None:
        """Have the last words brought out."""
        self.session.receive_flush(flush_id)
        self.wake()

    def reset(self, reset_id: int | None) -> None:
        """Give the model a fresh state."""
        self.session.receive_reset(reset_id)
        self.wake()

    def init(self) -> None:
        """Start afresh."""
        self.session.receive_init()
        self.wake()

    def finish(self) -> None:
        """Say that the audio is complete."""
        self.session.finish()
        self.wake()

    def fill_output(self, *, is_full: bool) -> None:
        """Say whether the client is behind with reading: no frame is sent that would make more output."""
        self.session.is_output_full = is_full
        self.wake()

    def wake(self) -> None:
        """Have the link send what may be sent."""
        if self.link is not None and self.session.can_send:
            self.link.wake(self.session)
