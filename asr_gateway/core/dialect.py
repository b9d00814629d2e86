"""What a dialect is: client bytes in, the same few events out, and the way back.

Sessions and shells know this protocol only; ``dialects/`` holds the implementations.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shared.errors import AsrError
from shared.messages import StepEvent


@dataclass(frozen=True, slots=True)
class OpusReceived:
    """A piece of the client's Ogg Opus stream, cut anywhere."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PiecesReceived:
    """More audio than should be decoded at once: pieces of a second or less, ``[n]`` at 24 kHz.

    Whoever takes one may let others have a turn before the next. Taking one may raise BadAudioError.
    """

    pieces: Iterator[NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class MarkerReceived:
    """Echo ``id`` once all audio before it is processed."""

    id: int


@dataclass(frozen=True, slots=True)
class FlushReceived:
    """Bring the words of all audio before it out."""

    id: int | None
    samples: NDArray[np.float32] | None = None
    """Audio ``[n]`` that was held back until now."""


@dataclass(frozen=True, slots=True)
class ResetReceived:
    """Give the model a fresh state; times go on."""

    id: int | None


@dataclass(frozen=True, slots=True)
class SetupReceived:
    """The client has said what it is; what waited for that may be said."""


@dataclass(frozen=True, slots=True)
class InitReceived:
    """Start afresh."""


ClientEvent: TypeAlias = (
    NDArray[np.float32]
    | OpusReceived
    | PiecesReceived
    | MarkerReceived
    | FlushReceived
    | ResetReceived
    | InitReceived
    | SetupReceived
)
"""An array is audio, ``[n]`` at 24 kHz: there are so many that they get no wrapping.

It may be a view of the message, in the message's byte order, and so keeps the message.
"""


SamplesOf: TypeAlias = Callable[[bytes, int], NDArray[np.float32] | None]
"""Gets a masked WebSocket frame and where its payload begins; returns the samples, or None if it is for ``decode``.

Masked, since the point of it is one pass over the bytes.
"""

PackPauses: TypeAlias = Callable[[NDArray[np.float32]], list[bytes]]
"""Encodes the pauses ``[n, heads]`` of a whole step block at once: one piece for each row."""


class Dialect(Protocol):
    """Client bytes <-> events. One that has to remember something of a connection is made for each."""

    @property
    def is_text(self) -> bool:
        """Whether messages are text frames."""
        ...

    @property
    def is_finished(self) -> bool:
        """Whether the last ``event`` was the last thing to be said."""
        ...

    @property
    def samples_of(self) -> SamplesOf | None:
        """A short way for messages that are all samples; None: there is none."""
        ...

    def decode(self, data: bytes | bytearray) -> ClientEvent:
        """Return what one message says.

        Raises:
            BadMessageError: it is no message of this dialect; says what is wrong.
        """
        ...

    def ready(self, session: int, delay_frames: int) -> bytes:
        """Encode: the session of that id has a fresh slot of a model that speaks ``delay_frames`` late.

        Empty while the client has to introduce itself first.
        """
        ...

    def pack_pauses(self, pauses: NDArray[np.float32]) -> list[bytes]:
        """Encode the pauses ``[n, heads]`` of a step block, one piece for each row, for ``step``."""
        ...

    def step(self, step_idx: int, packed_pauses: bytes, buffered_pcm: int) -> bytes:
        """Encode: one frame of the client was processed."""
        ...

    def event(self, event: StepEvent) -> bytes:
        """Encode a word, the end of a word, or the answer to a marker, flush or reset."""
        ...

    def fields(self, event: StepEvent) -> dict[str, Any]:
        """Return what the message that ``event`` encodes holds, for answers that are JSON."""
        ...

    def error(self, error: AsrError) -> bytes:
        """Encode: the session ends, and why."""
        ...
