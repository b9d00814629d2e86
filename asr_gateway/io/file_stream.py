"""An awaitable front for one session that transcribes a whole file: audio is pushed, events are iterated.

See the docstring of ``dispatch.py`` for its use.
"""

import asyncio
from collections import deque
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from asr_gateway.core.dialect import PackPauses
from asr_gateway.core.session import SessionState
from asr_gateway.io.stream import Stream
from asr_gateway.metrics import DONE
from shared.errors import AsrError, ClientGoneError
from shared.messages import EventKind, StepEvent


class CloseStream(Protocol):
    """Ends a session."""

    def __call__(self, stream: Stream, *, code: str) -> None:
        """End it; ``code`` tells the metrics why."""
        ...


class FileStream:
    """One file's session. Only ``Dispatch.open_file`` makes one; entering it waits for the slot."""

    def __init__(self) -> None:
        self._stream: Stream | None = None
        self._close: CloseStream | None = None
        self.has_slot = False
        """Whether the session has, or had, its slot."""
        # Bounded by the length of the file, which its route limits: words are its answer, not a buffer.
        self._events: deque[StepEvent] = deque()
        self._error: AsrError | None = None
        self._changed = asyncio.Event()

    # --- for whoever has the file -------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Wait until the session has its slot.

        Raises:
            AsrError: it will not get one.
        """
        try:
            self._raise_error()
            while not self.has_slot:
                await self._change()
        except BaseException as error:
            self._end(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end(error)

    def place(self) -> dict[str, int | str]:
        """Return where it is transcribed; see ``Stream.place``."""
        return self._opened_stream().place()

    async def push(self, pcm: NDArray[np.float32]) -> None:
        """Append samples ``[n]`` (24 kHz mono, finite), then wait while the session is full.

        Raises:
            AsrError: the session is over (WorkerLostError, RestartingError).
        """
        self._raise_error()
        stream = self._opened_stream()
        may_read = stream.audio(pcm)
        while not may_read:
            await self._change()
            may_read = stream.may_read()

    async def finish(self) -> None:
        """Say that the audio is complete.

        Raises:
            AsrError: the session is over.
        """
        self._raise_error()
        self._opened_stream().finish()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StepEvent:
        while not self._events:
            self._raise_error()
            if self._opened_stream().session.state is SessionState.CLOSED:
                raise StopAsyncIteration
            await self._change()
        return self._events.popleft()

    # --- for the dispatch ---------------------------------------------------------------------------------

    def opened(self, stream: Stream, close: CloseStream) -> None:
        """The session has begun; it waits for its slot, or was refused already."""
        self._stream, self._close = stream, close

    # --- Listener -----------------------------------------------------------------------------------------

    @property
    def pack_pauses(self) -> PackPauses | None:
        """A file has no use for pauses."""
        return None

    def ready(self) -> None:
        """The session has its slot."""
        self.has_slot = True
        self._changed.set()

    def step(self, step_idx: int, packed_pauses: bytes, buffered_pcm: int) -> None:
        """Not called: there is no ``pack_pauses``."""

    def event(self, event: StepEvent) -> None:
        """Keep a word for the iterator."""
        if event.kind in (EventKind.WORD, EventKind.END_WORD):
            self._events.append(event)
        self._changed.set()

    def has_room(self) -> None:
        """The session can take in audio again."""
        self._changed.set()

    def told(self) -> None:
        """Nothing to do: what came is kept already."""

    def ended(self, error: AsrError) -> None:
        """The session is over before its time."""
        # Without its traceback: that would keep the frames of whoever raised it.
        self._error = error.with_traceback(None)
        self._changed.set()

    # --- inside -------------------------------------------------------------------------------------------

    def _end(self, error: BaseException | None) -> None:
        if self._close is not None:
            self._close(self._opened_stream(), code=_code(error))

    def _opened_stream(self) -> Stream:
        assert self._stream is not None, "a FileStream comes from Dispatch.open_file"
        return self._stream

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
        self._raise_error()


def _code(error: BaseException | None) -> str:
    match error:
        case None:
            return DONE
        case AsrError():
            return error.code
        case asyncio.CancelledError():
            # What ends a file from outside for another reason ends its session first.
            return ClientGoneError.code
        case _:
            return AsrError.code
