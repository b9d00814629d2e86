"""Re-framing: audio that arrives in pieces of any length leaves in whole frames.

    push ──► [k * 1920] views of what was pushed ──► take
        '──► the partial frame, until it is full

Whole frames are not copied here: a piece that starts on a frame boundary is cut into views. Only the samples of the
partial frame are.

Samples may come as they lie in a client's message, in its byte order and with other bytes between them. What leaves at
once, as nearly every frame does, is made plain where it is joined with the others' frames. What has to wait is made
plain here, and then keeps no more memory than it is counted for.
"""

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.units import FRAME_SAMPLES

_PLAIN: Final = np.dtype(np.float32)


def _plain(pcm: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return samples that keep no more memory than they take, in this machine's byte order: a copy unless they do."""
    owner = pcm.base  # it may be bytes, of which the types do not know
    is_all = owner is None or getattr(owner, "nbytes", None) == pcm.nbytes
    return pcm if is_all and pcm.dtype == _PLAIN else np.array(pcm, _PLAIN)


class Framer:
    """Audio of one session that waits to be sent: whole frames, and at the end one partial frame."""

    __slots__ = ("_frames", "_partial", "n_frames", "n_partial")

    def __init__(self) -> None:
        self._frames: deque[NDArray[np.float32]] = deque()
        self._partial = np.empty(FRAME_SAMPLES, np.float32)
        self.n_frames = 0
        """Whole frames waiting."""
        self.n_partial = 0
        """Samples of the partial frame, less than one frame."""

    @property
    def n_samples(self) -> int:
        """Samples waiting, the partial frame included."""
        return self.n_frames * FRAME_SAMPLES + self.n_partial

    def push(self, pcm: NDArray[np.float32]) -> int:
        """Append samples ``[n]``, which must not change afterwards: they are kept; return how many samples wait now."""
        n_partial, n_pcm = self.n_partial, len(pcm)
        if n_partial + n_pcm < FRAME_SAMPLES:
            self._partial[n_partial : n_partial + n_pcm] = pcm
            self.n_partial = n_partial + n_pcm
        elif n_pcm == FRAME_SAMPLES and not n_partial:
            self._frames.append(_plain(pcm) if self.n_frames else pcm)
            self.n_frames += 1
        else:
            self._cut(pcm)
        return self.n_frames * FRAME_SAMPLES + self.n_partial

    def _cut(self, pcm: NDArray[np.float32]) -> None:
        if self.n_partial:
            head = pcm[: FRAME_SAMPLES - self.n_partial]
            self._append_partial(head)
            pcm = pcm[len(head) :]
        n_whole, n_rest = divmod(len(pcm), FRAME_SAMPLES)
        if n_whole:
            self._frames.append(_plain(pcm[: n_whole * FRAME_SAMPLES]))
            self.n_frames += n_whole
        if n_rest:
            self._append_partial(pcm[-n_rest:])

    def _append_partial(self, pcm: NDArray[np.float32]) -> None:
        end = self.n_partial + len(pcm)
        self._partial[self.n_partial : end] = pcm
        if end < FRAME_SAMPLES:
            self.n_partial = end
            return
        self._frames.append(self._partial)
        self._partial = np.empty(FRAME_SAMPLES, np.float32)
        self.n_frames += 1
        self.n_partial = 0

    def pad(self) -> int:
        """Fill the partial frame, if there is one, with zeros and return how many."""
        n_zeros = -self.n_partial % FRAME_SAMPLES
        if n_zeros:
            self._append_partial(np.zeros(n_zeros, np.float32))
        return n_zeros

    def take(self, n_frames: int) -> list[NDArray[np.float32]]:
        """Remove the oldest ``n_frames`` whole frames (there must be as many) and return them as ``[k * 1920]``."""
        assert n_frames <= self.n_frames, "only what is waiting can be taken"
        self.n_frames -= n_frames
        taken: list[NDArray[np.float32]] = []
        n_samples = n_frames * FRAME_SAMPLES
        while n_samples:
            piece = self._frames.popleft()
            if len(piece) > n_samples:
                self._frames.appendleft(piece[n_samples:])
                piece = piece[:n_samples]
            taken.append(piece)
            n_samples -= len(piece)
        return taken

    def put_back(self, pieces: list[NDArray[np.float32]]) -> None:
        """Let whole frames, ``[k * 1920]`` each piece, wait again before everything else."""
        self._frames.extendleft(piece.astype(_PLAIN, copy=False) for piece in reversed(pieces))
        self.n_frames += sum(len(piece) for piece in pieces) // FRAME_SAMPLES

    def clear(self) -> None:
        """Forget everything that waits."""
        self._frames.clear()
        self.n_frames = 0
        self.n_partial = 0
