"""One stream of audio, from its first sample to its last word.

    WAITING ──grant──► STREAMING ──finish──► DRAINING ──Flushed──► CLOSED        any ──close──► CLOSED
                          │ ▲                  │ ▲
                     lose ▼ │ grant       lose ▼ │ grant
                         MOVING               MOVING

The client's side calls ``receive_*``, the worker's side ``grant``, ``stepped`` and ``deliver``. What has to go to the
worker waits here until ``take`` moves it, and frames only move while the worker has granted credit: a client that
sends faster than the model steps fills this session, then ``may_read`` turns false and its socket is left unread.

    client audio ──► [ framer ] ──take, credit──► link ──► worker's ring ──stepped──► a Step, one credit back
                      <──────────── buffered_pcm counts all of this ────────────>

Markers, flushes and resets hold positions in that stream: they leave together with the frame before them. A client's
``Init`` jumps the queue instead and takes what waits with it; until the worker's Ready comes back, whatever the worker
still says is old and is dropped, so that nothing old can follow the second Ready.

Positions and frame indices count frames that were sent; what an Init dropped never had a number.

A session whose worker is lost waits for another one with what the first has not answered (``replay.py``). Its client
is not told.
"""

from collections import deque
from dataclasses import replace
from enum import Enum, auto
from typing import Final

import numpy as np
from numpy.typing import NDArray

from asr_gateway.core.credit import Credit
from asr_gateway.core.framer import Framer
from asr_gateway.core.limits import AudioAccount
from asr_gateway.core.outbound import Outbound
from asr_gateway.core.replay import ReplayLog, StepRecord
from asr_gateway.core.requests import Requests, check_controls
from shared.errors import LinkError
from shared.messages import Close, EventKind, Open, Reset, SessionKind, StepEvent, StepFlag
from shared.units import FRAME_SAMPLES, Epoch, FrameIndex, SessionId

_NO_EPOCH: Final = Epoch(0)
_CLIENT: Final = int(StepFlag.CLIENT)


class SessionState(Enum):
    """Where a session stands; see the picture above."""

    WAITING = auto()
    STREAMING = auto()
    DRAINING = auto()
    MOVING = auto()
    CLOSED = auto()


class Session:
    """One client stream as the gateway knows it.

    Args:
        session_id: unique among all gateways.
        kind: who waits for the words.
        account: charged with the audio that waits here.
        silence_prefix_frames: silence that the worker feeds first.
        replay: filled as long as a worker has the session.
    """

    __slots__ = (
        "_account", "_acknowledged", "_buffered_samples", "_credit", "_framer", "_is_finished", "_is_given_back",
        "_n_early_inits", "_n_restarts", "_newest_epoch", "_next_frame", "_requests", "_silence_prefix_frames",
        "_urgent", "epoch", "frames_stepped", "has_new_frame", "id", "is_output_full", "kind", "replay",
        "samples_received", "state",
    )  # fmt: skip

    def __init__(
        self,
        *,
        session_id: SessionId,
        kind: SessionKind,
        account: AudioAccount,
        silence_prefix_frames: int = 0,
        replay: ReplayLog | None = None,
    ) -> None:
        self.id = session_id
        self.kind = kind
        self.epoch = _NO_EPOCH
        """Of the slot that it has, or was last asked for."""
        self._newest_epoch = 0
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
        self.replay = replay
        """What another worker would need; None: the session ends with its worker."""
        self._framer = Framer()
        self._credit = Credit(1)
        self._next_frame = 0
        self._acknowledged = 0
        self._buffered_samples = 0
        self._requests = Requests(session_id)
        self._urgent: deque[Reset] = deque()
        self._n_early_inits = 0
        self._n_restarts = 0
        self._is_finished = False
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
        self._requests.add_marker(marker_id, self._position() + (self._framer.n_partial > 0))

    def receive_flush(self, flush_id: int | None) -> None:
        """Have the words of everything received so far brought out by silence that the server supplies.

        Raises:
            BadMessageError: 64 flushes and resets are under way already.
        """
        self._requests.count_control("Flush")
        n_zeros = self._framer.pad()
        self._buffered_samples += n_zeros
        self._account.hold(self._framer.n_samples)
        frame = self._position()
        if self.replay is not None:
            self.replay.pad(frame, n_zeros)
        self._requests.add_flush(flush_id, frame, n_zeros)

    def receive_reset(self, reset_id: int | None) -> None:
        """Give the model a fresh state at this place in the stream; the time base goes on.

        A partial frame belongs to what comes after: there is no model step that could end in its middle.

        Raises:
            BadMessageError: 64 flushes and resets are under way already.
        """
        self._requests.count_control("Reset")
        self._requests.add_reset(reset_id, self._position())

    def receive_init(self) -> None:
        """Start afresh: audio and requests not yet processed vanish, steps and times begin again, Ready answers.

        Raises:
            BadMessageError: 64 Inits are under way already.
        """
        check_controls("Init", "Inits", self._n_restarts + self._n_early_inits)
        self._framer.clear()
        self._account.hold(0)
        self._requests.clear()
        self._buffered_samples = 0
        if self.replay is not None:
            self.replay.restart()
        if self.state is SessionState.WAITING:
            # The slot will be fresh when it is granted: nothing to tell the worker, only one more Ready to send.
            self._n_early_inits += 1
            return
        self._n_restarts += 1
        self._ask_for_restart()

    def _ask_for_restart(self) -> None:
        frame = FrameIndex(self._next_frame)
        self._urgent.append(Reset(session=self.id, epoch=self.epoch, id=None, restart=True, frame=frame))

    def finish(self) -> None:
        """The audio is complete: flush, and close when the last word is out."""
        assert self.state in (_STREAMING, SessionState.MOVING), "only a session that had a slot can be finished"
        self.receive_flush(None)
        self._is_finished = True
        if self.state is _STREAMING:
            self.state = _DRAINING

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
        return bool(self._n_restarts) or self._requests.is_pending

    # --- to the worker ------------------------------------------------------------------------------------

    def opening(self) -> Open:
        """Return the request for a slot; each one begins a new epoch."""
        is_moving = self.state is SessionState.MOVING
        assert is_moving or self.state is SessionState.WAITING, "a session holds at most one slot"
        self.epoch = self._next_epoch()
        resume = None
        if is_moving and self.replay is not None:
            resume = self.replay.resume(has_prefix=self._silence_prefix_frames > 0)
        return Open(
            session=self.id,
            epoch=self.epoch,
            kind=self.kind,
            first_frame=FrameIndex(self._next_frame),
            silence_prefix_frames=self._silence_prefix_frames,
            resume=resume,
        )

    def reservation(self) -> Open:
        """Return the request for a slot of another worker, for a session that goes on where it is until it has it."""
        return Open(session=self.id, epoch=self._next_epoch(), kind=self.kind, first_frame=FrameIndex(self._next_frame))

    @property
    def reserved_epoch(self) -> int:
        """Of the last ``reservation``, if none was opened since; else 0."""
        return self._newest_epoch if self._newest_epoch > self.epoch else 0

    def _next_epoch(self) -> Epoch:
        self._newest_epoch += 1
        return Epoch(self._newest_epoch)

    @property
    def can_send(self) -> bool:
        """Whether ``take`` would move anything now."""
        if self._urgent and self.state is not SessionState.MOVING:
            return True
        if self._n_restarts or (self.state is not _STREAMING and self.state is not _DRAINING):
            return False
        if self._framer.n_frames and not self.is_output_full and self._credit.available:
            return True
        return self._requests.is_due(self._next_frame)

    def take(self, out: Outbound) -> None:
        """Move what may be sent now into ``out``: frames while there is credit, and the requests that stand there."""
        if self._urgent and self.state is not SessionState.MOVING:
            out.controls.extend(replace(reset, epoch=self.epoch) for reset in self._urgent)
            self._urgent.clear()
        if self._n_restarts or (self.state is not _STREAMING and self.state is not _DRAINING):
            return
        framer, credit = self._framer, self._credit
        if framer.n_frames and not self.is_output_full:
            n_frames = framer.n_frames
            if n_frames > credit.available or n_frames > out.room:
                n_frames = min(credit.available, n_frames, out.room)
            if n_frames:
                pieces = framer.take(n_frames)
                out.add_frames(self.id, self.epoch, self._next_frame, pieces)
                credit.spend(n_frames)
                self._next_frame += n_frames
                if self.replay is not None:
                    n_unacknowledged = self._next_frame - self._acknowledged
                    self.replay.keep(pieces, n_frames=n_frames, n_unacknowledged=n_unacknowledged)
                if self._account.is_beyond:
                    self._account.hold(framer.n_samples)
        if self._requests.is_due(self._next_frame):
            out.controls.extend(self._requests.take(self._next_frame, self.epoch))

    def lose(self) -> None:
        """The worker that had the session is gone: all that it has not answered waits for another one."""
        assert self.replay is not None, "only who keeps a log can move"
        self.state = SessionState.MOVING
        if self._n_restarts:
            # What was sent before the Init counts no more, and the Init itself may not have come through.
            self._urgent.clear()
            for _ in range(self._n_restarts):
                self._ask_for_restart()
            self._acknowledged = self._next_frame
            return
        self._framer.put_back(self.replay.take_back(self._next_frame - self._acknowledged))
        self._account.hold(self._framer.n_samples)
        self._next_frame = self._acknowledged
        self._requests.put_back()

    def close(self) -> Close | None:
        """End the session; return what to tell the worker, if one was ever asked for a slot."""
        was_given_back, self._is_given_back = self._is_given_back, True
        self.state = SessionState.CLOSED
        self._framer.clear()
        self._account.hold(0)
        self._requests.clear()
        self._urgent.clear()
        if self.replay is not None:
            self.replay.restart()
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
        elif self.state is SessionState.MOVING:
            n_readys = 0
            self.state = _DRAINING if self._is_finished else _STREAMING
        elif self._n_restarts:
            self._n_restarts -= 1
        else:
            message = f"session {self.id}: Ready came without an Open or an Init"
            raise LinkError(message)
        # The frames that were on their way are gone, at both ends: the window is whole again.
        self._credit = Credit(window_frames)
        self._acknowledged = self._next_frame
        return n_readys

    def stepped(self, record: StepRecord) -> int | None:
        """The model made a step; return ``buffered_pcm``, or None if that is old news, or silence of the server's.

        Raises:
            LinkError: another frame was due, or it was never sent.
        """
        if self._n_restarts or (self.state is not _STREAMING and self.state is not _DRAINING):
            return None
        frame = record[0]
        if record[2] != _CLIENT:
            if self.replay is not None:
                self.replay.records.append(record)
            return None
        if frame != self._acknowledged or frame >= self._next_frame:
            message = f"session {self.id}: frame {frame} was stepped, frame {self._acknowledged} was due"
            raise LinkError(message)
        self._acknowledged += 1
        if self.replay is not None:
            self.replay.records.append(record)
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
        if self.replay is not None:
            self.replay.told(event)
        if event.kind is not EventKind.WORD and event.kind is not EventKind.END_WORD:
            self._requests.answered(event)
            if event.kind is EventKind.FLUSHED and self.state is _DRAINING and not self._requests.is_pending:
                self.state = SessionState.CLOSED
        return True


# A session in one of these holds a slot. A name of this module is found ten times as fast as a member of an enum.
_STREAMING: Final = SessionState.STREAMING
_DRAINING: Final = SessionState.DRAINING
