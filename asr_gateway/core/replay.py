"""What another worker would need if the one that has a session were lost.

    sent     ░░░░░▓▓▓▓▓▓▓▓▓▓▓▓│▒▒▒▒▒         ▓ stepped: audio and results of the last seconds, to warm a model up with
    stepped  ░░░░░▓▓▓▓▓▓▓▓▓▓▓▓│              ▒ not stepped: sent again

Nothing is lost then and nothing comes twice: all up to the last frame whose step was heard of has been passed on, and
all behind it is here. Results are kept for one context of the model, and the audio for as long, but neither for longer
than ``replay_s``. While the gateway's sessions together hold more audio than ``replay_budget_bytes``, who has none yet
gets none that was stepped, and the next worker's codec begins with what follows.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from asr_gateway.core.level import limited
from asr_gateway.core.limits import ByteBudget
from shared.messages import EventKind, ResumeLog, StepBlock, StepEvent, StepFlag
from shared.units import FRAME_BYTES, FRAME_RATE, FRAME_SAMPLES

StepRecord: TypeAlias = tuple[int, int, int, int, bytes]
"""One row of a StepBlock: frame, step, flag, text token, codes as uint16."""

_CLIENT: Final = int(StepFlag.CLIENT)
_SILENCE: Final = int(StepFlag.SILENCE)
_LAST_OF_FLUSH: Final = 2
"""Flag of a record: silence, and the flush that it was fed for was answered."""


def step_records(block: StepBlock) -> Iterator[StepRecord]:
    """Yield the rows of a block, each of which its session may keep."""
    codes = block.codes.astype(np.uint16, copy=False).tobytes()
    width = 2 * block.codes.shape[1]
    return zip(
        block.frames.tolist(),
        block.steps.tolist(),
        block.flags.tolist(),
        block.text.tolist(),
        [codes[at : at + width] for at in range(0, len(codes), width)],
        strict=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayBounds:
    """How much one session keeps."""

    n_frames: int
    """Steps, and frames of audio that were stepped; some more if the model's delay is long."""
    budget: ByteBudget
    """All sessions' audio."""

    @classmethod
    def of(cls, replay_s: float, budget: ByteBudget) -> "ReplayBounds":
        """Return the bounds of a session that keeps ``replay_s`` seconds."""
        return cls(n_frames=int(replay_s * FRAME_RATE), budget=budget)


class ReplayLog:
    """The log of one session. ``records`` is filled by ``Session``, which counts the frames."""

    __slots__ = (
        "_bounds", "_is_word_open", "_last_end_s", "_n_charged", "_n_kept", "_n_stepped", "_pads", "_pcm",
        "_steps_before", "_time_before", "records",
    )  # fmt: skip

    def __init__(self, bounds: ReplayBounds) -> None:
        self._bounds = bounds
        self.records: deque[StepRecord] = deque(maxlen=bounds.n_frames + 1)
        """The last steps since the model's state was fresh, one more than is passed on: that tells if these are all."""
        self._pcm: deque[NDArray[np.float32]] = deque()
        self._n_stepped = bounds.n_frames
        """Frames of audio to keep that were stepped."""
        self._n_kept = self._n_charged = 0
        """Frames of audio that are kept, and that the budget was charged for."""
        self._pads: deque[tuple[int, int]] = deque()
        """Frame behind a padded one, and the samples of padding up to it since the last Init."""
        self._steps_before = self._time_before = 0
        self._is_word_open = False
        self._last_end_s = 0.0

    # --- what happens to the session ------------------------------------------------------------------------

    def begin(self, *, context_frames: int, delay_frames: int) -> None:
        """The session has got a slot of a model that looks ``context_frames`` back and speaks ``delay_frames`` late."""
        # What was said in the last frames has still to be heard of, so these are repeated in any case. And one more
        # than the context: the first step of a fresh model is fed its start token, which must have left the context.
        wanted = max(self._bounds.n_frames, 2 * delay_frames)
        self._n_stepped = min(wanted, context_frames + 1)
        self.records = deque(self.records, maxlen=self._n_stepped + 1)

    def keep(self, pieces: list[NDArray[np.float32]], *, n_frames: int, n_unacknowledged: int) -> None:
        """``n_frames`` were sent, ``[k * 1920]`` each piece; ``n_unacknowledged`` in all are not stepped now."""
        pcm = self._pcm
        pcm.extend(pieces)
        n_kept, n_wanted = self._n_kept + n_frames, n_unacknowledged + self._n_stepped
        if n_kept <= n_wanted and self._bounds.budget.is_exhausted:
            n_wanted = max(n_unacknowledged, self._n_kept)
        if n_kept > n_wanted:
            while n_kept - (n_first := len(pcm[0]) // FRAME_SAMPLES) >= n_wanted:
                pcm.popleft()
                n_kept -= n_first
        self._n_kept = n_kept
        if n_kept != self._n_charged:
            self._charge()

    def pad(self, frame: int, n_zeros: int) -> None:
        """The frame before ``frame`` was filled with ``n_zeros`` zeros that stand for no audio of the client."""
        if n_zeros:
            self._pads.append((frame, n_zeros + (self._pads[-1][1] if self._pads else 0)))
            if self.records:
                self._forget_pads(self.records[0][0])

    def told(self, event: StepEvent) -> None:
        """The client is told of a word, or that something it had asked for has happened."""
        kind = event.kind
        if kind is EventKind.WORD:
            self._is_word_open = True
        elif kind is EventKind.END_WORD:
            self._is_word_open, self._last_end_s = False, event.time_s
        elif kind is EventKind.FLUSHED:
            if self.records and self.records[-1][2] != _CLIENT:
                frame, step, _, text, codes = self.records.pop()
                self.records.append((frame, step, _LAST_OF_FLUSH, text, codes))
        elif kind is EventKind.RESET_DONE:
            self._forget_steps()

    def restart(self) -> None:
        """The session begins afresh: nothing before counts, and time begins again."""
        self.records.clear()
        self._pads.clear()
        self._steps_before = self._time_before = 0
        self._is_word_open, self._last_end_s = False, 0.0
        self._pcm.clear()
        self._n_kept = 0
        self._charge()

    # --- for another worker ---------------------------------------------------------------------------------

    def take_back(self, n_frames: int) -> list[NDArray[np.float32]]:
        """Return the audio of the newest ``n_frames`` frames, which are to be sent again, and keep the rest."""
        pieces: list[NDArray[np.float32]] = []
        while n_frames:
            piece = self._pcm.pop()
            n_piece = len(piece) // FRAME_SAMPLES
            if n_piece > n_frames:
                self._pcm.append(piece[: -n_frames * FRAME_SAMPLES])
                piece = piece[-n_frames * FRAME_SAMPLES :]
                n_piece = n_frames
            pieces.append(piece)
            n_frames -= n_piece
            self._n_kept -= n_piece
        self._charge()
        return pieces[::-1]

    def resume(self, *, has_prefix: bool) -> ResumeLog | None:
        """Return the log; None if the session may as well begin anew, with its silence first if it ``has_prefix``."""
        steps = self.records[-1][1] if self.records else self._steps_before
        if not steps and (has_prefix or not self.records):
            self.records.clear()
            return None
        records = list(self.records)[-self._n_stepped :]
        n = len(records)
        frames = np.array([record[0] for record in records], np.int64)
        counts = np.array([record[1] for record in records], np.int64)
        flags = np.array([_CLIENT if record[2] == _CLIENT else _SILENCE for record in records], np.uint8)
        codes = np.frombuffer(b"".join(record[4] for record in records), np.uint16)
        return ResumeLog(
            frames=frames,
            flags=flags,
            times=self._times(frames, counts, flags),
            text=np.array([record[3] for record in records], np.int32),
            codes=codes.reshape(n, -1) if n else np.zeros((0, 1), np.uint16),
            pcm=self._audio(int(np.count_nonzero(flags == _CLIENT))),
            steps=steps,
            silence=_open_silence(records),
            is_whole=n == len(self.records),
            is_word_open=self._is_word_open,
            last_end_s=self._last_end_s,
        )

    # --- inside -----------------------------------------------------------------------------------------------

    def _forget_steps(self) -> None:
        """The model's state is fresh, the session's time goes on."""
        if self.records:
            frame, self._steps_before, flag, *_ = self.records[-1]
            self._time_before = self._steps_before * FRAME_SAMPLES - self._padding(frame + (flag != _CLIENT))
            self._forget_pads(frame + 1)
        self.records.clear()
        self._is_word_open = False

    def _forget_pads(self, oldest: int) -> None:
        """Keep of the padding before frame ``oldest`` the sum: nobody asks how it grew."""
        while len(self._pads) > 1 and self._pads[1][0] <= oldest:
            self._pads.popleft()

    def _times(
        self, frames: NDArray[np.int64], counts: NDArray[np.int64], flags: NDArray[np.uint8]
    ) -> NDArray[np.int64]:
        if not len(frames):
            return np.array([self._time_before], np.int64)
        is_client = flags == _CLIENT
        # Before a client's step the time is that of the steps before it; silence stands where the client's audio ends.
        before = (counts - is_client) * FRAME_SAMPLES
        padding = np.array([self._padding(frame) for frame in (frames + ~is_client).tolist()], np.int64)
        last = counts[-1] * FRAME_SAMPLES - padding[-1]
        return np.append(before - padding, last)

    def _padding(self, frame: int) -> int:
        """Return the samples of padding in front of ``frame``."""
        return next((n_zeros for behind, n_zeros in reversed(self._pads) if behind <= frame), 0)

    def _audio(self, n_most: int) -> NDArray[np.float32]:
        if not self._pcm or not n_most:
            return np.zeros((0, FRAME_SAMPLES), np.float32)
        pcm = np.concatenate(list(self._pcm), dtype=np.float32)[-n_most * FRAME_SAMPLES :]
        return limited(pcm).reshape(-1, FRAME_SAMPLES)

    def _charge(self) -> None:
        self._bounds.budget.charge((self._n_kept - self._n_charged) * FRAME_BYTES)
        self._n_charged = self._n_kept


def _open_silence(records: Sequence[StepRecord]) -> int:
    """Return how many steps at the end fed silence for a flush that is not answered."""
    return next((n for n, record in enumerate(reversed(records)) if record[2] != _SILENCE), len(records))
