"""Audio blocks of a single frame, as gateways send them that are not busy: a thousand for each step of a full worker.

    part 0 is always the same │ part 1: session, frame, epoch │ part 2: 1920 samples

They are told from other messages by their bytes and become one block together: an array for each of them, and what
numpy asks for making it, would cost more than all else that is done about a frame.
"""

import struct
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np

from shared.columns import FLOAT32, INT32, INT64
from shared.messages import AudioBlock
from shared.units import FRAME_BYTES, FRAME_SAMPLES
from shared.wire import ONE_FRAME_HEAD, Parts

LoneFrame: TypeAlias = list[bytes]
"""The parts of a block of one frame, checked but not decoded."""

_N_PARTS: Final = 3
_ROW: Final = struct.Struct("<qqi")
"""The columns of a block with one frame of audio: session, frame, epoch."""
_ROWS: Final = np.dtype([("session", INT64), ("frame", INT64), ("epoch", INT32)])


def is_lone_frame(parts: Parts) -> bool:
    """Return whether the parts are that; not so for any other message, and if anything is wrong with it."""
    if len(parts) != _N_PARTS or parts[0] != ONE_FRAME_HEAD:
        return False
    _, columns, pcm = parts
    if len(columns) != _ROW.size or len(pcm) != FRAME_BYTES:
        return False
    session, frame, epoch = _ROW.unpack(columns)
    return bool(session >= 0 and frame >= 0 and epoch >= 1)


def block_of(frames: Sequence[LoneFrame]) -> AudioBlock:
    """Return the frames as one block."""
    rows = np.frombuffer(b"".join([columns for _, columns, _ in frames]), _ROWS)
    return AudioBlock(
        sessions=rows["session"].copy(),
        epochs=rows["epoch"].copy(),
        frames=rows["frame"].copy(),
        pcm=np.frombuffer(b"".join([pcm for _, _, pcm in frames]), FLOAT32).reshape(-1, FRAME_SAMPLES),
    )
