"""One stream of audio, from its first sample to its last word.

    WAITING ──grant──► STREAMING ──finish──► DRAINING ──Flushed──► CLOSED        any ──close──► CLOSED

The client's side calls ``receive_*``, the worker's side ``grant``, ``stepped`` and ``deliver``. What has to go to the
worker waits here until ``take`` moves it, and frames only move while the worker has granted credit: a client that
sends faster than the model steps fills this session, then ``may_read`` turns false and its socket is left unread.

    client audio ──► [ framer ] ──take, credit──► link ──► worker's ring ──stepped──► a Step, one credit back
                      <──────────── buffered_pcm counts all of this ────────────>

Markers, flushes and resets hold positions in that stream: they leave together with the frame before them. A client's
``Init`` jumps the queue instead and takes what waits with it; until the worker's Ready comes back, whatever the worker
still says is old and is dropped, so that nothing old can follow the second Ready.

Positions and frame indices count frames that were sent; what an Init dropped never had a number.
"""

from collections import deque
from dataclasses import replace
from enum import Enum, auto
from typing import Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from asr_gateway.core.credit import Credit
from asr_gateway.core.framer import Framer
from asr_gateway.core.limits import AudioAccount
from asr_gateway.core.outbound import Outbound
from shared.errors import BadMessageError, LinkError
from shared.messages import Close, EventKind, Flush, Marker, Open, Reset, SessionKind, StepEvent
from shared.units import FRAME_SAMPLES, MAX_PENDING_CONTROLS, MAX_PENDING_MARKERS, Epoch, FrameIndex, SessionId

_NO_EPOCH: Final = Epoch(0)


class SessionState(Enum):
    """Where a session stands; see the picture above."""

    WAITING = auto()
    STREAMING = auto()
    DRAINING = auto()
    CLOSED = auto()


class Session:
    """One client stream as the gateway knows it.

    Args:
        session_id: unique among all gateways.
        kind: who waits for the words.
        account: charged with the audio that waits here.
        silence_prefix_frames: silence that the worker feeds first.
    """

    __slots__ = (
        "_account", "_acknowledged", "_buffered_samples", "_controls", "_credit", "_framer", "_is_given_back",
        "_n_controls", "_n_early_inits", "_n_markers", "_n_restarts", "_next_frame", "_silence_prefix_frames",
        "_urgent", "epoch", "frames_stepped", "has_new_frame", "id", "is_output_full", "kind", "samples_received",
        "state",
    )  # fmt: skip

    def __init__(
        self, *, session_id: SessionId, kind: SessionKind, account: AudioAccount, silence_prefix_frames: int = 0
    ) -> None:
        self.id = session_id
        self.kind = kind
        self.epoch = _NO_EPOCH
        self.state = SessionState.WAITING
        self.is_output_full = False
        """Set by the shell while the client reads too slowly: no frame is sent that would make more output."""
        self.frames_stepped = 0
        """Client frames stepped in the whole life of the session."""
        self.samples_received = 0
        """Samples of the client in the whole life of the session."""
        self.has_new_frame = False
        """After ``receive_audio``: whether whole frames wait, so that ``take`` may have something to move."""
        self._silence_prefix_frames = silence_prefix_frames
        self._account = account
        self._framer = Framer()
        self._credit = Credit(1)
        self._next_frame = 0
        self._acknowledged = 0
        self._buffered_samples = 0
        self._controls: deque[Marker | Flush | Reset] = deque()
        self._urgent: deque[Reset] = deque()
        self._n_early_inits = 0
        self._n_restarts = 0
        self._n_markers = 0
        self._n_controls = 0
        # A file's session is CLOSED by its last word already, and still holds a slot then.
        self._is_given_back = False

    # --- from the client ----------------------------------------------------------------------------------

    def receive_audio(self, pcm: NDArray[np.float32]) -> bool:
        """Append samples ``[n]`` (24 kHz mono, in any byte order), which must not change afterwards: they are kept.

        Return ``may_read``.
        """
        assert self.state is not _DRAINING, "finish() promised that no more audio comes"
        n_samples = len(pcm)
        self.samples_received += n_samples
        self._buffered_samples += n_samples
        n_waiting = self._framer.push(pcm)
        self.has_new_frame = n_waiting >= FRAME_SAMPLES
        return n_waiting < self._account.guaranteed_samples or self._account.hold(n_waiting)

    def receive_marker(self, marker_id: int) -> None:
        """Ask for ``marker_id`` to be echoed once everything received so far is processed.

        Raises:
            BadMessageError: `MAX_PENDING_MARKERS` are pending already.
        """
        if self._n_markers == MAX_PENDING_MARKERS:
            message = f"Marker: {MAX_PENDING_MARKERS} markers are pending, no more are allowed"
            raise BadMessageError(message)
        self._n_markers += 1
        frame = self._position() + (self._framer.n_partial > 0)
        self._controls.append(Marker(session=self.id, epoch=_NO_EPOCH, id=marker_id, frame=FrameIndex(frame)))

    def receive_flush(self, flush_id: int | None) -> None:
        """Have the words of everything received so far brought out by silence that the server supplies.

        Raises:
            BadMessageError: 64 flushes and resets are under way already.
        """
        self._count_control("Flush")
        n_zeros = self._framer.pad()
        self._buffered_samples += n_zeros
        self._account.hold(self._framer.n_samples)
        frame = FrameIndex(self._position())
        self._controls.append(
            Flush(session=self.id, epoch=_NO_EPOCH, id=flush_id, frame=frame, pad_samples=n_zeros),
        )

    def receive_reset(self, reset_id: int | None) -> None:
        """Give the model a fresh state at this place in the stream; the time base goes on.

        A partial frame belongs to what comes after: there is no model step that could end in its middle.

        Raises:
            BadMessageError: 64 flushes and resets are under way already.
        """
        self._count_control("Reset")
        frame = FrameIndex(self._position())
        # Before a marker that counts the partial frame as whole: nobody needs to complete it to have the reset done.
        place = len(self._controls)
        while place and self._controls[place - 1].frame > frame:
            place -= 1
        reset = Reset(session=self.id, epoch=_NO_EPOCH, id=reset_id, restart=False, frame=frame)
        self._controls.insert(place, reset)

    def receive_init(self) -> None:
        """Start afresh: audio and requests not yet processed vanish, steps and times begin again, Ready answers.

        Raises:
            BadMessageError: 64 Inits are under way already.
        """
        if self._n_restarts + self._n_early_inits >= MAX_PENDING_CONTROLS:
            _refuse_control("Init", "Inits")
        self._framer.clear()
        self._account.hold(0)
        self._controls.clear()
        self._buffered_samples = 0
        self._n_markers = 0
        self._n_controls = 0
        if self.state is SessionState.WAITING:
            # The slot will be fresh when it is granted: nothing to tell the worker, only one more Ready to send.
            self._n_early_inits += 1
            return
        self._n_restarts += 1
        frame = FrameIndex(self._next_frame)
        self._urgent.append(Reset(session=self.id, epoch=self.epoch, id=None, restart=True, frame=frame))

    def finish(self) -> None:
        """The audio is complete: flush, and close when the last word is out."""
        assert self.state is SessionState.STREAMING, "only a session with a slot can be finished"
        self.receive_flush(None)
        self.state = SessionState.DRAINING

    def _count_control(self, name: str) -> None:
        if self._n_controls == MAX_PENDING_CONTROLS:
            _refuse_control(name, "flushes and resets")
        self._n_controls += 1

    def _position(self) -> int:
        return self._next_frame + self._framer.n_frames

    # --- for the client -----------------------------------------------------------------------------------

    @property
    def may_read(self) -> bool:
        """Whether more of the client's audio may be taken in; if not, leave its socket unread."""
        return self._account.may_read

    @property
    def is_busy(self) -> bool:
        """Whether an answer to a marker, flush, reset or Init is owed: a client may wait for it in silence."""
        return bool(self._n_markers or self._n_controls or self._n_restarts)

    # --- to the worker ------------------------------------------------------------------------------------

    def opening(self) -> Open:
        """Return the request for a slot; each one begins a new epoch."""
        assert self.state is SessionState.WAITING, "a session holds at most one slot"
        self.epoch = Epoch(self.epoch + 1)
        return Open(
            session=self.id,
            epoch=self.epoch,
            kind=self.kind,
            first_frame=FrameIndex(self._next_frame),
            silence_prefix_frames=self._silence_prefix_frames,
        )

    @property
    def can_send(self) -> bool:
        """Whether ``take`` would move anything now."""
        if self._urgent:
            return True
        if self._n_restarts or (self.state is not _STREAMING and self.state is not _DRAINING):
            return False
        if self._framer.n_frames and not self.is_output_full and self._credit.available:
            return True
        return bool(self._controls) and self._controls[0].frame <= self._next_frame

    def take(self, out: Outbound) -> None:
        """Move what may be sent now into ``out``: frames while there is credit, and the requests that stand there."""
        if self._urgent:
            out.controls.extend(self._urgent)
            self._urgent.clear()
        if self._n_restarts or (self.state is not _STREAMING and self.state is not _DRAINING):
            return
        framer, credit = self._framer, self._credit
        if framer.n_frames and not self.is_output_full:
            n_frames = framer.n_frames
            if n_frames > credit.available or n_frames > out.room:
                n_frames = min(credit.available, n_frames, out.room)
            if n_frames:
                out.add_frames(self.id, self.epoch, self._next_frame, framer.take(n_frames))
                credit.spend(n_frames)
                self._next_frame += n_frames
                if self._account.is_beyond:
                    self._account.hold(framer.n_samples)
        while self._controls and self._controls[0].frame <= self._next_frame:
            out.controls.append(replace(self._controls.popleft(), epoch=self.epoch))

    def close(self) -> Close | None:
        """End the session; return what to tell the worker, if one was ever asked for a slot."""
        was_given_back, self._is_given_back = self._is_given_back, True
        self.state = SessionState.CLOSED
        self._framer.clear()
        self._account.hold(0)
        self._controls.clear()
        self._urgent.clear()
        if was_given_back or self.epoch == _NO_EPOCH:
            return None
        return Close(session=self.id, epoch=self.epoch)

    # --- from the worker ----------------------------------------------------------------------------------

    def grant(self, window_frames: int) -> int:
        """The worker says Ready, for a slot or an Init; return how many Readys the client gets.

        Raises:
            LinkError: nothing was asked for.
        """
        n_readys = 1
        if self.state is SessionState.WAITING:
            n_readys += self._n_early_inits
            self._n_early_inits = 0
            self.state = SessionState.STREAMING
        elif self._n_restarts:
            self._n_restarts -= 1
        else:
            message = f"session {self.id}: Ready came without an Open or an Init"
            raise LinkError(message)
        # The frames that were on their way are gone, at both ends: the window is whole again.
        self._credit = Credit(window_frames)
        self._acknowledged = self._next_frame
        return n_readys

    def stepped(self, frame: int) -> int | None:
        """The model stepped the client's frame ``frame``; return ``buffered_pcm``, or None if that is old news.

        Raises:
            LinkError: another frame was due, or it was never sent.
        """
        if self._n_restarts or (self.state is not _STREAMING and self.state is not _DRAINING):
            return None
        if frame != self._acknowledged or frame >= self._next_frame:
            message = f"session {self.id}: frame {frame} was stepped, frame {self._acknowledged} was due"
            raise LinkError(message)
        self._acknowledged += 1
        self._credit.grant(1)
        self.frames_stepped += 1
        self._buffered_samples -= FRAME_SAMPLES
        return self._buffered_samples

    def deliver(self, event: StepEvent) -> bool:
        """Note what the worker says happened; return whether the client is to be told.

        Raises:
            LinkError: it answers something that was not asked.
        """
        if self._n_restarts or (self.state is not _STREAMING and self.state is not _DRAINING):
            return False
        match event.kind:
            case EventKind.WORD | EventKind.END_WORD:
                return True
            case EventKind.MARKER:
                self._n_markers -= 1
            case EventKind.FLUSHED:
                self._n_controls -= 1
                if self.state is SessionState.DRAINING and not self._n_controls:
                    self.state = SessionState.CLOSED
            case EventKind.RESET_DONE:
                self._n_controls -= 1
        if min(self._n_markers, self._n_controls) < 0:
            message = f"session {self.id}: {event.kind.name} with id {event.id} answers nothing"
            raise LinkError(message)
        return True


# A session in one of these holds a slot. A name of this module is found ten times as fast as a member of an enum.
_STREAMING: Final = SessionState.STREAMING
_DRAINING: Final = SessionState.DRAINING


def _refuse_control(name: str, kinds: str) -> NoReturn:
    message = f"{name}: {MAX_PENDING_CONTROLS} {kinds} are under way, no more are allowed"
    raise BadMessageError(message)
