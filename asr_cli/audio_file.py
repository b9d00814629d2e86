"""Read an audio file of any format that libsndfile knows, piece by piece, as the service wants it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from asr_cli.usage import UsageError
from shared.units import SAMPLE_RATE

_UNKNOWN_FORMAT: Final = 1
"""libsndfile's SF_ERR_UNRECOGNISED_FORMAT."""
_UNKNOWN_FRAMES: Final = 1 << 60
"""libsndfile reports a length that it does not know as the largest number that it has, or as 0."""


class _ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
    """Read from front to back: soundfile seeks after every read, and a FLAC that came through a pipe cannot."""

    def seekable(self) -> bool:
        return False


def _why_not(path: Path, error: Exception) -> str:
    if path.is_dir():
        return "is a folder"
    if not path.exists():
        return "no such file"
    if getattr(error, "code", None) == _UNKNOWN_FORMAT:
        return "no audio file that can be read; WAV, FLAC, Ogg and MP3 can, M4A and WebM cannot"
    return str(error)


class AudioFile:
    """A file that can be read as 24 kHz mono, once.

    Raises:
        UsageError: libsndfile cannot open it.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file: Any = _ForwardFile(str(path))
        except (OSError, soundfile.LibsndfileError) as error:
            message = f"{path}: {_why_not(path, error)}"
            raise UsageError(message) from error
        self.path = path
        is_known = 0 < self._file.frames < _UNKNOWN_FRAMES
        self.duration_s: float | None = self._file.frames / self._file.samplerate if is_known else None
        """None if the header does not tell; counted once all pieces were read."""

    def pieces(self) -> Iterator[NDArray[np.float32]]:
        """Yield the whole file, a second or less at a time, as float32 in [-1, 1] at 24 kHz; channels are averaged.

        Raises:
            UsageError: the audio is damaged; says where.
        """
        with self._file as file:
            resampler = soxr.ResampleStream(file.samplerate, SAMPLE_RATE, 1, dtype="float32")
            n_frames = 0
            while len(block := self._read(n_frames)):
                n_frames += len(block)
                yield resampler.resample_chunk(block.mean(axis=1))
            self.duration_s = n_frames / file.samplerate
            yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)

    def _read(self, n_read: int) -> NDArray[np.float32]:
        try:
            block: NDArray[np.float32] = self._file.read(self._file.samplerate, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            message = f"{self.path}: the audio is damaged after {n_read / self._file.samplerate:.1f} s: {error}"
            raise UsageError(message) from error
        return block
