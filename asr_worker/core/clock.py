"""The client's time at each model frame of a lease.

A lease counts frames; a client counts the seconds of the audio that it sent. The two part where the server supplied
silence (a prefix, a flush), which belongs to no client time, and where a flush padded a partial frame with zeros:

    model frames   0 ─────── 10 ░░░ silence ░░░ 16 ─────── 20
    client time    0 ─────── t  t  t  t  t  t   t ─────────►       t = 10 frames less the padding

Without any of that the time of frame p is p / 12.5 s, exactly.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.units import FRAME_SAMPLES, SAMPLE_RATE


@dataclass(slots=True)
class _Pause:
    start: int
    pad_samples: int
    end: int | None = None


class ClientClock:
    """Maps positions in the lease's frames to seconds.

    Positions must be asked for in ascending order, none more than ``delay_frames`` before the newest frame: pauses
    further back are forgotten, so that a session of any length keeps a few of them.

    Args:
        delay_frames: D.
        past: samples of the client before each frame that another worker had stepped, and after the last.
    """

    def __init__(self, delay_frames: int, past: NDArray[np.int64] | None = None) -> None:
        self._delay = delay_frames
        self._pauses: deque[_Pause] = deque()
        self._past = past
        self._position = 0 if past is None else len(past) - 1
        self._samples = 0 if past is None else int(past[-1])

    @property
    def n_pauses(self) -> int:
        """Pauses that can still matter."""
        return len(self._pauses)

    def pause(self, position: int, pad_samples: int = 0) -> None:
        """Stop the client's time at ``position``; the ``pad_samples`` samples before it stand for no audio."""
        assert not self._pauses or self._pauses[-1].end is not None, "paused twice"
        self.time_s(position - self._delay)
        self._pauses.append(_Pause(position, pad_samples))

    def resume(self, position: int) -> None:
        """Let the client's time go on at ``position``."""
        assert self._pauses, "resumed without a pause"
        assert self._pauses[-1].end is None, "resumed without a pause"
        self._pauses[-1].end = position

    def time_s(self, position: int) -> float:
        """Return the client's time at ``position``, in seconds since its first sample."""
        if self._past is not None:
            if position < len(self._past) - 1:
                return int(self._past[max(position, 0)]) / SAMPLE_RATE
            self._past = None
        while self._pauses:
            pause = self._pauses[0]
            if position < pause.start:
                break
            passed = (pause.start - self._position) * FRAME_SAMPLES - pause.pad_samples
            # Below 0 where the padded frame is the last one that another worker had stepped.
            samples = max(0, self._samples + passed)
            if pause.end is None or position < pause.end:
                return samples / SAMPLE_RATE
            self._samples, self._position = samples, pause.end
            self._pauses.popleft()
        return (self._samples + (position - self._position) * FRAME_SAMPLES) / SAMPLE_RATE
