"""What one worker is sent in one turn of the gateway's loop: messages, then one block with everybody's new frames.

Messages may go ahead of the frames that they stand behind: each names the frame at which it takes effect.
"""

import numpy as np
from numpy.typing import NDArray

from asr_gateway.core.level import limited
from shared.messages import AudioBlock, Flush, Marker, Reset
from shared.units import FRAME_SAMPLES, Epoch, SessionId


class Outbound:
    """Collects what the sessions of one worker have to send; ``take`` in session.py fills it.

    Frames may still lie as they came (``framer.py``): ``block`` makes them plain and joins them in one pass.
    """

    __slots__ = ("_epochs", "_frames", "_pcm", "_sessions", "controls", "room")

    def __init__(self, max_frames: int) -> None:
        self.controls: list[Marker | Flush | Reset] = []
        self.room = max_frames
        """Frames that still fit into the block."""
        self._sessions: list[int] = []
        self._epochs: list[int] = []
        self._frames: list[int] = []
        self._pcm: list[NDArray[np.float32]] = []

    def add_frames(self, session: SessionId, epoch: Epoch, first: int, pcm: list[NDArray[np.float32]]) -> None:
        """Append the frames of one session, ``[k * 1920]`` each piece; ``first`` is the index of the first."""
        for piece in pcm:
            self._pcm.append(piece)
            for _ in range(len(piece) // FRAME_SAMPLES):
                self._sessions.append(session)
                self._epochs.append(epoch)
                self._frames.append(first)
                first += 1
                self.room -= 1

    def block(self) -> AudioBlock | None:
        """Return the block of all frames, or None if there are none."""
        if not self._pcm:
            return None
        pcm = np.concatenate(self._pcm, dtype=np.float32)
        return AudioBlock(
            sessions=np.array(self._sessions, np.int64),
            epochs=np.array(self._epochs, np.int32),
            frames=np.array(self._frames, np.int64),
            # Here, where all that is sent comes by, and once for all: a call into numpy takes longer than its work.
            pcm=limited(pcm).reshape(-1, FRAME_SAMPLES),
        )
