"""Audio blocks of a single frame, as gateways send them that are not busy: a thousand for each step of a full worker.

    part 0 is always the same │ part 1: session, frame, epoch │ part 2: 1920 samples

They are told from other messages by their bytes and become one block together: an array for each of them, and what
numpy asks for making it, would cost more than all else that is done about a frame.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from shared.columns import FLOAT32, INT32, INT64, Part
from shared.messages import AudioBlock
from shared.units import FRAME_BYTES, FRAME_SAMPLES
from shared.wire import ONE_FRAME_HEAD, Parts

_N_PARTS: Final = 3
_ROW: Final = struct.Struct("<qqi")
"""The columns of a block with one frame of audio: session, frame, epoch."""


class LoneFrame(NamedTuple):
    """A checked block of one frame that is no array yet."""

    session: int
    frame: int
    epoch: int
    pcm: Part


def lone_frame(parts: Parts) -> LoneFrame | None:
    """Return the frame if that is what the parts are; None for any other message, and if anything is wrong with it."""
    if len(parts) != _N_PARTS or parts[0] != ONE_FRAME_HEAD:
        return None
    _, columns, pcm = parts
    if len(columns) != _ROW.size or len(pcm) != FRAME_BYTES:
        return None
    session, frame, epoch = _ROW.unpack(columns)
    if session < 0 or frame < 0 or epoch < 1:
        return None
    return LoneFrame(session, frame, epoch, pcm)


def block_of(frames: Sequence[LoneFrame]) -> AudioBlock:
    """Return the frames as one block."""
    sessions, indices, epochs, pcm = zip(*frames, strict=True)
    return AudioBlock(
        sessions=np.array(sessions, INT64),
        epochs=np.array(epochs, INT32),
        frames=np.array(indices, INT64),
        pcm=np.frombuffer(b"".join(pcm), FLOAT32).reshape(-1, FRAME_SAMPLES),
    )
