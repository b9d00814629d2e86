"""The messages of the link between a gateway and a worker, one group for each receiver.

``wire.py`` alone knows how they are encoded. Every frame of a session has an index (from 0, never restarted) and
every assignment of a session to a worker an epoch (from 1): what carries an old epoch is dropped at both ends, and a
gap in the indices means loss, never silence.

A conversation:

    gateway                                   worker
    Hello ──────────────────────────────────►
          ◄────────────────────────────────── Welcome          (or Unwelcome)
    Open ───────────────────────────────────►
          ◄────────────────────────────────── Ready            (or Reject)
    AudioBlock, Marker, Flush, Reset ───────►
          ◄────────────────────────────────── StepBlock ...    (grants credit, acknowledges frames)
    Close ──────────────────────────────────►
          ◄────────────────────────────────── Closed           (or Evict, unasked)
    Heartbeat ──────────────────────────────►
          ◄────────────────────────────────── Load
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shared.units import FRAME_SAMPLES, Epoch, FrameIndex, SessionId, SlotIndex

PROTOCOL_VERSION: Final = 2
"""A process of version N talks to N and N-1."""


class SessionKind(IntEnum):
    """Who waits for the words: decides placement and patience."""

    LIVE = 0
    FILE = 1


# --- gateway -> worker ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """First message of a gateway incarnation on a connection; repeated until a Welcome comes."""

    version: int
    gateway: str
    """Name of the incarnation, for logs: ``gw:<host>:<pid>:<uuid>``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeLog:
    """What another worker needs to go on with a session: the last steps of its model, and the newest audio.

    n steps, the newest last: all since the model's state was fresh, or as many as are kept.
    """

    frames: NDArray[np.int64]
    """``[n]``: index of the client frame of each step; of a SILENCE step: the last before."""
    flags: NDArray[np.uint8]
    """``[n]``: StepFlag"""
    times: NDArray[np.int64]
    """``[n + 1]``: the client's time before each step and after the last, in samples since its last Init."""
    text: NDArray[np.int32]
    """``[n]``: the text token that each step said."""
    codes: NDArray[np.uint16]
    """``[n, n_codebooks]``: the codes of each step's frame."""
    pcm: NDArray[np.float32]
    """``[m, 1920]``: audio of the newest m CLIENT steps; the codec begins with them."""
    steps: int
    """Client frames stepped since the last Init."""
    silence: int
    """SILENCE steps at the end that belong to a flush which is not answered yet."""
    is_whole: bool
    """Whether the first of the steps was made with a fresh state."""
    is_word_open: bool
    """Whether a word was said whose end was not."""
    last_end_s: float
    """When the last word ended, in the client's time; 0 if none did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Ask for a slot for a session."""

    session: SessionId
    epoch: Epoch
    kind: SessionKind
    first_frame: FrameIndex
    """Index of the first frame that AudioBlocks will bring."""
    silence_prefix_frames: int = 0
    """Frames of silence that are fed first; they belong to no client time."""
    resume: ResumeLog | None = None
    """Another worker had the session until it was lost; there is no silence to feed first then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioBlock:
    """Whole frames of any number of sessions: all that has come together since the last block."""

    sessions: NDArray[np.int64]
    """``[n]``"""
    epochs: NDArray[np.int32]
    """``[n]``"""
    frames: NDArray[np.int64]
    """``[n]``: index of each frame; those of one session ascend by one."""
    pcm: NDArray[np.float32]
    """``[n, 1920]``"""

    def __post_init__(self) -> None:
        n = len(self.sessions)
        assert self.epochs.shape == self.frames.shape == (n,), "one epoch and one index for each frame"
        assert self.pcm.shape == (n, FRAME_SAMPLES), "whole frames only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """Echo ``id`` once every frame before ``frame`` was stepped and D more frames have passed."""

    session: SessionId
    epoch: Epoch
    id: int
    frame: FrameIndex
    """Index that the next frame after the marker will have; counts a partial frame before it as whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flush:
    """After the frame before ``frame``: feed silence until the last word is out, then answer Flushed."""

    session: SessionId
    epoch: Epoch
    id: int | None
    frame: FrameIndex
    """Index that the next frame after the flush will have."""
    pad_samples: int
    """Zeros at the end of the last frame that stand for no client audio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """Give the session a fresh model state.

    ``restart=True`` is a client's ``Init``: at once; frames, markers and flushes not yet processed vanish; step counts
    and times restart; answered by Ready. ``restart=False`` takes effect in stream order after the frame before
    ``frame``; times go on; answered by ResetDone.
    """

    session: SessionId
    epoch: Epoch
    id: int | None
    restart: bool
    frame: FrameIndex
    """Index that the next frame after the reset will have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """The session is over; its slot is free at once. Answered by Closed."""

    session: SessionId
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The gateway's loop turns. Sent every 250 ms; a worker frees the slots of a gateway that has long been silent."""


ToWorker: TypeAlias = Hello | Open | AudioBlock | Marker | Flush | Reset | Close | Heartbeat


# --- worker -> gateway ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """The worker's facts; sent only once the model is warm."""

    version: int
    worker: str
    """Name of the incarnation: ``wk:<host>:<pid>:<uuid>``."""
    module: str
    """NAME of ``[modules.NAME]``."""
    fingerprint: str
    n_sessions: int
    """Sessions that the worker admits at once; its batch may have more slots."""
    n_heads: int
    n_codebooks: int
    delay_frames: int
    context_frames: int
    codec_context_frames: int
    window_frames: int
    """Credit of every new session."""
    device: str
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwelcome:
    """The worker will not talk to this gateway; ``reason`` names the versions or what else does not fit."""

    versions: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The session holds ``slot``, whose state is fresh. Answers Open and Reset(restart=True)."""

    session: SessionId
    epoch: Epoch
    slot: SlotIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """No slot for this session; ``reason`` is one of the REJECT_ constants."""

    session: SessionId
    epoch: Epoch
    reason: str
    free: int


REJECT_FULL: Final = "full"
REJECT_DRAINING: Final = "draining"
REJECT_RESUME: Final = "resume_unfit"
"""The log holds tokens or codes that this model does not have."""
REJECT_HELLO: Final = "hello_first"
"""The worker does not know this gateway (any more): it restarted, or gave a silent gateway up. A Welcome went ahead."""


class StepFlag(IntEnum):
    """What a row of a StepBlock was."""

    CLIENT = 0
    """A frame of the client's audio: it is acknowledged, gives a credit back and makes a Step."""
    SILENCE = 1
    """A frame that the server supplied (flush, prefix)."""


class EventKind(IntEnum):
    """What an entry of ``StepBlock.events`` is; tells which fields of StepEvent mean something."""

    WORD = 0
    END_WORD = 1
    MARKER = 2
    FLUSHED = 3
    RESET_DONE = 4


@dataclass(slots=True)
class StepEvent:
    """Something that a session's step brought about, in the order in which its client must see it.

    Nobody changes one; it is not frozen because every word makes two, and frozen ones take three times as long to make.
    """

    session: SessionId
    epoch: Epoch
    kind: EventKind
    time_s: float = 0.0
    """WORD: start, END_WORD: stop; in the client's time."""
    text: str = ""
    """WORD"""
    id: int | None = None
    """MARKER, FLUSHED, RESET_DONE"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBlock:
    """The results of one model step for all rows of one gateway, as columns, then the few events."""

    sessions: NDArray[np.int64]
    """``[n]``"""
    epochs: NDArray[np.int32]
    """``[n]``"""
    frames: NDArray[np.int64]
    """``[n]``: index of the frame that was stepped; all up to it are acknowledged. SILENCE rows: the last before."""
    steps: NDArray[np.int64]
    """``[n]``: client frames stepped since the last Init, this one included (``Step.step_idx``)."""
    flags: NDArray[np.uint8]
    """``[n]``: StepFlag"""
    text: NDArray[np.int32]
    """``[n]``: text token of the step (a ``ResumeLog`` wants it)."""
    codes: NDArray[np.uint16]
    """``[n, n_codebooks]``: codes of the step's frame (a ``ResumeLog`` wants them)."""
    pauses: NDArray[np.float32]
    """``[n, n_heads]``"""
    events: tuple[StepEvent, ...] = field(default=())
    """In order for each session. May name sessions that have no row (a marker due without a step, a reset)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The worker's loop turns, and how busy it is. Sent after steps (every 50 ms at most), every 200 ms when idle."""

    used: int
    free: int
    draining: bool
    steps: int
    """Model steps since start: a counter that moves only if the model does."""
    step_p50_ms: float
    step_p99_ms: float
    deadline_s: float
    """By when the next Load is due at the latest; silence for longer makes the worker suspect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evict:
    """The worker gives up a session that it should have, or was sent something for one that it does not have."""

    session: SessionId
    epoch: Epoch
    code: str
    """Code of an AsrError, or one of the EVICT_ constants."""
    reason: str


EVICT_GAP: Final = "gap"
"""Frames are missing."""
EVICT_HELLO: Final = "hello"
"""The gateway began anew."""
EVICT_GATEWAY_TIMEOUT: Final = "gateway_timeout"
"""The gateway was silent, or out of reach."""
EVICT_UNKNOWN_SESSION: Final = "unknown_session"


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The slot of a session is free; answers Close."""

    session: SessionId
    epoch: Epoch


ToGateway: TypeAlias = Welcome | Unwelcome | Ready | Reject | StepBlock | Load | Evict | Closed
