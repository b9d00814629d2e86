import math

import numpy as np

from asr_gateway.core.outbound import Outbound
from shared.units import FRAME_SAMPLES, Epoch, FrameIndex, SessionId


def frames(*values: float) -> np.ndarray:
    return np.repeat(np.array(values, np.float32), FRAME_SAMPLES)


def test_no_frames_make_no_block() -> None:
    assert Outbound(10).block() is None


def test_frames_of_many_sessions_share_one_block() -> None:
    out = Outbound(10)
    out.add_frames(SessionId(5), Epoch(1), FrameIndex(7), [frames(1.0), frames(2.0, 3.0)])
    out.add_frames(SessionId(6), Epoch(2), FrameIndex(0), [frames(4.0)])

    block = out.block()

    assert block is not None
    assert block.sessions.tolist() == [5, 5, 5, 6]
    assert block.epochs.tolist() == [1, 1, 1, 2]
    assert block.frames.tolist() == [7, 8, 9, 0]
    assert block.pcm[:, 0].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert out.room == 6


def test_frames_as_they_lie_in_messages_leave_plain() -> None:
    table = np.zeros(FRAME_SAMPLES, [("prefix", "u1"), ("value", ">f4")])
    table["value"] = np.linspace(-1, 1, FRAME_SAMPLES, dtype=np.float32)
    for n_frames in (1, 2):
        out = Outbound(10)
        for frame in range(n_frames):
            out.add_frames(SessionId(5), Epoch(1), frame, [table["value"]])

        block = out.block()

        assert block is not None
        assert block.pcm.dtype == np.float32
        assert block.pcm.flags.c_contiguous
        assert block.pcm.tolist() == [table["value"].tolist()] * n_frames


def test_what_leaves_is_within_what_can_be_played() -> None:
    wild = frames(0.5, math.nan, math.inf, -1e30, 10.0)
    for pieces, expected in (([wild], [0.5, 0.0, 10.0, -10.0, 10.0]), (np.split(wild, 5)[:2], [0.5, 0.0])):
        out = Outbound(10)
        out.add_frames(SessionId(5), Epoch(1), 0, pieces)

        block = out.block()

        assert block is not None
        assert block.pcm[:, -1].tolist() == expected
